"""``result.json``: the whole story of one attempt, and where attempts lie in a home.

Written by the worker alone (aside, fsync, rename: there is no half result), read by the commands. Nothing in it is
taken from the guest on trust: sizes and digests are computed on the host, texts are the guest's words and are cleaned
before they are shown.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tatin_jobs.home import Home
from tatin_jobs.models import AttemptSummary, Frozen, Model, NetworkMode, VerifyIn
from tatin_jobs.states import JobState, Outcome, Reason, Step

RESULT_VERSION = 1
RESULT_FILE = "result.json"
LOG_FILE = "agent.log"
EVENTS_FILE = "events.jsonl"
PATCH_FILE = "changes.patch"
_ATTEMPT = re.compile(r"attempt-([1-9][0-9]{0,4})")


class StepTime(Frozen):
    """How long a step took; a step that was cut short is listed with the time it had."""

    step: Step
    seconds: float


class SandboxFacts(Frozen):
    """Which sandbox it ran in and what that provider can promise."""

    kind: str
    name: str
    separate_kernel: bool
    egress_control: bool
    egress_warning: str = ""
    """A clause for people: what the network rules of the job did not hold for; empty where they held."""
    sudo: bool
    cpus: int
    memory_mib: int
    image: str | None = None
    """The image it was made from, as name@digest."""
    cpu_seconds: float | None = None
    peak_memory_mib: int | None = None
    oom_kills: int | None = None


class AgentFacts(Frozen):
    """How the agent ran. ``exit_status`` None: it never ended of itself."""

    tool: str
    version: str | None = None
    model: Model | None = None
    exit_status: int | None = None
    timed_out: bool = False
    seconds: float = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    log_cut: bool = False
    """agent.log is shorter than what was printed."""
    final_text: str | None = None


class CommandFacts(Frozen):
    """A ``setup`` or ``verify`` command. ``output`` is a file beside the result."""

    run: str
    exit_status: int | None = None
    timed_out: bool = False
    seconds: float = 0
    output: str | None = None


class VerifyFacts(CommandFacts):
    """The ``verify`` command, and what it found. ``rewards``: what its reward file holds, of which ``reward`` counts;
    None and empty without one. Without an exit status and a time it was not run, and ``problem`` says why."""

    where: VerifyIn = "same"
    passed: bool | None = None
    reward: float | None = None
    rewards: dict[str, float] = Field(default_factory=dict)
    problem: str = ""


class ToolUsage(Frozen):
    """What the tool itself says that it used: words of the guest. None: it said nothing of it."""

    turns: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost_usd: float | None = None
    """Some tools make up a price for a model that they do not know."""


class Usage(Frozen):
    """What the agent used. None: unknown, which is never 0.

    Counted by the model route where the agent used one, and so the same figures for every tool; what the tool says is
    kept beside, in ``tool``, and stands in only where nothing was counted (``counted_by``). ``input_tokens`` are
    without those that were read from or written to a cache.
    """

    turns: int | None = None
    """Calls that the model answered."""
    tool_calls: int | None = None
    """As the tool says: only it knows."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost_usd: float | None = None
    """Tokens times the worker's prices; None where the model has none there."""
    model_calls: int | None = None
    """Calls that went through the model route, answered or not."""
    model_seconds: float | None = None
    """How long there was at least one call under way."""
    model_errors: dict[str, int] = Field(default_factory=dict)
    """Status (or ``unreachable``) -> how often the model's provider answered so."""
    untold_calls: int = 0
    """Answered calls that told of no tokens: the figures above are without them."""
    counted_by: Literal["route", "tool"] | None = None
    """Whose figures the tokens are."""
    tool: ToolUsage = ToolUsage()


class RouteFacts(Frozen):
    """What the gateway saw of a model route by the end of an attempt. ``limit``: the provider's words when it told of a
    limit. ``worked`` is None when nothing can be said of the route."""

    limit: str | None = None
    worked: bool | None = None
    message: str = ""


class ReachedFacts(Frozen):
    """One host and port that the guest spoke to. Bytes are the payload's; ``failed`` of the connections had no answer.
    ``model``: it is the job's model server, reached by the model route and not by the egress gateway."""

    where: str
    connections: int
    failed: int = 0
    sent_bytes: int
    received_bytes: int
    model: bool = False


class DeniedFacts(Frozen):
    """What the guest asked for and did not get: where, why (``not allowed``, ``no network``, ``private address``,
    ``bad request``, ``limit``), and how often."""

    where: str
    why: str
    times: int


class NetworkFacts(Frozen):
    """What the guest could reach and did. ``lists``: what each ready-made list of the job stood for in this sandbox.
    That nothing else was reached holds where the sandbox has ``egress_control``."""

    mode: NetworkMode
    allow: tuple[str, ...] = ()
    lists: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reached: tuple[ReachedFacts, ...] = ()
    denied: tuple[DeniedFacts, ...] = ()


class PatchFacts(Frozen):
    """``changes.patch``: the difference between the cloned commit and what the agent left."""

    size_bytes: int
    files_changed: int
    lines_added: int
    lines_removed: int
    commits: int = 0
    """The agent's own commits, in ``commits.bundle``."""


class ArtifactFacts(Frozen):
    """One kept file under ``artifacts/``; size and digest computed on the host."""

    name: str
    size_bytes: int
    sha256: str


class Result(Frozen):
    """One attempt. ``accepted`` says whether this attempt decided its job: a superseded, handed-back or retried one
    did not, and is kept all the same."""

    schema_version: Literal[1] = 1
    job: str
    batch: str
    name: str
    attempt: int
    token: str | None = None
    """Of its lease: while the store still has that lease, this result can be offered to it again."""
    state: JobState
    """finished, or where the job went (queued, held) when this attempt did not end it."""
    accepted: bool
    outcome: Outcome
    reason: Reason | None = None
    message: str = ""
    reset_at: datetime | None = None
    """With reason quota: when the limit ends, in UTC, if anybody said so."""
    route: RouteFacts | None = None
    wait_seconds: float = 0
    """The host was busy: how long the job was to wait."""
    worker: str
    tatin_version: str
    repo: str
    commit: str | None = None
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    secrets: tuple[str, ...] = ()
    """Names of the secrets that were in the guest's environment."""
    steps: tuple[StepTime, ...] = ()
    sandbox: SandboxFacts | None = None
    agent: AgentFacts
    setup: CommandFacts | None = None
    verify: VerifyFacts | None = None
    usage: Usage = Usage()
    limits_hit: tuple[str, ...] = ()
    """memory, processes, cpu, disk, files, log, events, artifacts: limits that the attempt came up against."""
    network: NetworkFacts | None = None
    patch: PatchFacts | None = None
    patch_missing: str | None = None
    """Why there is no patch, when there is none though the agent ran."""
    artifacts: tuple[ArtifactFacts, ...] = ()
    refused: tuple[str, ...] = ()
    """Files of the guest that were not taken, each with why."""
    incomplete: str | None = None
    """What of the collecting was cut off, and by what; None when all came."""

    def summary(self, folder: Path) -> AttemptSummary:
        """The few figures that go into the job's record."""
        return AttemptSummary(
            exit_status=self.agent.exit_status,
            verify_exit_status=self.verify.exit_status if self.verify else None,
            verify_in=self.verify.where if self.verify else None,
            verified=self.verify.passed if self.verify else None,
            reward=self.verify.reward if self.verify else None,
            patch_bytes=self.patch.size_bytes if self.patch else None,
            files_changed=self.patch.files_changed if self.patch else None,
            lines_added=self.patch.lines_added if self.patch else None,
            lines_removed=self.patch.lines_removed if self.patch else None,
            artifacts=len(self.artifacts),
            agent_seconds=self.agent.seconds,
            wall_seconds=(self.finished_at - self.started_at).total_seconds(),
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
            cache_read_tokens=self.usage.cache_read_tokens,
            cache_write_tokens=self.usage.cache_write_tokens,
            model_calls=self.usage.model_calls,
            model_seconds=self.usage.model_seconds,
            turns=self.usage.turns,
            cost_usd=self.usage.cost_usd,
            blocked=len(self.network.denied) if self.network else None,
            final_text=self.agent.final_text[:500] if self.agent.final_text else None,
            folder=str(folder),
        )


def write_result(folder: Path, result: Result) -> None:
    """Put ``result.json`` into ``folder``, whole or not at all, and on the disk before this returns."""
    write_durably(folder / RESULT_FILE, result.model_dump_json(indent=2).encode() + b"\n")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; on the disk when this returns."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_folder(folder: Path, prefix: str) -> None:
    """Remove it under a name that begins with ``prefix``: what a killed removal leaves must not be taken for the whole.
    Callers remove first what has such a name already.

    Raises:
        OSError: something in it cannot be removed.
    """
    draft = folder if folder.name.startswith(prefix) else folder.rename(folder.with_name(prefix + folder.name))
    shutil.rmtree(draft)


def read_result(folder: Path) -> Result | None:
    """The result in ``folder``; None when there is none or it is of a version that this Tatin does not know."""
    try:
        return Result.model_validate(json.loads((folder / RESULT_FILE).read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def attempt_folders(home: Home, job: str) -> list[tuple[int, Path]]:
    """(attempt, folder) of a job on this host, oldest first."""
    try:
        names = os.listdir(home.jobs / job)
    except OSError:
        return []
    found = [(int(match[1]), home.jobs / job / name) for name in names if (match := _ATTEMPT.fullmatch(name))]
    return sorted(found)
