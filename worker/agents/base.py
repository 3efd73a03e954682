"""The agent seam: what an adapter knows about its tool, and nothing about sandboxes.

An adapter turns a task into a plan (command line, environment, files), and reads the tool's own stream into events
while it runs. It knows how its tool hides failure: exit status 0 with no answer is not success.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec
from tatin_jobs.states import Outcome, Reason

Api = Literal["openai", "anthropic"]
"""The dialect of a model server."""
EventKind = Literal["message", "reasoning", "tool_call", "tool_result", "usage", "error", "retry", "final"]

NO_PROXY: Mapping[str, str] = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
"""For the agent's environment, unless the job sets its own: clients honour a proxy even for loopback, and the model
route is not behind one."""

TOKEN_VARIABLE = "TATIN_MODEL_TOKEN"
"""Holds the attempt's token, for tools whose configuration names a variable as their key."""


@dataclass(frozen=True)
class AgentEvent:
    """One normalised event. ``text`` is for people and at most 4 KiB; ``data`` holds the figures of a turn's ``usage``
    (``input_tokens``, ``output_tokens``, ``cache_read_tokens``, ``cache_write_tokens``, ``cost_usd``), the ``name``
    and ``id`` of a tool call and its result (``failed``), the ``status`` of an error or retry. ``final`` is the tool's
    last word; its ``data`` has those figures, for the whole run, that no ``usage`` could tell."""

    kind: EventKind
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRoute:
    """How the guest reaches its model: plain HTTP to ``base_url`` (the guest's loopback) with ``token``, which is worth
    nothing elsewhere and dies with the attempt. ``api`` is the dialect that the address speaks."""

    base_url: str
    token: str
    model: str
    provider: str
    api: Api = "openai"
    """``base_url`` has no path and no trailing slash; an OpenAI client adds ``/v1/...``."""
    subscription: bool = False
    """The worker's key is the token of a Claude subscription: a tool must log in as a subscriber does, which for Claude
    Code is ``token`` as CLAUDE_CODE_OAUTH_TOKEN (and no ANTHROPIC_API_KEY); only then it asks as the server expects."""
    context_tokens: int | None = None
    """How much the model reads, as far as the worker's settings say: agents then shorten their history in time."""


@dataclass(frozen=True)
class AgentTask:
    """What an adapter plans from. ``prompt_path`` is a file in the guest with the prompt, byte for byte."""

    job_id: str
    spec: JobSpec
    prompt_path: str
    repo_path: str
    home_path: str
    route: ModelRoute | None
    prompt_start: bytes = b""
    """The first bytes of the prompt, up to 64."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The user's own configuration of the tool, to be merged with the adapter's."""

    def unless_set(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Those that the job's own ``env`` does not name."""
        return {name: value for name, value in variables.items() if name not in self.spec.env}


@dataclass(frozen=True)
class AgentPlan:
    """What to put into the guest and run. ``files`` are absolute guest paths under the guest's home."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin_path: str | None = None
    stdin_prefix: bytes = b""
    """Put before the prompt in its file."""
    transcript_paths: Sequence[str] = ()
    """Files or folders of the guest that hold the tool's own session; collected as ``transcript.*``."""


@dataclass(frozen=True)
class Verdict:
    """How an agent that ended of itself ended; ``message`` is one sentence for people."""

    outcome: Outcome
    reason: Reason | None = None
    message: str = ""
    final_text: str | None = None
    reset_at: datetime | None = None
    """With reason quota: when the limit ends, in UTC, if the tool said so."""


class AgentReader(ABC):
    """Reads one run's output as it comes. Never raises on what it reads: it is hostile."""

    @property
    def finished(self) -> bool:
        """The tool has said its last word, as far as is known. A process that stays after that is ended, and what it
        said counts as if it had exited with 0."""
        return False

    @abstractmethod
    def feed(self, data: bytes) -> list[AgentEvent]:
        """Events that this piece of stdout completes. Lines over 1 MiB are skipped, memory is bounded."""

    @abstractmethod
    def verdict(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Verdict:
        """Called once, after the end. ``changed``: the repository differs from the clone or has new commits."""


class AgentAdapter(ABC):
    """One agent tool."""

    name: ClassVar[str]
    needs_model: ClassVar[bool]
    tool_packages: ClassVar[Sequence[str]]
    """Tools under TATIN_HOME/tools that a guest without an image needs to see; empty for ``command``."""
    prints_events: ClassVar[bool] = False
    """Its stdout is a stream for programs: people see the events that its reader makes of it, and not the stream."""
    apis: ClassVar[Sequence[Api]] = ("openai", "anthropic")
    """The dialects that it speaks, the best first."""

    @abstractmethod
    def plan(self, task: AgentTask) -> AgentPlan: ...

    @abstractmethod
    def reader(self) -> AgentReader: ...


def route_of(task: AgentTask, title: str) -> ModelRoute:
    """The task's model route.

    Raises:
        AttemptError: reason refused; the job names no model.
    """
    if task.route is None:
        raise AttemptError(
            f"{title} needs a model, and the job names none.",
            try_="write `model: {name: ..., provider: ollama}` in the job file.",
            reason=Reason.REFUSED,
        )
    return task.route
