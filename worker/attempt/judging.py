"""How the agent ended: what its reader says, and what the route, the clock and the sandbox know better."""

from __future__ import annotations

from dataclasses import replace

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import AgentReader, Verdict
from worker.attempt.parts import Parts
from worker.attempt.provisioning import PROMPT_PATH
from worker.ending import Ending, how_it_ended
from worker.followed import Followed
from worker.route_stops import stopped_by_route
from worker.sandboxes.base import GUEST_REPO, GUEST_WORK, Sandbox


async def judge(parts: Parts, sandbox: Sandbox, followed: Followed, reader: AgentReader, stderr_tail: bytes) -> Verdict:
    """The verdict on an agent that has ended; its snapshot was taken."""
    usage = parts.gateway.usage if parts.gateway else None
    if usage and (verdict := stopped_by_route(usage, stopped=followed.stopped)):
        return verdict
    if followed.stalled:
        text = f"The agent was quiet for {parts.spec.idle_timeout_seconds} s (idle_timeout) and was stopped."
        reason, why = (usage.blame(stalled=True) if usage else None) or (Reason.STALLED, "")
        return Verdict(Outcome.TIMED_OUT, reason, f"{text} {why}".strip())
    if followed.exit_status is None:
        return Verdict(Outcome.TIMED_OUT, Reason.AGENT, f"The agent {how_it_ended(followed)}.")
    verdict = reader.verdict(followed.exit_status, stderr_tail, await _changed(parts, sandbox, followed))
    if followed.lingered:
        stayed = "Its process stayed after its last word and was ended."
        verdict = replace(verdict, message=f"{verdict.message} {stayed}".strip())
    if verdict.outcome is not Outcome.FAILED:
        return verdict
    used = await sandbox.usage()
    if used.oom_kills:
        return Verdict(Outcome.FAILED, Reason.OOM, _oom_text(parts), verdict.final_text)
    if "disk" in used.limits_hit:
        text = f"The sandbox used up its {parts.need.disk_mib} MiB of disk; ask for more with resources.disk."
        return Verdict(Outcome.FAILED, Reason.DISK, text, verdict.final_text)
    if usage and verdict.reason is Reason.AGENT and (blamed := usage.blame()):
        verdict = replace(verdict, reason=blamed[0], message=f"{verdict.message} {blamed[1]}")
    if usage and usage.quota and verdict.reason is Reason.QUOTA and verdict.reset_at is None:
        verdict = replace(verdict, reset_at=usage.quota.reset_at)
    return verdict


async def oom_or(parts: Parts, ending: Ending) -> Ending:
    """A sandbox that died of its memory limit is out of memory, not broken."""
    if ending.reason is Reason.SANDBOX and parts.sandbox and (await parts.sandbox.usage()).oom_kills:
        return Ending(Outcome.FAILED, Reason.OOM, _oom_text(parts))
    return ending


async def _changed(parts: Parts, sandbox: Sandbox, followed: Followed) -> bool:
    """Whether the agent left anything: in the repository, or, looked at only when it was silent, beside it."""
    snapshot = parts.facts.snapshot
    if (snapshot and snapshot.changed) or followed.stdout_bytes or followed.stderr_bytes:
        return bool(snapshot and snapshot.changed)
    beside = ["find", GUEST_WORK, "-path", GUEST_REPO, "-prune", "-o"]
    younger = [*beside, "-type", "f", "-newer", PROMPT_PATH, "-print"]
    return bool((await sandbox.run(younger)).stdout)


def _oom_text(parts: Parts) -> str:
    return f"The sandbox ran out of its {parts.need.memory_mib} MiB of memory; ask for more with resources.memory."
