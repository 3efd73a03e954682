"""Frozen records that pass between the parts: the resolved job, its record in the store, leases, workers, events.

Everything here goes to and from JSON by pydantic and nothing else (never pickle): what comes out of the store is
checked again on the way in. Times are aware and UTC; memory and disk are MiB unless a name says otherwise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tatin_jobs.states import HeldFor, JobState, Outcome, Reason, Step

RECORD_VERSION = 1
"""Written into every record and need class. A worker never looks into a class of a version that it does not know, so
a newer record stays queued until a newer worker comes (F12)."""

DEFAULT_IMAGE = "tatin"
DEFAULT_TIMEOUT_SECONDS = 2 * 3600
DEFAULT_IDLE_TIMEOUT_SECONDS = 15 * 60
INLINE_PROMPT_BYTES = 64 * 1024
"""A longer prompt is a blob, never a value in Redis."""


class Frozen(BaseModel):
    """Base of the records: immutable, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Repo(Frozen):
    """Where the repository comes from: exactly one of ``url`` and ``blob``.

    ``url``: an address the worker fetches (schemes: https, http, ssh, git, and file only in tests). ``blob``: sha256 of
    a tar of a bare repository that the submitter packed from the local path ``path`` (kept for display). ``commit``:
    the full object id once resolved; a ref is resolved once per batch, by the first worker that fetches it, or by the
    submitter for a local path. ``depth``: history to bring, None for all of it. ``subdir``: working directory of
    setup, agent and verify inside the repository.
    """

    url: str | None = None
    blob: str | None = None
    path: str | None = None
    ref: str | None = None
    commit: str | None = None
    depth: int | None = None
    subdir: str | None = None


class Model(Frozen):
    """The model to use, as the worker's ``[models.<provider>]`` setting knows it. ``base_url`` is as seen from the
    host and must be one that the worker's settings allow."""

    name: str
    provider: str | None = None
    base_url: str | None = None


VerifyIn = Literal["same", "fresh"]


class Verify(Frozen):
    """What decides whether the work is good: a ``sh -c`` line run in the repository after the agent is dead.

    ``where``: in the sandbox in which the agent worked, or in a second one, on a clean clone with its patch applied."""

    run: str
    timeout_seconds: int = 600
    where: VerifyIn = "same"


class Resources(Frozen):
    """What the job asks for. None: a wish for the default (4 CPUs, 8 GiB, 20 GB), or what the host has if less."""

    cpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None


class Requires(Frozen):
    """What a worker must have to take the job; ``tags`` are those of its settings."""

    os: str | None = None
    arch: str | None = None
    tags: tuple[str, ...] = ()


class Retries(Frozen):
    """``max`` further attempts when the reason is in ``when``; the first after ``backoff_seconds``, then doubled."""

    max: int = 0
    when: tuple[Reason, ...] = (Reason.SANDBOX, Reason.PROVIDER, Reason.NETWORK)
    backoff_seconds: int = 30


class Budget(Frozen):
    """What one attempt's model calls may use in all; None: no limit. Held at the model route while it runs."""

    usd: float | None = None
    tokens: int | None = None
    """All kinds together, those of caches too."""
    turns: int | None = None
    """Calls that the model answers."""


NetworkMode = Literal["none", "allowlist", "open"]


class NetworkPolicy(Frozen):
    """What a guest reaches beside its model. ``allow``: rules (``tatin_jobs.netrules``), for mode allowlist."""

    mode: NetworkMode = "none"
    allow: tuple[str, ...] = ()


class Network(NetworkPolicy):
    """The agent's policy, which is also that of ``setup`` and ``verify`` unless they have one of their own."""

    setup: NetworkPolicy | None = None
    verify: NetworkPolicy | None = None

    def policies(self) -> tuple[NetworkPolicy, ...]:
        """Every policy that is in force at some time of an attempt."""
        return (self, self.setup or self, self.verify or self)


class InputFile(Frozen):
    """A file copied into the guest's ``work/``: its relative name there, and the blob that holds its bytes."""

    name: str
    blob: str
    size_bytes: int


class JobSpec(Frozen):
    """One job, resolved: defaults filled in, variables replaced, local files turned into blobs. No secret is in it."""

    version: Literal[1] = 1
    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    repo: Repo
    tool: str
    model: Model | None = None
    prompt: str | None = None
    prompt_blob: str | None = None
    prompt_name: str | None = None
    """The name of the file that it came from."""
    command: str | tuple[str, ...] | None = None
    args: tuple[str, ...] = ()
    inputs: tuple[InputFile, ...] = ()
    setup: str | None = None
    verify: Verify | None = None
    sandbox: str = "auto"
    image: str = DEFAULT_IMAGE
    keep: Literal["never", "on-failure", "always"] = "never"
    resources: Resources = Resources()
    requires: Requires = Requires()
    network: Network = Network()
    env: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Names only; the values are the worker's and never leave it but for the guest."""
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    idle_timeout_seconds: int = DEFAULT_IDLE_TIMEOUT_SECONDS
    budget: Budget | None = None
    retries: Retries = Retries()
    account: str | None = None
    """Whose limit the job's model calls count against; jobs of one account are held together."""
    needs: tuple[str, ...] = ()
    """As written: names of jobs of the same batch, or ids. ``Job.needs`` has the ids."""
    priority: int = 0
    not_before: datetime | None = None
    deadline: datetime | None = None
    artifacts: tuple[str, ...] | None = None
    cell: dict[str, str] = Field(default_factory=dict)
    """Which combination of a matrix: axis -> its value in one short line."""
    trial: int = 1
    trials: int = 1


class Need(Frozen):
    """What an attempt takes from a host. ``*_wish`` marks a wish: the host gives that, or all it offers if less."""

    cpus: int = 4
    memory_mib: int = 8192
    disk_mib: int = 20_000
    cpus_wish: bool = False
    memory_wish: bool = False
    disk_wish: bool = False
    tags: tuple[str, ...] = ()
    """Sorted; ``os:linux`` and ``arch:arm64`` are tags like the others, and so is ``sandbox:bwrap``."""


class Job(Frozen):
    """A job's record as it stands in the store."""

    version: int = RECORD_VERSION
    id: str
    batch: str
    spec: JobSpec
    need: Need
    state: JobState
    outcome: Outcome | None = None
    reason: Reason | None = None
    message: str = ""
    """One sentence for people about how it ended or why it is held."""
    step: Step | None = None
    attempt: int = 0
    """Attempts begun so far; the newest one is the one that counts."""
    retries_used: int = 0
    deaths: int = 0
    """Attempts whose worker died."""
    worker: str | None = None
    token: str | None = None
    """``<store id>:<number>`` of the newest lease."""
    cancel_wanted: bool = False
    held_for: HeldFor | None = None
    held_until: datetime | None = None
    """None while held by a person or for other jobs."""
    needs: tuple[str, ...] = ()
    """Ids of the jobs that are to succeed before this one runs."""
    retry_of: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    """When the newest attempt was claimed."""
    finished_at: datetime | None = None
    summary: AttemptSummary | None = None


class AttemptSummary(Frozen):
    """The few figures of a result that lists and reports show without opening the result's folder."""

    exit_status: int | None = None
    verify_exit_status: int | None = None
    verify_in: VerifyIn | None = None
    verified: bool | None = None
    """Whether verify passed; None when it did not run."""
    reward: float | None = None
    patch_bytes: int | None = None
    files_changed: int | None = None
    lines_added: int | None = None
    lines_removed: int | None = None
    artifacts: int = 0
    agent_seconds: float | None = None
    wall_seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    model_calls: int | None = None
    model_seconds: float | None = None
    turns: int | None = None
    cost_usd: float | None = None
    """None: unknown, which is not 0."""
    blocked: int | None = None
    """Places that the guest wanted to reach and might not."""
    final_text: str | None = None
    """The agent's last words, at most 500 characters, as they came: clean before showing."""
    folder: str | None = None
    """Where the result lies on the worker's host."""


class Lease(Frozen):
    """A worker's right to run one attempt of ``job``; ``token`` goes with every write about it."""

    job: Job
    token: str
    attempt: int
    probe: bool = False
    """Its model route is held; this attempt is to find out whether it works again."""


class Batch(Frozen):
    """One submit."""

    id: str
    created_at: datetime
    jobs: tuple[str, ...]
    source: str = ""
    """The files it came from, for people."""


class Offer(Frozen):
    """What a worker has in all, for the claim and for people."""

    cpus: int
    memory_mib: int
    disk_mib: int
    slots: int
    tags: tuple[str, ...] = ()


class WorkerInfo(Frozen):
    """A worker as it announces itself with each beat."""

    name: str
    host: str
    pid: int
    version: str
    offer: Offer
    sandbox: str
    started_at: datetime
    every_seconds: float = 5
    """How often it announces itself."""
    seen_at: datetime | None = None
    """By the store's clock; set on reading."""
    draining: bool = False
    problem: str = ""
    """Why it claims nothing at present (disk below the floor, a provider that does not answer); empty when it does."""
    running: tuple[str, ...] = ()
    egress_warning: str = ""
    """A clause that says what the network rules of a job do not hold for there; empty where they hold."""


class JobEvent(Frozen):
    """A recorded fact about a job: one per move, plus steps."""

    at: datetime
    """By the store's clock."""
    move: str
    attempt: int
    detail: str = ""


class LogChunk(Frozen):
    """A piece of the live log of one job."""

    cursor: str
    """Pass it back to read on from behind this piece."""
    attempt: int
    stream: Literal["stdout", "stderr", "event", "tatin"]
    """``event``: what an agent's adapter read from its output, one JSON object a line, in place of that output.
    ``tatin``: a line of ours (a step, a notice), not the guest's."""
    data: bytes


Job.model_rebuild()
