"""``tool: claude``: Claude Code, headless, with the attempt's model route as its API.

It speaks Anthropic's Messages only; for a provider that does not, the job is refused (nothing here translates).

What it hides, and how it is told here (all seen with 2.1.332):

- an API failure is a result with ``subtype: success`` and ``is_error: true``; the limits put theirs into ``errors``.
- a prompt that begins with the name of a slash command is one, on stdin too, and ends with exit status 0 and no turn
  (2.1.197: with any word after ``/``). So a prompt that begins with ``/`` gets a line of its own in front.
- a tool that is denied does not end the run: exit status 0, and ``permission_denials`` lists it. Rules of the user's
  own may do that on purpose, so it is a failure only when nothing was changed.
- SIGTERM while a tool runs may still print a ``success``: the exit status counts.
- ``output_tokens`` of an assistant line are those at its start; only the result has the sum.
- what a model costs that it does not know is made up (``costBasis: unknown``), so it is not taken.

The project's own ``.claude/`` and ``.mcp.json`` are left out (their hooks and servers would run with nobody there who
allowed them); ``CLAUDE.md`` and ``AGENTS.md`` are read all the same, imported by the user's memory file. A job that
wants its project's settings says ``args: [--setting-sources, "user,project"]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from tatin_jobs.states import Reason
from tatin_jobs.terminal import clean_line
from worker.agents.base import (
    NO_PROXY,
    AgentAdapter,
    AgentEvent,
    AgentPlan,
    AgentReader,
    AgentTask,
    Api,
    route_of,
)
from worker.agents.config import as_file
from worker.agents.instructions import instruction_paths
from worker.agents.limits import believed, reset_in_text
from worker.agents.reading import (
    Failure,
    JsonReader,
    call_text,
    figures,
    final,
    items,
    mapping,
    parts_text,
    status_of,
    tool,
    whole,
)
from worker.agents.text import LINE_CHARACTERS, clip, unicode
from worker.model_errors import status_reason
from worker.provision import render

SLASH_PREFIX = b"Task:\n"
PATIENCE_SECONDS = 600
"""How much longer than the job's ``idle_timeout`` Claude itself waits for an answer to begin."""
MAX_CALLS = 256
"""Calls whose results are awaited."""
LIMIT_SUBTYPES: Mapping[str, str] = {
    "error_max_turns": "its limit of turns",
    "error_max_budget_usd": "its limit of cost",
}
SYNTHETIC = "<synthetic>"
"""The model of messages that Claude Code writes itself, to say what went wrong."""


class ClaudeAdapter(AgentAdapter):
    name: ClassVar[str] = "claude"
    needs_model: ClassVar[bool] = True
    tool_packages: ClassVar[Sequence[str]] = ("claude",)
    prints_events: ClassVar[bool] = True
    apis: ClassVar[Sequence[Api]] = ("anthropic",)

    def plan(self, task: AgentTask) -> AgentPlan:
        route = route_of(task, "Claude Code")
        settings = render(
            "claude-settings.json.j2",
            model=route.model,
            base_url=route.base_url,
            api_timeout_ms=(task.spec.idle_timeout_seconds + PATIENCE_SECONDS) * 1000,
            context_tokens=route.context_tokens,
        )
        memory = render("claude-memory.md.j2", paths=instruction_paths(task))
        onboarding = render("claude.json.j2", repo=task.repo_path)
        token = "CLAUDE_CODE_OAUTH_TOKEN" if route.subscription else "ANTHROPIC_API_KEY"
        folder = f"{task.home_path}/.claude"
        return AgentPlan(
            argv=[
                *("claude", "-p", "--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"),
                *("--model", route.model, "--setting-sources", "user", "--strict-mcp-config"),
                *task.spec.args,
            ],
            env={
                **task.unless_set(NO_PROXY),
                "IS_SANDBOX": "1",  # or root is refused
                token: route.token,
            },
            files={
                f"{folder}/settings.json": as_file(task.config, settings),
                f"{folder}/CLAUDE.md": memory,
                f"{task.home_path}/.claude.json": onboarding,
            },
            stdin_path=task.prompt_path,
            stdin_prefix=SLASH_PREFIX if task.prompt_start.lstrip().startswith(b"/") else b"",
            transcript_paths=[f"{folder}/projects"],
        )

    def reader(self) -> AgentReader:
        return ClaudeReader()


class ClaudeReader(JsonReader):
    """Reads the lines of ``--output-format stream-json``."""

    title = "Claude Code"

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, str] = {}
        """Id of a call under way -> name of its tool."""
        self._message_id = ""
        self._result: Mapping[str, Any] | None = None
        self._resets_at: datetime | None = None
        """When a subscriber's limit ends, as the newest error says it."""

    def _read(self, line: Mapping[str, Any]) -> Iterator[AgentEvent]:
        message = mapping(line.get("message"))
        match line.get("type"):
            case "assistant":
                self._finished = False  # a background task may wake it after a result
                yield from self._assistant(line, message, top=line.get("parent_tool_use_id") is None)
            case "user":
                yield from self._results(message)
            case "system" if line.get("subtype") == "api_retry":
                yield _retry(line)
            case "result":
                self._result, self._finished = _kept(line), True
                self._last_text = final(unicode(line.get("result"))) or self._last_text
                yield AgentEvent("final", clip(self._last_text), _totals(line))

    def _assistant(self, line: Mapping[str, Any], message: Mapping[str, Any], *, top: bool) -> Iterator[AgentEvent]:
        if message.get("model") == SYNTHETIC:
            self._resets_at = _resets_at(line)
            yield AgentEvent("error", clip(parts_text(message.get("content"))))
            return
        message_id = clip(unicode(message.get("id")), 100)
        if message_id and message_id != self._message_id:  # a message comes in several lines
            self._message_id = message_id
            usage = mapping(message.get("usage"))
            yield AgentEvent(
                "usage",
                "",
                figures(
                    input_tokens=usage.get("input_tokens"),
                    cache_read_tokens=usage.get("cache_read_input_tokens"),
                    cache_write_tokens=usage.get("cache_creation_input_tokens"),
                ),
            )
        for block in items(message.get("content")):
            match block.get("type"):
                case "text" if text := unicode(block.get("text")):
                    if top:
                        self._last_text = final(text)
                    yield AgentEvent("message", clip(text))
                case "thinking" if text := unicode(block.get("thinking")):
                    yield AgentEvent("reasoning", clip(text))
                case "tool_use":
                    data = tool(block.get("name"), block.get("id"))
                    if len(self._calls) < MAX_CALLS:
                        self._calls[data["id"]] = data["name"]
                    yield AgentEvent("tool_call", clip(call_text(mapping(block.get("input")))), data)

    def _results(self, message: Mapping[str, Any]) -> Iterator[AgentEvent]:
        for block in items(message.get("content")):
            if block.get("type") == "tool_result":
                call_id = clip(unicode(block.get("tool_use_id")), 100)
                data = {**tool(self._calls.pop(call_id, ""), call_id), "failed": block.get("is_error") is True}
                yield AgentEvent("tool_result", clip(parts_text(block.get("content"))), data)

    def _failure(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Failure | None:
        result = self._result
        if result is None:
            return self._ended(exit_status, stderr_tail, "did nothing")
        if result["is_error"] or result["errors"] or result["subtype"] != "success":
            return _failed(result, self._resets_at)
        if exit_status != 0:
            return self._ended(exit_status, stderr_tail, "")
        if not result["turns"]:
            said = clean_line(result["text"], LINE_CHARACTERS)
            return Failure(Reason.AGENT, f"Claude Code exited with 0 but asked no model: {said or 'it said nothing'}")
        if result["denied"] and not changed:
            return Failure(Reason.AGENT, f"Claude Code was denied what it needed: {result['denied']}")
        if not result["text"].strip():
            return Failure(Reason.AGENT, "Claude Code exited with 0 but gave no final answer.")
        return None

    def _remark(self) -> str:
        denied = self._result["denied"] if self._result else ""
        return f"Claude Code was denied: {denied}" if denied else ""


def _kept(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the verdict needs of a result line."""
    errors = line.get("errors")
    denied = [clip(unicode(item.get("tool_name")), 60) for item in items(line.get("permission_denials"), 10)]
    return {
        "subtype": clip(unicode(line.get("subtype")), 60),
        "is_error": line.get("is_error") is not False,
        "errors": "; ".join(clip(unicode(text), 200) for text in errors[:3]) if isinstance(errors, list) else "",
        "text": final(unicode(line.get("result"))),
        "status": status_of(line.get("api_error_status")),
        "api_error": clip(unicode(line.get("api_error")), 60),
        "why": clip(unicode(line.get("terminal_reason")), 60),
        "turns": line.get("num_turns"),
        "denied": clean_line(", ".join(dict.fromkeys(denied)), LINE_CHARACTERS),
    }


def _resets_at(line: Mapping[str, Any]) -> datetime | None:
    info = mapping(mapping(line.get("api_error_params")).get("rate_limit_info"))
    seconds = whole(info.get("resetsAt"))
    return believed(seconds, datetime.now(UTC)) if seconds else None


def _failed(result: Mapping[str, Any], resets_at: datetime | None) -> Failure:
    said = clean_line(result["text"] or result["errors"], LINE_CHARACTERS) or clean_line(result["subtype"])
    message = f"Claude Code stopped with: {said}"
    if limit := LIMIT_SUBTYPES.get(result["subtype"]):
        return Failure(Reason.BUDGET, f"Claude Code reached {limit}: {said}")
    limited, reset_at = reset_in_text(result["text"])
    if limited:
        return Failure(Reason.QUOTA, message, resets_at or reset_at)
    if result["why"] == "prompt_too_long" or result["api_error"] == "max_output_tokens":
        return Failure(Reason.AGENT, message)
    if result["status"] is not None:
        return Failure(status_reason(result["status"]), message)
    if "/login" in result["text"]:
        return Failure(Reason.AUTH, message)
    ours = result["why"] != "api_error" and not result["text"].startswith("API Error")
    return Failure(Reason.AGENT if ours else Reason.PROVIDER, message)


def _totals(line: Mapping[str, Any]) -> dict[str, float]:
    usage = mapping(line.get("usage"))
    by_model = mapping(line.get("modelUsage"))
    made_up = any(mapping(entry).get("costBasis") == "unknown" for entry in by_model.values()) or not by_model
    return figures(
        turns=line.get("num_turns"),
        output_tokens=usage.get("output_tokens"),
        cost_usd=None if made_up else line.get("total_cost_usd"),
    )


def _retry(line: Mapping[str, Any]) -> AgentEvent:
    status, error = status_of(line.get("error_status")), clip(unicode(line.get("error")), 60)
    why = " ".join(filter(None, (str(status or ""), error))) or "no answer"
    attempt, most = line.get("attempt"), line.get("max_retries")
    counted = f" ({attempt} of {most})" if isinstance(attempt, int) and isinstance(most, int) else ""
    return AgentEvent(
        "retry", clip(f"the model is asked again{counted} after {why}"), {"status": status} if status else {}
    )
