"""``tool: pi``: Pi (``@earendil-works/pi-coding-agent``), headless, with the attempt's model route as its provider.

What it hides, and how it is told here (all seen with 1.5.2; versions before 1.0 are not supported: they take a cut
stream for a whole answer):

- in JSON mode it exits with 0 whatever the model did: the last assistant message's ``stopReason`` tells.
- retries come after a message that ended with ``error``, so only the last one counts.
- its closing event is ``agent_settled``.
- it tells each message in deltas too, which are passed over.

The project's own ``.pi/`` (extensions, skills, templates) is left out; ``AGENTS.md`` and ``CLAUDE.md`` are read. A job
that wants it says ``args: [--approve]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from tatin_jobs.states import Reason
from tatin_jobs.terminal import clean_line
from worker.agents.base import (
    NO_PROXY,
    TOKEN_VARIABLE,
    AgentAdapter,
    AgentEvent,
    AgentPlan,
    AgentReader,
    AgentTask,
    route_of,
)
from worker.agents.config import as_file
from worker.agents.limits import reset_in_text
from worker.agents.reading import Failure, JsonReader, call_text, figures, final, items, mapping, parts_text, tool
from worker.agents.text import LINE_CHARACTERS, clip, error_words, unicode
from worker.model_errors import status_in_text, status_reason
from worker.provision import render

PATIENCE_SECONDS = 600
"""How much longer than the job's ``idle_timeout`` Pi itself waits for its model."""
APIS: Mapping[str, tuple[str, str]] = {"openai": ("openai-completions", "/v1"), "anthropic": ("anthropic-messages", "")}
"""Dialect -> Pi's name of it, and what it wants behind the address."""
SWITCHES: Mapping[str, str] = {
    "PI_OFFLINE": "1",
    "PI_TELEMETRY": "0",
    "PI_SKIP_VERSION_CHECK": "1",
    **NO_PROXY,
}
"""Set unless the job's own ``env`` has the name."""


class PiAdapter(AgentAdapter):
    name: ClassVar[str] = "pi"
    needs_model: ClassVar[bool] = True
    tool_packages: ClassVar[Sequence[str]] = ("pi",)
    prints_events: ClassVar[bool] = True

    def plan(self, task: AgentTask) -> AgentPlan:
        route = route_of(task, "Pi")
        api, path = APIS[route.api]
        models = render(
            "pi-models.json.j2",
            model=route.model,
            api=api,
            base_url=route.base_url + path,
            token_variable=TOKEN_VARIABLE,
            reasoning_effort=route.provider == "openai",
            context_tokens=route.context_tokens,
        )
        settings = render(
            "pi-settings.json.j2",
            model=route.model,
            wait_ms=(task.spec.idle_timeout_seconds + PATIENCE_SECONDS) * 1000,
        )
        folder = f"{task.home_path}/.pi/agent"
        return AgentPlan(
            argv=[
                *("pi", "-p", "--mode", "json", "--provider", "tatin", "--model", route.model),
                *("--no-extensions", "--no-skills", "--no-prompt-templates"),
                *task.spec.args,
            ],
            env={
                **task.unless_set(SWITCHES),
                TOKEN_VARIABLE: route.token,
            },
            files={f"{folder}/models.json": models, f"{folder}/settings.json": as_file(task.config, settings)},
            stdin_path=task.prompt_path,
            transcript_paths=[f"{folder}/sessions"],
        )

    def reader(self) -> AgentReader:
        return PiReader()


class PiReader(JsonReader):
    """Reads the lines of ``--mode json``."""

    title = "Pi"

    def __init__(self) -> None:
        super().__init__()
        self._turns = 0
        self._stop: str | None = None
        """Why the newest message of the model ended."""
        self._error = ""
        self._text = ""
        """Of the newest message."""

    def _read(self, line: Mapping[str, Any]) -> Iterator[AgentEvent]:
        match line.get("type"):
            case "message_end":
                yield from self._message(mapping(line.get("message")))
            case "turn_start" | "agent_start":
                self._finished = False
            case "turn_end":
                self._turns += 1
            case "tool_execution_start":
                data = tool(line.get("toolName"), line.get("toolCallId"))
                yield AgentEvent("tool_call", clip(call_text(mapping(line.get("args")))), data)
            case "tool_execution_end":
                data = tool(line.get("toolName"), line.get("toolCallId"))
                text = parts_text(mapping(line.get("result")).get("content"))
                yield AgentEvent("tool_result", clip(text), {**data, "failed": line.get("isError") is True})
            case "auto_retry_start":
                yield _retry(line)
            case "agent_settled":
                self._finished = True
                yield AgentEvent("final", clip(self._last_text), {})

    def _message(self, message: Mapping[str, Any]) -> Iterator[AgentEvent]:
        if message.get("role") != "assistant":
            return
        self._stop = clip(unicode(message.get("stopReason")), 40)
        self._error = clip(unicode(message.get("errorMessage")), 1000)
        self._text = ""
        for part in items(message.get("content")):
            match part.get("type"):
                case "text" if text := unicode(part.get("text")):
                    self._text = self._last_text = final(text)
                    yield AgentEvent("message", clip(text))
                case "thinking" if text := unicode(part.get("thinking")):
                    yield AgentEvent("reasoning", clip(text))
        if self._stop == "error":
            status = status_in_text(self._error)
            yield AgentEvent("error", error_words(self._error), {"status": status} if status else {})
        else:
            yield AgentEvent("usage", "", _usage(mapping(message.get("usage"))))

    def _failure(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Failure | None:
        if self._stop == "error":
            return _failed(self._error)
        if exit_status != 0 or self._stop is None:
            return self._ended(exit_status, stderr_tail, "did nothing")
        if self._stop == "length":
            return Failure(Reason.AGENT, "Pi stopped because the model reached its output limit.")
        if self._stop != "stop":
            return Failure(
                Reason.AGENT,
                f"Pi exited with 0 but was not done: its last message ended with '{clean_line(self._stop)}'.",
            )
        if not self._text.strip():
            return Failure(Reason.AGENT, "Pi exited with 0 but gave no final answer.")
        return None


def _failed(error: str) -> Failure:
    message = f"Pi stopped with: {clean_line(error_words(error), LINE_CHARACTERS) or 'an error'}"
    status = status_in_text(error)
    limited, reset_at = reset_in_text(error)
    if limited or (status and status_reason(status) is Reason.QUOTA):
        return Failure(Reason.QUOTA, message, reset_at)
    if status:
        return Failure(status_reason(status), message)
    return Failure(Reason.PROVIDER, message)  # all that it calls an error of the model without a status


def _usage(usage: Mapping[str, Any]) -> dict[str, float]:
    counted = figures(
        input_tokens=usage.get("input"),
        output_tokens=usage.get("output"),
        cache_read_tokens=usage.get("cacheRead"),
        cache_write_tokens=usage.get("cacheWrite"),
    )
    # It writes 0 for what it was not told, and for the cost of a model without a price.
    cost = mapping(usage.get("cost")).get("total")
    return {**(counted if any(counted.values()) else {}), **figures(cost_usd=cost or None)}


def _retry(line: Mapping[str, Any]) -> AgentEvent:
    error = clean_line(error_words(clip(unicode(line.get("errorMessage")), 1000)), LINE_CHARACTERS)
    attempt, most = line.get("attempt"), line.get("maxAttempts")
    counted = f" ({attempt} of {most})" if isinstance(attempt, int) and isinstance(most, int) else ""
    status = status_in_text(error)
    return AgentEvent(
        "retry", f"the model is asked again{counted} after {error or 'an error'}", {"status": status} if status else {}
    )
