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

from tatin_jobs.models import JobSpec
from tatin_jobs.states import Outcome, Reason

EventKind = Literal["message", "reasoning", "tool_call", "tool_result", "usage", "error", "retry", "final"]

NO_PROXY: Mapping[str, str] = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
"""For the agent's environment, unless the job sets its own: clients honour a proxy even for loopback, and the model
route is not behind one."""


@dataclass(frozen=True)
class AgentEvent:
    """One normalised event. ``text`` is for people and at most 4 KiB; ``data`` holds the figures of ``usage``
    (``input_tokens``, ``output_tokens``, ``cache_read_tokens``, ``cache_write_tokens``, ``cost_usd``), the ``name``
    and ``id`` of a tool call, the ``status`` of an error."""

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
    api: Literal["openai", "anthropic"] = "openai"
    """``base_url`` has no path and no trailing slash; an OpenAI client adds ``/v1/...``."""


@dataclass(frozen=True)
class AgentTask:
    """What an adapter plans from. ``prompt_path`` is a file in the guest with the prompt, byte for byte."""

    job_id: str
    spec: JobSpec
    prompt_path: str
    repo_path: str
    home_path: str
    route: ModelRoute | None


@dataclass(frozen=True)
class AgentPlan:
    """What to put into the guest and run. ``files`` are absolute guest paths under the guest's home."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin_path: str | None = None
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

    @abstractmethod
    def plan(self, task: AgentTask) -> AgentPlan: ...

    @abstractmethod
    def reader(self) -> AgentReader: ...
