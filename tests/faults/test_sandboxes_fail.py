"""A provider that fails, hangs or gives no readable list: told as the sandbox's fault, retried where that is allowed,
booked until it is gone, and never guessed at. The provider is the fake one, whose dials do it; bwrap has no such faults
to give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.errors import HostBusy
from tatin_jobs.models import Retries
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.attempts import OFFER, Bench, bench
from worker import sweep
from worker.attempt import agent_step, creating, judging
from worker.recovery import recover
from worker.sandboxes.base import SandboxSpec
from worker.sandboxes.fake import Dials, FakeProvider, FakeSandbox
from worker.sandboxes.names import sandbox_name

pytestmark = pytest.mark.needs("git", "valkey")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, lambda home: FakeProvider(home.sandboxes, home.id())) as one:
        yield one


def _dials(made: Bench) -> Dials:
    assert isinstance(made.provider, FakeProvider)
    return made.provider.dials


async def test_a_create_that_hangs_is_given_up(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """F50."""
    monkeypatch.setattr(creating, "CREATE_SECONDS", 0.2)
    _dials(made).create_seconds = 600
    job, result = await made.run(retries=Retries(max=1, backoff_seconds=60))
    assert (job.state, job.retries_used) == (JobState.HELD, 1)
    assert result.reason is Reason.SANDBOX
    assert "was not made within" in result.message
    assert made.context.journal.entries() == []


async def test_a_host_that_is_busy_is_waited_for(made: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where two macOS guests run."""

    async def busy(spec: SandboxSpec) -> FakeSandbox:
        raise HostBusy("Two macOS guests run.", wait_seconds=60)

    monkeypatch.setattr(made.provider, "create", busy)
    job, _ = await made.run(retries=Retries(max=0))
    assert (job.state, job.retries_used, job.message) == (JobState.HELD, 0, "Two macOS guests run.")


async def test_a_destroy_that_hangs_holds_no_slot_and_stays_booked(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F54, I4: the attempt ends; what its sandbox takes is free only when the sweep has seen it gone."""
    monkeypatch.setattr(sweep, "DESTROY_SECONDS", 0.1)
    monkeypatch.setattr(sweep, "TRIES", 1)
    _dials(made).destroy_seconds = 600
    job, _ = await made.run()
    assert job.outcome is Outcome.SUCCEEDED
    assert [need.cpus for need in made.context.lingering.needs()] == [1]
    problem = await sweep.sweep(made.context, set)
    assert "cannot be destroyed" in problem
    full = OFFER.model_copy(update={"cpus": 1})
    made.submit(made.spec())
    assert made.store.claim("bench", full, made.context.lingering.needs(), "n1", 60) is None, "no room beside it"
    _dials(made).destroy_seconds = 0
    monkeypatch.setattr(sweep, "DESTROY_SECONDS", 60)
    assert await sweep.sweep(made.context, set) == ""
    assert made.store.claim("bench", full, made.context.lingering.needs(), "n2", 60) is not None


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_nothing_is_destroyed_or_forgotten_on_a_list_that_cannot_be_read(
    made: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """F11: the worker says so, which stops its claims, and clears up when the list is there again."""
    monkeypatch.setattr(sweep, "LIST_SECONDS", 0.1)
    _dials(made).destroy_fails = 3
    job, _ = await made.run()
    assert job.outcome is Outcome.SUCCEEDED
    _dials(made).list_fails, _dials(made).list_seconds = how == "fails", 600 if how == "hangs" else 0
    recovered = await recover(made.context, lambda _: None, lambda _: None)
    assert "cannot be read" in recovered.problem
    assert len(made.context.journal.entries()) == 1
    _dials(made).list_fails, _dials(made).list_seconds = False, 0
    assert (await recover(made.context, lambda _: None, lambda _: None)).problem == ""
    assert made.context.journal.entries() == []


async def test_a_sandbox_that_is_made_while_the_list_is_read_is_left_alone(made: Bench) -> None:
    """F11, I6: a provider may take seconds to list what it has, and attempts begin meanwhile."""
    live: set[str] = set()
    _dials(made).list_seconds = 0.2
    sweeping = asyncio.create_task(sweep.sweep(made.context, lambda: set(live)))
    await asyncio.sleep(0)
    name = sandbox_name(made.home.id(), "job-abcdefghij", 1)
    live.add(name)
    await made.provider.create(SandboxSpec(name=name, cpus=1, memory_mib=256, disk_mib=100))
    assert await sweeping == ""
    assert await made.provider.list() == [name]
    await made.provider.destroy(name)


async def test_a_sandbox_that_dies_behind_the_verdict_is_no_success(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F53, F57: success without its results is none."""
    job = made.submit(made.spec(command="echo did > did.txt; echo said"))

    async def judge(*args: object) -> object:
        verdict = await judging.judge(*args)  # type: ignore[arg-type]
        assert isinstance(made.provider, FakeProvider)
        await next(iter(made.provider.live.values())).die()
        await asyncio.sleep(0.05)
        return verdict

    monkeypatch.setattr(agent_step, "judge", judge)
    await made.attempt(made.claim())
    ended = made.store.job(job.id)
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, Reason.SANDBOX)
