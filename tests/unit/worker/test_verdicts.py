"""What verify makes of an attempt."""

from __future__ import annotations

import pytest

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import Verdict
from worker.followed import Followed
from worker.reward import Reward
from worker.verdicts import Verified, decide, verified_by


def ran(exit_status: int | None) -> Followed:
    return Followed(exit_status=exit_status, timed_out=exit_status is None, stalled=False, seconds=1)


@pytest.mark.parametrize(
    ("exit_status", "reward", "passed", "words"),
    [
        (0, None, True, "exited with 0"),
        (2, None, False, "exited with 2"),
        (None, None, False, "passed its time limit"),
        (0, Reward(0.5), False, "reward is 0.5"),
        (1, Reward(1.0), True, "reward is 1"),
        (0, Reward(None, problem="reward.txt is empty."), False, "cannot be used: reward.txt is empty."),
        (None, Reward(1.0), False, "passed its time limit"),
    ],
)
def test_a_reward_decides_before_the_exit_status_unless_verify_was_stopped(
    exit_status: int | None, reward: Reward | None, passed: bool, words: str
) -> None:
    found = verified_by(ran(exit_status), reward)
    assert found.passed is passed
    assert words in found.why


def test_verify_has_the_last_word_on_a_success() -> None:
    bad = decide(Verdict(Outcome.SUCCEEDED), Verified(False, "No."))
    assert (bad.outcome, bad.reason, bad.message) == (Outcome.FAILED, Reason.VERIFY, "No.")
    assert decide(Verdict(Outcome.SUCCEEDED), Verified(True, "Yes.")).outcome is Outcome.SUCCEEDED
    assert decide(Verdict(Outcome.SUCCEEDED), None).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("verified", "words"),
    [(Verified(True, "Yes."), "Late. What it left passes verify."), (Verified(False, "No."), "Late. No.")],
)
def test_an_agent_out_of_time_stays_so_and_is_told_what_its_work_is_worth(verified: Verified, words: str) -> None:
    ending = decide(Verdict(Outcome.TIMED_OUT, Reason.AGENT, "Late."), verified)
    assert (ending.outcome, ending.reason, ending.message) == (Outcome.TIMED_OUT, Reason.AGENT, words)
