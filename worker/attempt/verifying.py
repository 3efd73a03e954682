"""The job's verify command, where the agent worked or in a second sandbox, and what it says of the work."""

from __future__ import annotations

from tatin_jobs.models import Verify
from tatin_jobs.results import VerifyFacts
from tatin_jobs.states import Step
from worker.attempt.fresh import begin_afresh, put_work_into
from worker.attempt.job_line import run_line
from worker.attempt.parts import Parts
from worker.reward import REWARD_DIR, REWARD_VARIABLE, make_reward_folder, read_reward
from worker.sandboxes.base import Sandbox
from worker.verdicts import Verified, verified_by


async def verify_work(parts: Parts, sandbox: Sandbox, verify: Verify) -> Verified:
    """Run the job's verify command, here or in a second sandbox. Work that cannot be verified has failed."""
    if verify.where == "fresh":
        sandbox = await begin_afresh(parts, sandbox)
        if problem := await put_work_into(parts, sandbox):
            parts.facts.verify = VerifyFacts(run=verify.run, where="fresh", passed=False, problem=problem)
            return Verified(False, problem)
    async with parts.step(Step.VERIFYING):
        await make_reward_folder(sandbox)
        env = {REWARD_VARIABLE: REWARD_DIR}
        await parts.network.enter("verify")
        followed, facts = await run_line(parts, sandbox, "verify", verify.run, verify.timeout_seconds, env=env)
        reward = await read_reward(sandbox, parts.folder / "verify", parts.context.redactor)
    verified = verified_by(followed, reward)
    parts.facts.verify = VerifyFacts(
        **facts.model_dump(),
        where=verify.where,
        passed=verified.passed,
        reward=reward.reward if reward else None,
        rewards=reward.rewards if reward else {},
        problem=reward.problem if reward else "",
    )
    return verified
