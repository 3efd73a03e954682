"""What the steps of one attempt share: what it is, whom it tells, what is open, what was found."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tatin_jobs.models import Lease
from tatin_jobs.needs import granted
from tatin_jobs.results import EVENTS_FILE, AgentFacts, StepTime
from tatin_jobs.states import Step
from worker.adoption import Adopted
from worker.agents import adapter
from worker.agents.base import AgentAdapter, AgentPlan
from worker.context import Context
from worker.control import Control
from worker.events import EventLog
from worker.facts import Facts
from worker.gateway import ModelGateway
from worker.guest_network import GuestNetwork
from worker.journal import Entry
from worker.outbox import Outbox
from worker.sandboxes.base import GUEST_REPO, Sandbox
from worker.sandboxes.names import sandbox_name

log = logging.getLogger(__name__)


class Parts:
    """Made and used in the event loop. Each step takes them, and leaves in them what a later one needs.

    ``name``, ``sandbox`` and ``entry`` (its line in the journal) are of the sandbox that is there now: a fresh verify
    has a second one. ``stack`` holds what is open in front of it. ``plan``, ``base_tar``, ``route_token`` and
    ``secrets`` are empty until their step has run; so is ``gateway``, which a job without a model never has. ``unsent``
    are files of the guest that go in with the repository.
    """

    def __init__(self, context: Context, lease: Lease, control: Control, adopted: Adopted | None = None) -> None:
        self.context = context
        self.adopted = adopted
        self.lease = lease
        self.spec = lease.job.spec
        self.control = control
        self.name = sandbox_name(context.home_id, lease.job.id, lease.attempt)
        self.need = granted(lease.job.need, context.offer)
        self.folder = context.home.attempt(lease.job.id, lease.attempt)
        self.events = EventLog(self.folder / EVENTS_FILE, context.redactor)
        self.outbox = Outbox(context.store, lease)
        self.facts = Facts(lease, AgentFacts(tool=self.spec.tool, model=self.spec.model))
        self.network = GuestNetwork(context.settings.gateway, self.spec, self._tell)
        self.facts.network = self.network
        self.stack = AsyncExitStack()
        self.sandbox: Sandbox | None = None
        self.gateway: ModelGateway | None = None
        self.plan = AgentPlan(argv=())
        self.base_tar: Path | None = None
        self.unsent: dict[str, bytes] = {}
        self.route_token: str | None = None
        self.entry = Entry(
            sandbox=self.name, job=lease.job.id, attempt=lease.attempt, token=lease.token, need=self.need
        )
        self.secrets: dict[str, str] = {}

    @asynccontextmanager
    async def step(self, step: Step) -> AsyncIterator[None]:
        """Say which step runs, and note how long it took. Telling the store never holds the attempt up."""
        log.info("action=step job=%s attempt=%d step=%s", self.lease.job.id, self.lease.attempt, step)
        self.outbox.post(step)
        self.events.ours("step", step=step.value)
        started = time.monotonic()
        try:
            yield
        finally:
            self.facts.steps.append(StepTime(step=step, seconds=round(time.monotonic() - started, 3)))

    def guest_env(self, more: Mapping[str, str]) -> dict[str, str]:
        """The environment of every command of the job, with ``more`` for this one."""
        ours = {"TATIN_JOB_ID": self.lease.job.id, "TATIN_ATTEMPT": str(self.lease.attempt)}
        return {**self.spec.env, **self.network.environment(), **self.secrets, **more, **ours}

    @property
    def cwd(self) -> str:
        """Where in the guest the job's commands run."""
        subdir = self.spec.repo.subdir
        return f"{GUEST_REPO}/{subdir}" if subdir else GUEST_REPO

    @property
    def log_limit_bytes(self) -> int:
        """Of the output of one command."""
        return self.context.settings.log_limit_mib * 2**20

    @property
    def agent_adapter(self) -> AgentAdapter:
        """A new one each time. Raises BadInput, AttemptError: as ``worker.agents.adapter`` does."""
        return adapter(self.spec.tool, self.context.settings.agent_classes)

    def _tell(self, line: str) -> None:
        """A line of ours in the live log and among the events. It may quote the guest: a host that it asked for."""
        line = self.context.redactor.text(line)
        self.outbox.post(("tatin", f"{line}\n".encode()))
        self.events.ours("network", text=line)
