"""A machine whose process is killed, at every step of an attempt: one clear outcome, and nothing left of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Retries, Verify
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tests.vms.benches import vm_bench
from worker.attempt import closing
from worker.attempt.parts import Parts
from worker.sandboxes import host_process
from worker.sandboxes.qemu import process

pytestmark = pytest.mark.needs("git", "valkey")

RETRIED = (JobState.HELD, None, Reason.SANDBOX)
"""The class `sandbox` is tried again, later."""
DONE = (JobState.FINISHED, Outcome.SUCCEEDED, None)


async def _kill(name: str) -> None:
    """SIGKILL, as the host out of memory does it; returns when it is gone. (Whose child it is waits for it.)"""
    for found in process.unnoted(name):
        found.kill()
        while host_process.lives(found):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def _kill_when(name: str, begun: Callable[[], bool]) -> None:
    while not begun():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)
    await _kill(name)


def _is_loaded(parts: Parts) -> bool:
    with suppress(OSError, ValueError):
        return "frozen" in json.loads((parts.context.home.sandboxes / parts.name / host_process.NOTE).read_text())
    return False


Begun = Callable[[Parts], bool]
POINTS: dict[str, tuple[Step, Begun, tuple[JobState, Outcome | None, Reason | None]]] = {
    "creating, while it loads": (Step.CREATING, lambda parts: bool(process.unnoted(parts.name)), RETRIED),
    "creating, when it has loaded": (Step.CREATING, _is_loaded, RETRIED),
    "provisioning": (Step.PROVISIONING, lambda _: True, RETRIED),
    "cloning": (Step.CLONING, lambda _: True, RETRIED),
    "setup": (Step.SETUP, lambda _: True, RETRIED),
    "agent": (Step.AGENT, lambda parts: b"up" in _log(parts), RETRIED),
    "verifying": (Step.VERIFYING, lambda _: True, RETRIED),
    "collecting": (Step.COLLECTING, lambda _: True, RETRIED),
    "destroying": (Step.DESTROYING, lambda _: True, DONE),
}


def _log(parts: Parts) -> bytes:
    with suppress(OSError):
        return (parts.folder / "agent.log").read_bytes()
    return b""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Step, Begun], None]:
    """Have the machine killed in this step, as soon as what is asked for has begun."""
    real_step = Parts.step

    def arrange(wanted: Step, begun: Begun) -> None:
        @asynccontextmanager
        async def step(parts: Parts, step: Step) -> AsyncIterator[None]:
            async with real_step(parts, step):
                killing = asyncio.create_task(_kill_when(parts.name, lambda: begun(parts))) if step is wanted else None
                if killing and begun(parts):
                    await killing  # the step begins without it
                yield
            assert killing is None or killing.done()

        async def destroy(parts: Parts, outcome: Outcome | None) -> None:
            if wanted is Step.DESTROYING:
                await _kill(parts.name)
            await closing.destroy(parts, outcome)

        monkeypatch.setattr(Parts, "step", step)
        monkeypatch.setattr("worker.runner.destroy", destroy)

    return arrange


@pytest.mark.parametrize("point", POINTS)
async def test_a_machine_that_is_killed_ends_its_attempt_in_one_way_and_leaves_nothing(
    vm_homes: tuple[Home, Home], tmp_path: Path, kill_at: Callable[[Step, Begun], None], point: str
) -> None:
    """F53, F57."""
    step, begun, expected = POINTS[point]
    kill_at(step, begun)
    agent = "echo up; sleep 300" if step is Step.AGENT else "echo up; echo did > did.txt"
    with vm_bench(tmp_path, vm_homes[1]) as made:
        job, result = await made.run(
            setup="true", command=agent, verify=Verify(run="true"), retries=Retries(max=1, backoff_seconds=60)
        )
        assert (job.state, job.outcome, result.reason) == expected, result.message
        assert job.retries_used == (1 if expected is RETRIED else 0)
        assert expected is DONE or re.search("QEMU|andbox", result.message)
        lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
        assert [line for line in lines if f"tatin-{made.home.id()}" in line] == []
        assert os.listdir(made.home.sandboxes) == os.listdir(made.home.journal) == []
        assert made.context.lingering.needs() == []
        assert made.store.beats() == {}
