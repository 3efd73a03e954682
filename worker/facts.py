"""What an attempt finds out as it goes, and the Result that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import tatin_jobs
from tatin_jobs.models import Lease, Need
from tatin_jobs.results import (
    AgentFacts,
    ArtifactFacts,
    CommandFacts,
    PatchFacts,
    ReachedFacts,
    Result,
    SandboxFacts,
    StepTime,
    ToolUsage,
    Usage,
    VerifyFacts,
)
from tatin_jobs.states import JobState, Step
from worker.collect import Collected, Snapshot
from worker.ending import Ending
from worker.events import EventLog
from worker.gateway import RouteUsage
from worker.gateway.tokens import KINDS
from worker.guest_network import GuestNetwork
from worker.images.store import version_in
from worker.journal import Going
from worker.sandboxes.base import Sandbox, SandboxProvider, SandboxUsage

TOKENS = tuple(f"{kind}_tokens" for kind in KINDS)


@dataclass
class Facts:
    """Filled in by the steps; every field is what is known so far."""

    lease: Lease
    agent: AgentFacts
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steps: list[StepTime] = field(default_factory=list)
    commit: str | None = None
    setup: CommandFacts | None = None
    verify: VerifyFacts | None = None
    snapshot: Snapshot | None = None
    collected: Collected | None = None
    sandbox: SandboxFacts | None = None
    limits_hit: set[str] = field(default_factory=set)
    route: RouteUsage | None = None
    model_server: str | None = None
    """Its host and port."""
    network: GuestNetwork | None = None

    @property
    def patch(self) -> bytes | None:
        """The patch, where it came with the snapshot."""
        return self.snapshot.patch if self.snapshot else None

    def going(
        self, started: float, base_tar: Path | None, transcript_paths: Sequence[str], route_token: str | None
    ) -> Going:
        """What the next worker needs to go on."""
        return Going(
            started=started,
            agent=self.agent,
            steps=tuple(self.steps),
            setup=self.setup,
            commit=self.commit,
            base_tar=str(base_tar) if base_tar else None,
            transcript_paths=tuple(transcript_paths),
            route_token=route_token,
            allow_lists=self.network.lists() if self.network else {},
            snapshot=self.snapshot if self.patch is None else None,  # one that the guest has no file of is taken again
        )

    def go_on(self, going: Going) -> None:
        """Know what the earlier worker knew."""
        self.agent, self.setup, self.commit, self.snapshot = going.agent, going.setup, going.commit, going.snapshot
        self.steps = [step for step in going.steps if step.step not in (Step.AGENT, Step.VERIFYING)]
        self.started_at = self.lease.job.started_at or self.started_at

    def saw_sandbox(self, provider: SandboxProvider, sandbox: Sandbox, need: Need) -> None:
        """A sandbox was made. The first counts: it is the one in which the agent works."""
        if self.sandbox:
            return
        promises = provider.capabilities
        self.sandbox = SandboxFacts(
            kind=provider.kind,
            name=sandbox.name,
            image=sandbox.image or None,
            separate_kernel=promises.separate_kernel,
            egress_control=promises.egress_control,
            egress_warning=promises.egress_warning,
            sudo=promises.sudo,
            cpus=need.cpus,
            memory_mib=need.memory_mib,
        )

    def saw_parts(self, sandbox: Sandbox, packages: Sequence[str]) -> None:
        """The version of the agent in a guest that has an image of its own."""
        said = sandbox.parts.get(packages[0]) if packages else None
        if said:
            self.agent = self.agent.model_copy(update={"version": version_in(said)})

    def saw_usage(self, usage: SandboxUsage) -> None:
        """What the sandbox used in all."""
        self.limits_hit.update(usage.limits_hit)
        if self.sandbox:
            self.sandbox = self.sandbox.model_copy(
                update={
                    "cpu_seconds": usage.cpu_seconds,
                    "peak_memory_mib": usage.peak_memory_mib,
                    "oom_kills": usage.oom_kills,
                }
            )

    def result(self, ending: Ending, worker: str, events: EventLog, state: JobState, *, accepted: bool) -> Result:
        """The whole story so far, with this ending."""
        job, collected = self.lease.job, self.collected
        return Result(
            job=job.id,
            batch=job.batch,
            name=job.spec.name,
            attempt=self.lease.attempt,
            token=self.lease.token,
            state=state,
            accepted=accepted,
            outcome=ending.outcome,
            reason=ending.reason,
            message=ending.message,
            reset_at=ending.reset_at,
            route=ending.route,
            wait_seconds=ending.wait_seconds,
            worker=worker,
            tatin_version=tatin_jobs.__version__,
            repo=job.spec.repo.url or job.spec.repo.path or "",
            commit=self.commit,
            secrets=job.spec.secrets,
            created_at=job.created_at,
            started_at=self.started_at,
            finished_at=datetime.now(UTC),
            steps=tuple(self.steps),
            sandbox=self.sandbox,
            agent=self.agent,
            setup=self.setup,
            verify=self.verify,
            limits_hit=tuple(sorted(self.limits_hit | self._own_limits(events))),
            usage=_usage(events, self.route),
            network=self.network.facts(self._model_server()) if self.network else None,
            patch=self._patch(),
            patch_missing=self.snapshot.patch_missing if self.snapshot else None,
            artifacts=tuple(
                ArtifactFacts(name=item.name, size_bytes=item.size_bytes, sha256=item.sha256)
                for item in (collected.artifacts if collected else ())
            ),
            refused=(*(self.snapshot.left_out if self.snapshot else ()), *(collected.refused if collected else ())),
            incomplete=collected.incomplete if collected else None,
        )

    def _model_server(self) -> ReachedFacts | None:
        if self.route is None or self.model_server is None:
            return None
        return ReachedFacts(
            where=self.model_server,
            connections=self.route.calls,
            sent_bytes=self.route.request_bytes,
            received_bytes=self.route.response_bytes,
            model=True,
        )

    def _own_limits(self, events: EventLog) -> set[str]:
        """Those that are held on the host, not in the sandbox."""
        over = {"log": self.agent.log_cut, "events": events.cut}
        over["artifacts"] = bool(self.collected and self.collected.incomplete)
        return {name for name, hit in over.items() if hit}

    def _patch(self) -> PatchFacts | None:
        snapshot, collected = self.snapshot, self.collected
        if snapshot is None or collected is None or collected.patch_bytes is None:
            return None
        return PatchFacts(
            size_bytes=collected.patch_bytes,
            files_changed=snapshot.files_changed,
            lines_added=snapshot.lines_added,
            lines_removed=snapshot.lines_removed,
            commits=snapshot.commits,
        )


def _usage(events: EventLog, route: RouteUsage | None) -> Usage:
    """What the model route counted, and beside it what the tool says, which stands in where nothing was counted."""
    said = ToolUsage(
        turns=events.turns or None,
        cost_usd=events.sums.get("cost_usd"),
        **{name: int(events.sums[name]) for name in TOKENS if name in events.sums},
    )
    tool_calls = events.tool_calls if events.turns else None
    counted = route is not None and route.tokens.told
    tokens = {f"{kind}_tokens": getattr(route.tokens, kind) for kind in KINDS} if counted and route else {}
    if not counted:
        tokens = {name: getattr(said, name) for name in TOKENS}
    by: Literal["route", "tool"] = "route" if counted else "tool"
    shared = {"tool_calls": tool_calls, "tool": said, "counted_by": by if any(tokens.values()) else None, **tokens}
    if route is None:
        return Usage(turns=said.turns, cost_usd=said.cost_usd, **shared)
    return Usage(
        turns=route.answered,
        cost_usd=route.cost_usd,
        model_calls=route.calls,
        model_seconds=round(route.model_seconds, 3),
        model_errors=dict(route.errors),
        untold_calls=route.untold,
        **shared,
    )
