"""How an attempt ended, and what becomes of its job: finished, tried again, or handed back. Pure decisions."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tatin_jobs.errors import AttemptError, DiskFull, HostBusy
from tatin_jobs.models import Job
from tatin_jobs.results import RouteFacts
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.units import format_duration
from worker.control import Interruption, Stop
from worker.followed import Followed

MAX_BACKOFF_SECONDS = 3600
_OF_THE_HOST = (Reason.SANDBOX, Reason.REPO, Reason.WORKER)
MAX_WAITS = 100
"""So often a job waits for a limit that the gateway saw, or is handed back; then a quota is its end (all ends)."""
MAX_UNSEEN_WAITS = 5
"""The same where only the guest said so."""


@dataclass(frozen=True)
class Ending:
    """``message`` is one sentence for people. ``hand_back``: the job is not over and no retry is counted, because the
    worker stopped and not the job."""

    outcome: Outcome
    reason: Reason | None = None
    message: str = ""
    hand_back: bool = False
    reset_at: datetime | None = None
    """With reason quota: when the limit ends, in UTC, if anybody said so."""
    route: RouteFacts | None = None
    """What the gateway saw of the job's model."""
    wait_seconds: float = 0
    """The host is busy: how long the job waits, with no retry counted."""

    @property
    def planned_state(self) -> JobState:
        """Where the job goes, as far as the attempt knows before the store has said so."""
        return JobState.QUEUED if self.hand_back else JobState.FINISHED


class Fate(StrEnum):
    """What becomes of the job."""

    FINISH = "finish"
    RETRY = "retry"
    HAND_BACK = "hand_back"
    WAIT = "wait"
    """A limit was met, or the host is busy: it waits for the end of that, and no retry is counted."""


def failed_by(error: AttemptError) -> Ending:
    """The ending that an error of ours stands for."""
    message = error.what if not error.seen else f"{error.what} Seen: {error.seen}"
    wait = error.wait_seconds if isinstance(error, HostBusy) else 0
    return Ending(Outcome.FAILED, error.reason, message, wait_seconds=wait)


def os_failure(error: OSError) -> AttemptError:
    """The host's own trouble: a full disk by its name, anything else as the worker's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The host's disk is full.", seen=str(error), try_="free space, or `tatin prune`.")
    return AttemptError("The worker could not go on.", seen=str(error), reason=Reason.WORKER)


def interrupted_by(interruption: Interruption) -> Ending:
    """The ending that a stop from outside stands for."""
    match interruption.stop:
        case Stop.DEADLINE:
            return Ending(Outcome.TIMED_OUT, Reason.DEADLINE, "Stopped at its deadline.")
        case Stop.CANCELLED:
            return Ending(Outcome.CANCELLED, None, "Cancelled while it ran.")
        case Stop.FULL:
            return Ending(Outcome.FAILED, Reason.DISK, interruption.detail)
        case Stop.DIED:
            return Ending(Outcome.FAILED, Reason.SANDBOX, f"The sandbox died: {interruption.detail}")
        case Stop.LOST:
            return Ending(Outcome.LOST, Reason.WORKER, "Superseded: a newer attempt holds the job.")
        case Stop.CUT_OFF:
            text = f"Stopped: its worker could not reach the store for {interruption.detail}."
            return Ending(Outcome.FAILED, Reason.WORKER, text, hand_back=True)
        case Stop.SHUTDOWN:
            return Ending(Outcome.FAILED, Reason.WORKER, "Handed back: the worker was stopped.", hand_back=True)


def excused(ending: Ending) -> Ending:
    """While the worker is being ended, what fails of the host's own (a sandbox, a git, an unpacker) fails because the
    whole machine goes down: systemd signals every process of a service at once. The job is handed back."""
    if ending.outcome is not Outcome.FAILED or ending.reason not in _OF_THE_HOST or ending.hand_back:
        return ending
    message = f"Handed back: the worker was stopped. {ending.message}"
    return Ending(Outcome.FAILED, Reason.WORKER, message, hand_back=True)


def how_it_ended(followed: Followed) -> str:
    """``exited with 2 after 14s``, ``passed its time limit after 10m00s``: the end of a sentence about a command."""
    after = f"after {format_duration(followed.seconds)}"
    if followed.exit_status is None:
        return f"passed its time limit and was stopped {after}"
    if followed.exit_status > 128:
        return f"was killed by signal {followed.exit_status - 128} {after}"
    return f"exited with {followed.exit_status} {after}"


def fate(ending: Ending, job: Job) -> Fate:
    """Finish, retry (its reason allows it and retries are left), hand back, or wait for a limit to end."""
    if ending.hand_back:
        return Fate.HAND_BACK
    if ending.reason is Reason.QUOTA and _uncounted(job) < (MAX_WAITS if _seen(ending) else MAX_UNSEEN_WAITS):
        return Fate.WAIT
    if ending.wait_seconds and _uncounted(job) < MAX_WAITS:
        return Fate.WAIT
    retries = job.spec.retries
    if ending.outcome is Outcome.FAILED and ending.reason in retries.when and job.retries_used < retries.max:
        return Fate.RETRY
    return Fate.FINISH


def _seen(ending: Ending) -> bool:
    return ending.route is not None and ending.route.limit is not None


def _uncounted(job: Job) -> int:
    """Attempts before this one that neither used up a retry nor ended with their worker."""
    return job.attempt - 1 - job.retries_used - job.deaths


def backoff_seconds(job: Job) -> float:
    """How long the next attempt waits: doubled with each retry, an hour at most."""
    return float(min(MAX_BACKOFF_SECONDS, job.spec.retries.backoff_seconds * 2**job.retries_used))
