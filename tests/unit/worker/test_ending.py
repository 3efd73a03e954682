"""How an attempt's end is named, and what becomes of its job."""

from __future__ import annotations

import errno

import pytest

from tatin_jobs.errors import DiskFull, HostBusy, RepositoryError
from tatin_jobs.models import Retries
from tatin_jobs.states import Outcome, Reason
from tests.support.records import make_job
from worker.control import Interruption, Stop
from worker.ending import Ending, Fate, backoff_seconds, failed_by, fate, how_it_ended, interrupted_by, os_failure
from worker.followed import Followed


@pytest.mark.parametrize(
    ("ending", "retries", "used", "expected"),
    [
        (Ending(Outcome.SUCCEEDED), Retries(max=3), 0, Fate.FINISH),
        (Ending(Outcome.FAILED, Reason.SANDBOX), Retries(max=1), 0, Fate.RETRY),
        (Ending(Outcome.FAILED, Reason.SANDBOX), Retries(max=1), 1, Fate.FINISH),
        (Ending(Outcome.FAILED, Reason.SANDBOX), Retries(max=0), 0, Fate.FINISH),
        (Ending(Outcome.FAILED, Reason.AGENT), Retries(max=3), 0, Fate.FINISH),
        (Ending(Outcome.FAILED, Reason.AGENT), Retries(max=3, when=(Reason.AGENT,)), 0, Fate.RETRY),
        (Ending(Outcome.TIMED_OUT, Reason.AGENT), Retries(max=3, when=(Reason.AGENT,)), 0, Fate.FINISH),
        (Ending(Outcome.CANCELLED), Retries(max=3), 0, Fate.FINISH),
        (Ending(Outcome.FAILED, Reason.WORKER, hand_back=True), Retries(max=0), 0, Fate.HAND_BACK),
        (failed_by(HostBusy("not now", wait_seconds=5)), Retries(max=0), 0, Fate.WAIT),
    ],
)
def test_what_becomes_of_a_job(ending: Ending, retries: Retries, used: int, expected: Fate) -> None:
    job = make_job(retries=retries).model_copy(update={"retries_used": used})
    assert fate(ending, job) is expected


def test_each_retry_waits_twice_as_long_up_to_an_hour() -> None:
    job = make_job(retries=Retries(max=10, backoff_seconds=30))
    waits = [backoff_seconds(job.model_copy(update={"retries_used": used})) for used in (0, 1, 2, 9)]
    assert waits == [30, 60, 120, 3600]


def test_an_error_of_ours_carries_its_reason_and_what_was_seen() -> None:
    ending = failed_by(RepositoryError("The ref is not there.", seen="fatal: no"))
    assert ending == Ending(Outcome.FAILED, Reason.REPO, "The ref is not there. Seen: fatal: no")


def test_a_full_disk_is_told_from_other_trouble_of_the_host() -> None:
    assert isinstance(os_failure(OSError(errno.ENOSPC, "No space left on device")), DiskFull)
    assert os_failure(OSError(errno.EIO, "I/O error")).reason is Reason.WORKER


@pytest.mark.parametrize("stop", Stop)
def test_every_stop_has_an_ending(stop: Stop) -> None:
    ending = interrupted_by(Interruption(stop, "seen"))
    assert ending.message
    assert ending.hand_back is (stop in (Stop.SHUTDOWN, Stop.CUT_OFF))


@pytest.mark.parametrize(
    ("followed", "words"),
    [
        (Followed(2, timed_out=False, stalled=False, seconds=14), "exited with 2 after 14s"),
        (Followed(137, timed_out=False, stalled=False, seconds=1), "was killed by signal 9 after 1.0s"),
        (
            Followed(None, timed_out=True, stalled=False, seconds=600),
            "passed its time limit and was stopped after 10m00s",
        ),
    ],
)
def test_the_end_of_a_command_in_words(followed: Followed, words: str) -> None:
    assert how_it_ended(followed) == words
