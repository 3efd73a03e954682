"""``tool: crush``: Crush, headless, with the attempt's model route as its only provider.

Written to its source (github.com/charmbracelet/crush, August 2026, after v0.90) and tested against a stand-in: the real
program comes from its own release page, which the tests cannot reach.

What it hides, and how it is told here (all from its source):

- ``crush run`` prints the text of every message and nothing else. What it did stands in its session, which is asked for
  afterwards (``crush session last --json``) and printed behind a line of our own. The outcome does not hang on it: a
  guest may print what it likes there.
- a run that is cancelled ends with exit status 0; then the last message's finish part says ``canceled``.
- the first message also asks for a title, by the same model; no switch for that was found.

A project's own ``crush.json`` or ``.crushrc`` is read by Crush itself and cannot be left out; it can do no more than
the agent could. Its data go into the guest's home (``-D``), not into the repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tatin_jobs.states import Outcome, Reason
from tatin_jobs.terminal import clean_line
from worker.agents.base import (
    NO_PROXY,
    TOKEN_VARIABLE,
    AgentAdapter,
    AgentEvent,
    AgentPlan,
    AgentReader,
    AgentTask,
    Verdict,
    route_of,
)
from worker.agents.config import as_file
from worker.agents.limits import reset_in_text
from worker.agents.reading import Failure, call_text, figures, final, items, mapping, tool
from worker.agents.text import LINE_CHARACTERS, clip, error_words, exit_text, last_line, unicode
from worker.model_errors import status_in_text, status_reason
from worker.provision import render

TYPES: Mapping[str, tuple[str, str]] = {"openai": ("openai-compat", "/v1"), "anthropic": ("anthropic", "")}
"""Dialect -> Crush's name of it, and what it wants behind the address."""
SESSION_MARK = b"--- tatin: the session of this run, as JSON ---"
SESSION_BYTES = 4 * 2**20
SESSION_TRIES = 8
"""How often what came of the session is read, in case it is whole: a guest could make us read for ever."""
LINE_BYTES = 64 * 1024
RUN_AND_TELL = f"""
data=$1; shift
crush "$@"
status=$?
printf '\\n%s\\n' '{SESSION_MARK.decode()}'
crush session last --json -D "$data" 2>/dev/null </dev/null
exit $status
"""
"""A ``sh -c`` script: the run, then what it left of its session; the exit status is the run's."""
SWITCHES: Mapping[str, str] = {
    "CRUSH_DISABLE_METRICS": "1",
    "CRUSH_DISABLE_PROVIDER_AUTO_UPDATE": "1",
    "CRUSH_DISABLE_DEFAULT_PROVIDERS": "1",
    "DO_NOT_TRACK": "1",
    **NO_PROXY,
}
"""Set unless the job's own ``env`` has the name."""


class CrushAdapter(AgentAdapter):
    name: ClassVar[str] = "crush"
    needs_model: ClassVar[bool] = True
    tool_packages: ClassVar[Sequence[str]] = ("crush",)
    prints_events: ClassVar[bool] = True

    def plan(self, task: AgentTask) -> AgentPlan:
        route = route_of(task, "Crush")
        kind, path = TYPES[route.api]
        config = render(
            "crush.json.j2",
            model=route.model,
            type=kind,
            base_url=route.base_url + path,
            token_variable=TOKEN_VARIABLE,
            context_tokens=route.context_tokens,
        )
        data = f"{task.home_path}/.local/share/crush/job"
        return AgentPlan(
            argv=[
                *("sh", "-c", RUN_AND_TELL, "crush", data),
                *("run", "-q", "-m", f"tatin/{route.model}", "-D", data),
                *task.spec.args,
            ],
            env={
                **task.unless_set(SWITCHES),
                TOKEN_VARIABLE: route.token,
            },
            files={f"{task.home_path}/.config/crush/crush.json": as_file(task.config, config)},
            stdin_path=task.prompt_path,
            transcript_paths=[data],
        )

    def reader(self) -> AgentReader:
        return CrushReader()


class CrushReader(AgentReader):
    """Reads text up to our mark, and the session behind it."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._said = bytearray()
        """The end of all text."""
        self._session: bytearray | None = None
        """None until the mark has come."""
        self._tries = 0

    def feed(self, data: bytes) -> list[AgentEvent]:
        if self._session is not None:
            return self._more_session(data)
        events: list[AgentEvent] = []
        *lines, rest = data.split(b"\n")
        for number, part in enumerate(lines):
            line = bytes(self._line + part)
            self._line.clear()
            if line == SESSION_MARK:
                self._session = bytearray()
                return events + self._more_session(b"\n".join([*lines[number + 1 :], rest]))
            events += self._text(line + b"\n")
        self._line += rest
        if len(self._line) > LINE_BYTES:
            events += self._text(bytes(self._line))
            self._line.clear()
        return events

    def verdict(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Verdict:
        if self._session is None:
            self._text(bytes(self._line))
        last = self._last_message()
        text = final("\n".join(unicode(part.get("text")) for part in items(last.get("parts")) if part.get("text")))
        final_text = text or final(self._said.decode("utf-8", "replace").strip()) or None
        failure = _failure(exit_status, stderr_tail, last, final_text)
        if failure is None:
            return Verdict(Outcome.SUCCEEDED, final_text=final_text)
        return Verdict(Outcome.FAILED, failure.reason, failure.message, final_text, failure.reset_at)

    def _text(self, line: bytes) -> list[AgentEvent]:
        self._said += line
        del self._said[:-LINE_BYTES]
        text = line.decode("utf-8", "replace").rstrip("\n")
        return [AgentEvent("message", clip(text))] if text.strip() else []

    def _more_session(self, data: bytes) -> list[AgentEvent]:
        """The session comes in pieces; it is told of when it is whole."""
        assert self._session is not None  # the caller looked
        if self._tries >= SESSION_TRIES or len(self._session) + len(data) > SESSION_BYTES:
            return []
        self._session += data
        if not self._session.endswith(b"}\n"):
            return []
        self._tries += 1
        session = _object(bytes(self._session))
        if not session:
            return []
        self._tries = SESSION_TRIES
        return list(_session_events(session))

    def _last_message(self) -> Mapping[str, Any]:
        """The model's last message, as the session has it; empty when there is none."""
        last: Mapping[str, Any] = {}
        for message in items(_object(bytes(self._session or b"")).get("messages"), 100_000):
            last = message if message.get("role") == "assistant" else last
        return last


def _failure(exit_status: int, stderr_tail: bytes, last: Mapping[str, Any], final_text: str | None) -> Failure | None:
    seen = last_line(stderr_tail)
    if exit_status != 0:
        said = stderr_tail.decode("utf-8", "replace")
        message = f"Crush {exit_text(exit_status)}" + (f": {error_words(seen)}" if seen else ".")
        limited, reset_at = reset_in_text(said)
        status = status_in_text(seen)
        if limited or (status and status_reason(status) is Reason.QUOTA):
            return Failure(Reason.QUOTA, message, reset_at)
        return Failure(status_reason(status) if status else Reason.AGENT, message)
    reason = next((unicode(part.get("reason")) for part in items(last.get("parts")) if part.get("reason")), "end_turn")
    if reason == "max_tokens":
        return Failure(Reason.AGENT, "Crush stopped because the model reached its output limit.")
    if reason != "end_turn":
        ended = clean_line(reason, 40)
        return Failure(Reason.AGENT, f"Crush exited with 0 but was not done: its last message ended with '{ended}'.")
    if not final_text:
        what = "gave no final answer"
        return Failure(
            Reason.AGENT,
            f"Crush exited with 0 but {what}" + (f": {clean_line(seen, LINE_CHARACTERS)}" if seen else "."),
        )
    return None


def _session_events(session: Mapping[str, Any]) -> Iterator[AgentEvent]:
    """What the text did not tell: thoughts, calls and results, and one usage a message. The cost is the session's sum;
    its token figures are those of the last step only, so they are not taken."""
    for message in items(session.get("messages"), 10_000):
        if message.get("role") == "assistant":
            yield AgentEvent("usage", "", {})
        for part in items(message.get("parts"), 1000):
            if thought := unicode(part.get("thinking")):
                yield AgentEvent("reasoning", clip(thought))
            elif part.get("type") == "tool_call":
                arguments = _object(unicode(part.get("input")).encode())
                yield AgentEvent(
                    "tool_call", clip(call_text(arguments)), tool(part.get("name"), part.get("tool_call_id"))
                )
            elif part.get("type") == "tool_result":
                data = {**tool(part.get("name"), part.get("tool_call_id")), "failed": part.get("is_error") is True}
                yield AgentEvent("tool_result", clip(unicode(part.get("content"))), data)
    yield AgentEvent("final", "", figures(cost_usd=mapping(session.get("meta")).get("cost") or None))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}
