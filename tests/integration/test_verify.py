"""Verify through the real runner: rewards, and a second sandbox on a clean clone; A71."""

from __future__ import annotations

import asyncio
import json

import pytest

from tatin_jobs.models import InputFile, Verify
from tatin_jobs.results import Result, VerifyFacts
from tatin_jobs.states import Outcome, Reason
from tests.support.attempts import Bench
from worker.control import Control, Stop
from worker.sandboxes.fake import FakeProvider
from worker.sandboxes.names import sandbox_name, verify_name

pytestmark = pytest.mark.needs("git", "valkey")


def fresh(run: str) -> Verify:
    return Verify(run=run, where="fresh")


def facts_of(result: Result) -> VerifyFacts:
    assert result.verify is not None
    return result.verify


async def test_a71_a_reward_planted_by_the_agent_is_gone_when_verify_runs(each: Bench) -> None:
    """A71: also one in a folder that cannot be entered."""
    script = "cd /run/tatin; mkdir -p reward/x && echo 1 > reward/reward.txt; chmod 0 reward/x; ls -d reward/x"
    job, result = await each.run(command=script, verify=Verify(run='ls "$TATIN_REWARD_DIR"; exit 3'))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.VERIFY)
    facts = facts_of(result)
    assert (facts.exit_status, facts.passed, facts.reward, facts.where) == (3, False, None, "same")
    assert (each.job_folder(job) / "verify" / "output.log").read_bytes() == b""


async def test_a_reward_decides_and_is_kept(each: Bench) -> None:
    run = 'cd "$TATIN_REWARD_DIR"; echo 0 > reward.txt; echo \'{"reward": 1, "speed": 2}\' > reward.json; exit 1'
    job, result = await each.run(verify=Verify(run=run))
    assert job.outcome is Outcome.SUCCEEDED
    facts = facts_of(result)
    assert (facts.exit_status, facts.passed, facts.reward) == (1, True, 1.0)
    assert facts.rewards == {"reward": 1.0, "speed": 2.0}
    assert json.loads((each.job_folder(job) / "verify" / "reward.json").read_text()) == {"reward": 1, "speed": 2}
    assert job.summary is not None
    assert (job.summary.verified, job.summary.reward, job.summary.verify_in) == (True, 1.0, "same")


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ('echo 1 > there; ln -s "$PWD/there" "$TATIN_REWARD_DIR/reward.txt"', "reward.txt is empty."),
        ('mkdir "$TATIN_REWARD_DIR/reward.json"', "reward.json is not JSON."),
        ('head -c 100000 /dev/zero > "$TATIN_REWARD_DIR/reward.txt"', "reward.txt has more than 64 KiB."),
    ],
)
async def test_a_reward_that_cannot_be_used_is_no_pass(fake: Bench, run: str, problem: str) -> None:
    job, result = await fake.run(verify=Verify(run=run))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.VERIFY)
    assert facts_of(result).problem == problem


async def test_a_fresh_sandbox_has_the_patch_and_the_jobs_inputs_and_nothing_else_of_the_agent(each: Bench) -> None:
    """A71: what the agent left outside its patch does not reach the verdict."""
    blob, size = each.context.blobs.add_bytes(b"ours\n"), 5
    script = """
echo changed >> README.md; rm src/a.txt; printf 'a\\000b' > binary
mkdir -p new; echo new > new/file; chmod 755 new/file
echo theirs > ../check; echo evil > ../planted; echo evil > .git/planted; git config core.fsmonitor ./run.sh
git add new; git -c user.name=x -c user.email=x commit -qm mine
"""
    verify = """
set -e; test "$(cat ../check)" = ours; test ! -e ../planted; test ! -e .git/planted; test -x new/file; test -e made
test "$(wc -c < binary)" -eq 3; grep -q changed README.md; test ! -e src/a.txt; ! git config core.fsmonitor; echo good
"""
    job, result = await each.run(
        command=script,
        inputs=(InputFile(name="check", blob=blob, size_bytes=size),),
        setup="echo made > made; echo set up",
        verify=fresh(verify),
    )
    folder = each.job_folder(job)
    assert job.outcome is Outcome.SUCCEEDED, (job.message, (folder / "verify" / "output.log").read_text())
    assert (facts_of(result).where, facts_of(result).passed) == ("fresh", True)
    assert (folder / "verify" / "setup.log").read_text() == "set up\n"
    assert (folder / "artifacts" / "planted").read_text() == "evil\n"
    assert [step.step for step in result.steps] == [
        *("creating", "provisioning", "cloning", "setup", "agent", "collecting", "destroying"),
        *("creating", "cloning", "setup", "verifying"),
    ]
    assert result.sandbox is not None
    assert not result.sandbox.name.endswith("v")


async def test_work_without_a_change_is_verified_on_the_clean_clone(fake: Bench) -> None:
    job, result = await fake.run(command="echo nothing done", verify=fresh("test -e README.md"))
    assert job.outcome is Outcome.SUCCEEDED
    assert facts_of(result).passed


async def second_sandbox(made: Bench) -> str:
    """Its name, as soon as it is being made: the first is gone, and the journal says so."""
    while True:
        match [entry.sandbox for entry in made.context.journal.entries()]:
            case [name] if name.endswith("v"):
                return name
        await asyncio.sleep(0.01)


async def test_a_patch_that_does_not_apply_has_failed_verify_and_says_so(fake: Bench) -> None:
    """A guest's own git made it, so it applies unless the guest lied: here it is spoilt where it lies on the host."""
    assert isinstance(fake.provider, FakeProvider)
    fake.provider.dials.create_seconds = 0.5

    async def spoil() -> None:
        await second_sandbox(fake)
        (patch,) = fake.home.jobs.glob("*/attempt-1/changes.patch")
        patch.write_text("--- a/gone\n+++ b/gone\n@@ -1 +1 @@\n-a\n+b\n")

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(spoil())
        task = group.create_task(fake.run(verify=fresh("true")))
    job, result = task.result()
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.VERIFY)
    assert job.message == "The patch does not apply to a clean clone: error: gone: No such file or directory"
    assert facts_of(result).exit_status is None
    assert not facts_of(result).passed


async def test_work_without_a_patch_cannot_be_verified_afresh(fake: Bench) -> None:
    script = "head -c 53000000 /dev/zero | tr '\\0' x | fold -w 1000 > big"
    job, result = await fake.run(command=script, verify=fresh("true"))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.VERIFY)
    assert job.message.startswith("There is no patch to verify on a clean clone. The patch has ")
    assert facts_of(result).problem == job.message


async def test_setup_that_fails_on_the_patched_clone_has_failed_verify(fake: Bench) -> None:
    job, _ = await fake.run(setup="test ! -e broken", command="touch broken", verify=fresh("true"))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.VERIFY)
    assert job.message.startswith("On a clean clone with the patch, the setup command exited with 1")


async def test_an_agent_out_of_time_is_verified_too(fake: Bench) -> None:
    job, result = await fake.run(command="echo x > made; sleep 60", timeout_seconds=1, verify=fresh("test -e made"))
    assert (job.outcome, job.reason) == (Outcome.TIMED_OUT, Reason.AGENT)
    assert job.message.endswith("What it left passes verify.")
    assert facts_of(result).passed


async def test_without_room_for_a_second_sandbox_there_is_none(fake: Bench) -> None:
    """I4: both at once would be more than is booked."""
    assert isinstance(fake.provider, FakeProvider)
    fake.provider.dials.destroy_fails = 3
    job, result = await fake.run(command="echo x > made", verify=fresh("true"))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.SANDBOX)
    assert "cannot be destroyed" in job.message
    assert result.verify is None
    assert result.patch is not None  # kept before


async def test_a_cancel_while_it_verifies_afresh_keeps_what_was_collected(fake: Bench) -> None:
    control = Control()
    seen: list[tuple[str, list[str]]] = []

    async def cancel_in_verify() -> None:
        name = await second_sandbox(fake)  # I5: its journal line is there before it is
        seen.append((name, list(await fake.provider.list())))
        control.interrupt(Stop.CANCELLED)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(cancel_in_verify())
        task = group.create_task(fake.run(control, command="echo x > made", verify=fresh("sleep 60")))
    job, result = task.result()
    ((name, there),) = seen
    assert name == verify_name(sandbox_name(fake.context.home_id, job.id, 1))
    assert there in ([], [name])  # I4: the first is gone before the second comes
    assert job.outcome is Outcome.CANCELLED
    assert result.patch is not None
    assert result.verify is None
