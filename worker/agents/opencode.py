"""``tool: opencode``: OpenCode, headless, with the attempt's model route as its only provider.

What it hides, and how it is told here (all seen with 1.18.33):

- exit status 0 proves nothing: after a permission that it refused itself the last step ends with ``tool-calls`` and no
  text. Well done is exit 0, a last step that ended with ``stop``, and text in that step.
- a broken or empty answer of the server makes it loop for ever with ``reason: unknown``; only the time limit ends that.
- retries are silent (5, about 65 s), so an error event is its last word on a call.

The project's own OpenCode configuration (``opencode.json``, ``.opencode/``) is left out: OpenCode rewrites that folder
and puts packages into it, which would be in every patch. ``AGENTS.md`` and ``CLAUDE.md`` are read all the same. A job
that wants its project's configuration sets ``env: {OPENCODE_DISABLE_PROJECT_CONFIG: "0"}``. (Plugins in
``.opencode/plugin`` run in either case: 1.18.33 has a second loader for them that knows no switch.)
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
from worker.agents.instructions import instruction_paths
from worker.agents.reading import Failure, JsonReader, call_text, figures, final, mapping, status_of, tool
from worker.agents.text import LINE_CHARACTERS, clip, error_words, unicode
from worker.model_errors import status_reason
from worker.provision import render

TRANSCRIPT_FILES = ("opencode.db", "opencode.db-wal", "opencode.db-shm")
"""OpenCode's session store: one SQLite database, which needs its log beside it when OpenCode was killed."""
PACKAGES: Mapping[str, str] = {"openai": "@ai-sdk/openai-compatible", "anthropic": "@ai-sdk/anthropic"}
"""Dialect -> the client inside the OpenCode binary that speaks it; no network is needed for either."""
PATIENCE_SECONDS = 600
"""How much longer than the job's ``idle_timeout`` OpenCode itself waits for its model."""
SWITCHES: Mapping[str, str] = {
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    **NO_PROXY,
}
"""Set unless the job's own ``env`` has the name."""
NO_INSTALL: Mapping[str, bytes] = {
    "package-lock.json": b'{"lockfileVersion": 3, "packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}\n',
    "node_modules/.keep": b"",
}
"""In its configuration folder: OpenCode takes the types that plugins are written with for installed. Otherwise it asks
a package registry for them at each start, and every job would have a blocked place to tell of (tried with 1.18.33)."""


class OpenCodeAdapter(AgentAdapter):
    name: ClassVar[str] = "opencode"
    needs_model: ClassVar[bool] = True
    tool_packages: ClassVar[Sequence[str]] = ("opencode",)
    prints_events: ClassVar[bool] = True

    def plan(self, task: AgentTask) -> AgentPlan:
        route = route_of(task, "OpenCode")
        config = render(
            "opencode.json.j2",
            model=route.model,
            package=PACKAGES[route.api],
            base_url=route.base_url,
            token_variable=TOKEN_VARIABLE,
            instructions=instruction_paths(task),
            # One knob for silence: the job's idle_timeout. OpenCode must not give up a slow model before it, for it
            # would ask again, which is a sign of life, six times over.
            context_tokens=route.context_tokens,
            wait_ms=(task.spec.idle_timeout_seconds + PATIENCE_SECONDS) * 1000,
        )
        model = f"tatin/{route.model}"
        return AgentPlan(
            argv=[
                *("opencode", "run", "--auto", "--format", "json", "-m", model, "--title", task.job_id),
                *task.spec.args,
            ],
            env={
                **task.unless_set(SWITCHES),
                # In the environment it goes before every file of the repository and of the home.
                "OPENCODE_CONFIG_CONTENT": config.decode(),
                TOKEN_VARIABLE: route.token,
            },
            files={
                f"{task.home_path}/.config/opencode/opencode.json": as_file(task.config, config),
                **{f"{task.home_path}/.config/opencode/{name}": data for name, data in NO_INSTALL.items()},
            },
            stdin_path=task.prompt_path,
            transcript_paths=[f"{task.home_path}/.local/share/opencode/{name}" for name in TRANSCRIPT_FILES],
        )

    def reader(self) -> AgentReader:
        return OpenCodeReader()


class OpenCodeReader(JsonReader):
    """Reads the lines of ``--format json``."""

    title = "OpenCode"

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._reason: str | None = None
        """Why the last step ended; None while one runs."""
        self._step_text = ""
        self._error: Failure | None = None
        """The newest error, unless a step ended after it."""

    @property
    def finished(self) -> bool:
        """There is no closing event: a step that ended with ``stop`` is the last, unless another one begins."""
        return self._reason == "stop"

    def _failure(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Failure | None:
        if self._error is not None:
            return self._error
        if exit_status != 0 or not self._steps:
            return self._ended(exit_status, stderr_tail, "did nothing")
        if self._reason != "stop":
            return Failure(Reason.AGENT, _unfinished(self._reason, stderr_tail.decode("utf-8", "replace")))
        if not self._step_text.strip():
            return Failure(Reason.AGENT, "OpenCode exited with 0 but gave no final answer.")
        return None

    def _read(self, line: Mapping[str, Any]) -> Iterator[AgentEvent]:
        part = mapping(line.get("part"))
        match line.get("type"):
            case "step_start":
                self._reason, self._step_text = None, ""
            case "text" if text := unicode(part.get("text")):
                self._step_text = self._last_text = final(text)
                yield AgentEvent("message", clip(text))
            case "reasoning" if text := unicode(part.get("text")):
                yield AgentEvent("reasoning", clip(text))
            case "tool_use":
                yield from _tool_events(part)
            case "step_finish":
                self._steps += 1
                self._reason = clip(unicode(part.get("reason")), 40)
                self._error = None
                yield AgentEvent("usage", "", _usage(part))
            case "error":
                self._error, status = _read_error(mapping(line.get("error")))
                yield AgentEvent("error", self._error.message, {"status": status} if status is not None else {})


def _tool_events(part: Mapping[str, Any]) -> Iterator[AgentEvent]:
    """OpenCode tells of a tool when it has ended: its call and its result come together."""
    state = mapping(part.get("state"))
    data = tool(part.get("tool"), part.get("callID"))
    failed = state.get("status") == "error"
    yield AgentEvent("tool_call", clip(call_text(mapping(state.get("input")))), data)
    result = unicode(state.get("error") if failed else state.get("output"))
    yield AgentEvent("tool_result", clip(result), {**data, "failed": failed})


def _usage(part: Mapping[str, Any]) -> dict[str, float]:
    tokens = mapping(part.get("tokens"))
    cache = mapping(tokens.get("cache"))
    counted = figures(
        input_tokens=tokens.get("input"),
        output_tokens=tokens.get("output"),
        cache_read_tokens=cache.get("read"),
        cache_write_tokens=cache.get("write"),
    )
    # It writes 0 for what it was not told: unknown, which is not none and, for the cost, not free.
    told = any(counted.get(name) for name in ("input_tokens", "output_tokens", "cache_read_tokens"))
    return {**(counted if told else {}), **figures(cost_usd=part.get("cost") or None)}


def _read_error(error: Mapping[str, Any]) -> tuple[Failure, int | None]:
    data = mapping(error.get("data"))
    name = clean_line(unicode(error.get("name")), 60) or "error"
    message = clean_line(error_words(clip(unicode(data.get("message")), 1000)), LINE_CHARACTERS)
    status = status_of(data.get("statusCode"))
    said = f"{name}{f' {status}' if status else ''}{f': {message}' if message else ''}"
    return Failure(_reason(name, status, message), f"OpenCode stopped with {said}"), status


def _reason(name: str, status: int | None, message: str) -> Reason:
    if name == "ProviderAuthError":
        return Reason.AUTH
    if name == "APIError":
        return status_reason(status) if status else Reason.PROVIDER
    if message.startswith("JSON parsing failed"):  # a stream that is none; the error has no name of its own
        return Reason.PROVIDER
    return Reason.AGENT  # ContextOverflowError, MessageOutputLengthError, UnknownError: its own affair


def _unfinished(reason: str | None, stderr: str) -> str:
    if "auto-rejecting" in stderr:
        line = next(line for line in stderr.splitlines() if "auto-rejecting" in line)
        return f"OpenCode stopped because it refused itself a permission: {clean_line(line, LINE_CHARACTERS)}"
    if reason == "length":
        return "OpenCode stopped because the model reached its output limit."
    ended = f"its last step ended with '{clean_line(reason)}'" if reason else "its last step never ended"
    return f"OpenCode exited with 0 but was not done: {ended}."
