"""Where a job is, how it ended and why; and the one table of moves between states. No I/O here.

State says where a job is, outcome how it ended, reason why: three words kept apart.

    (none) --submit--> queued | held
    held   --release, hold-----------> queued | held
    held   --settle------------------> queued | held | finished
    queued --hold--------------------> held
    queued --claim-------------------> running
    running --renew, step, overdue---> running
    running --finish, reap-----------> finished
    running --requeue, reap----------> queued | held
    queued, held --cancel, overdue---> finished

A queued job whose gate is closed (``tatin_jobs.gates``) is shown as held, and is in its line all the same.

Each move is made by one Lua script in ``tatin_jobs/store`` that checks everything, then writes. ``finished`` is
final: ``retry`` makes a new job that names the old one.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    """Waiting in its need class for a worker with room."""
    HELD = "held"
    """Waiting for a time, a person, another job or a quota; no worker will take it."""
    RUNNING = "running"
    """Leased to a worker, which runs one attempt of it."""
    FINISHED = "finished"
    """Over for good; outcome and reason say how and why."""


class HeldFor(StrEnum):
    """What a held job waits for."""

    TIME = "time"
    """``not_before``, or the pause before another attempt."""
    PERSON = "person"
    NEEDS = "needs"
    """Other jobs that are to succeed first."""
    QUOTA = "quota"
    """The limit of its account; every job of that account waits with it."""
    ROUTE = "route"
    """A model route that failed several times in a row; one job probes it now and then."""


class Outcome(StrEnum):
    """How a finished job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


class Reason(StrEnum):
    """Why a job ended as it did; whose failure it was."""

    AGENT = "agent"
    """The agent itself: its exit status, its empty answer, its time limit."""
    VERIFY = "verify"
    SETUP = "setup"
    REPO = "repo"
    SANDBOX = "sandbox"
    PROVIDER = "provider"
    NETWORK = "network"
    AUTH = "auth"
    QUOTA = "quota"
    BUDGET = "budget"
    STALLED = "stalled"
    """No output for ``idle_timeout``."""
    OOM = "oom"
    DISK = "disk"
    REFUSED = "refused"
    NEEDS = "needs"
    """A job that it needs did not succeed, so it was not run."""
    DEADLINE = "deadline"
    """Its ``deadline`` came before it was over."""
    WORKER = "worker"
    """The worker died, was stopped, or has a fault of its own."""


class Step(StrEnum):
    """What a running attempt is doing."""

    CREATING = "creating"
    PROVISIONING = "provisioning"
    CLONING = "cloning"
    SETUP = "setup"
    AGENT = "agent"
    VERIFYING = "verifying"
    COLLECTING = "collecting"
    DESTROYING = "destroying"


class Move(StrEnum):
    """Who moves a job, by the name of the script that does it."""

    SUBMIT = "submit"
    RELEASE = "release"
    HOLD = "hold"
    CLAIM = "claim"
    RENEW = "renew"
    STEP = "step"
    FINISH = "finish"
    REQUEUE = "requeue"
    REAP = "reap"
    CANCEL = "cancel"
    SETTLE = "settle"
    OVERDUE = "overdue"


_Q, _H, _R, _F = JobState.QUEUED, JobState.HELD, JobState.RUNNING, JobState.FINISHED

TRANSITIONS: dict[tuple[JobState | None, Move], frozenset[JobState]] = {
    (None, Move.SUBMIT): frozenset({_Q, _H}),
    (_H, Move.RELEASE): frozenset({_Q, _H}),
    (_H, Move.SETTLE): frozenset({_Q, _H, _F}),
    (_H, Move.HOLD): frozenset({_H}),
    (_Q, Move.HOLD): frozenset({_H}),
    (_Q, Move.CLAIM): frozenset({_R}),
    (_R, Move.RENEW): frozenset({_R}),
    (_R, Move.STEP): frozenset({_R}),
    (_R, Move.FINISH): frozenset({_F}),
    (_R, Move.REQUEUE): frozenset({_Q, _H}),
    (_R, Move.REAP): frozenset({_Q, _F}),
    (_Q, Move.CANCEL): frozenset({_F}),
    (_H, Move.CANCEL): frozenset({_F}),
    (_R, Move.CANCEL): frozenset({_R}),
    (_Q, Move.OVERDUE): frozenset({_F}),
    (_H, Move.OVERDUE): frozenset({_F}),
    (_R, Move.OVERDUE): frozenset({_R}),
}
"""(state before, move) -> states it may lead to. A pair that is not here is refused. Cancel of a running job only
marks it: its holder learns of it with the next beat and finishes it as cancelled; so does a deadline that passes while
it runs. A person's release of a job that also waits for a time or for other jobs leaves it held for those."""


def allowed(before: JobState | None, move: Move, after: JobState) -> bool:
    """Whether ``move`` may take a job from ``before`` to ``after``."""
    return after in TRANSITIONS.get((before, move), frozenset())
