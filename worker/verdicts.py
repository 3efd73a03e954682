"""What verify found, and what it makes of an attempt. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import Verdict
from worker.ending import Ending, how_it_ended
from worker.followed import Followed
from worker.reward import PASS, Reward


@dataclass(frozen=True)
class Verified:
    """Whether the work is good, and why so: one sentence for people."""

    passed: bool
    why: str


def verified_by(followed: Followed, reward: Reward | None) -> Verified:
    """A reward file decides where there is one, whatever the exit status; a command that was stopped never passes."""
    if followed.exit_status is None:
        return Verified(False, f"The verify command {how_it_ended(followed)}.")
    if reward is None:
        return Verified(followed.exit_status == 0, f"The verify command {how_it_ended(followed)}.")
    if reward.reward is None:
        return Verified(False, f"The reward that verify left cannot be used: {reward.problem}")
    return Verified(reward.passed, f"The reward is {reward.reward:g}; {PASS:g} is a pass.")


def decide(verdict: Verdict, verified: Verified | None) -> Ending:
    """Verify has the last word on an agent that ended well. It never turns another end into a success: of an agent that
    ran out of time it only says what its work is worth."""
    ending = Ending(verdict.outcome, verdict.reason, verdict.message, reset_at=verdict.reset_at)
    if verified is None:
        return ending
    if verdict.outcome is not Outcome.SUCCEEDED:
        said = "What it left passes verify." if verified.passed else verified.why
        return replace(ending, message=f"{ending.message} {said}")
    return ending if verified.passed else Ending(Outcome.FAILED, Reason.VERIFY, verified.why)
