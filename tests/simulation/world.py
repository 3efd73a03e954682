"""One seed: people, workers and trouble at random, the invariants looked at after every step, and an end for all."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakeredis

from tatin_jobs.errors import StoreUnavailable, TatinError, WrongState
from tatin_jobs.models import Batch, Job, JobSpec, Model, Need, Offer, Repo, Retries
from tatin_jobs.states import JobState
from tests.simulation.checks import History, View, Violated, check_claim, check_end, look, look_at_beats
from tests.simulation.clock import Clock
from tests.simulation.hosts import LEASE_SECONDS, Host, SimAttempt, SimWorker, own_loop
from tests.simulation.link import Link, connect
from worker import leases, sweep

OFFERS = [
    Offer(cpus=4, memory_mib=1000, disk_mib=10_000, slots=3),
    Offer(cpus=8, memory_mib=600, disk_mib=10_000, slots=4),
    Offer(cpus=2, memory_mib=2000, disk_mib=10_000, slots=2),
]
QUANTUM_SECONDS = 5.0
MAX_WAITING = 14
MAX_JOBS = 40
END_ROUNDS = 400
"""Rounds in which everything must come to its end once all is well; each goes on to what happens next."""


class World:
    """Everything of one seed. ``trace`` is what happened, a line a step."""

    def __init__(self, seed: int, folder: Path, trace: Callable[[str], None] = lambda _: None) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.trace = trace
        self.loop = own_loop()
        self.server = fakeredis.FakeServer()
        self.admin: Any = fakeredis.FakeRedis(server=self.server)
        self.run_number = 0
        self.people = connect(self.server, Link(), self._run_id)
        self.history = History()
        self.past_gates: set[str] = set()
        self.past_needs: set[str] = set()
        self.saved: dict[bytes, bytes] | None = None
        self.saved_jobs: set[str] = set()
        self.serial = 0
        self.highest_jump, self.lowest_jump = 0.0, -3600.0
        self.steps = 0
        self.hosts = [Host(f"h{index}", folder / f"h{index}", offer) for index, offer in enumerate(OFFERS)]

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _run_id(self) -> str:
        return f"run-{self.run_number}"

    # A run

    def run(self, steps: int) -> None:
        """``steps`` steps of trouble, then the end. Raises Violated."""
        self.people.prepare()
        for host in self.hosts:
            self._start(host)
        for _ in range(steps):
            self.steps += 1
            move = self.rng.choices(list(MOVES), weights=list(MOVES.values()))[0]
            try:
                move(self)
            except (StoreUnavailable, WrongState):
                pass
            self._check()
        self.heal()
        self.come_to_an_end()

    def _check(self) -> None:
        self.history.check(self.view(), self.hosts, self.clock.now)

    def view(self) -> View:
        return look(self.server)

    def come_to_an_end(self) -> None:
        """With everything well, each job ends, and nothing is left over."""
        for _ in range(END_ROUNDS):
            self.steps += 1
            self.advance(QUANTUM_SECONDS)
            if not any([self._work(host) for host in self.hosts]):
                self._go_on()
            if self._idle():
                break
        view = self.view()
        left = {job_id: row["state"] for job_id, row in view.jobs.items() if row["state"] != "finished"}
        if left:
            raise Violated(f"promise 5: these never end: {left}")
        if wrong := self.people.misplaced():
            raise Violated(f"I1: misplaced at the end: {wrong}")
        for host in self.hosts:
            if host.provider.sandboxes or (host.worker and host.worker.context.lingering.names()):
                raise Violated(f"promise 3: left on {host.name}: {sorted(host.provider.sandboxes)}")

    def _idle(self) -> bool:
        states = {row["state"] for row in self.view().jobs.values()}
        busy = any(host.provider.sandboxes or (host.worker and host.worker.attempts) for host in self.hosts)
        return states <= {"finished"} and not busy

    def _go_on(self) -> None:
        """To what happens next by itself: a lease is over, or a time comes. Leases are not skipped: a reaper that
        was not looking begins anew."""
        view, wall = self.view(), self.clock.wall_ms()
        if any(row["state"] == "running" for row in view.jobs.values()):
            self.advance(LEASE_SECONDS + 2 * QUANTUM_SECONDS)
            return
        times = [*view.gates.values(), *(row.get("held_until", "") for row in view.jobs.values())]
        waits = [int(time) / 1000 - wall / 1000 for time in times if time.isdigit() and int(time) > wall]
        self.clock.now += min(waits, default=LEASE_SECONDS)

    def _work(self, host: Host) -> bool:
        """Claim all that fits and take it to its end; whether there was anything."""
        worker = host.worker
        assert worker is not None  # all were started
        while self.poll(host):
            pass
        busy = list(worker.attempts.values())
        for attempt in busy:
            while attempt.lease.token in worker.attempts:
                self.step(worker, attempt, good=attempt.stop is None)
        self._check()
        return bool(busy)

    def step(self, worker: SimWorker, attempt: SimAttempt, *, good: bool = False) -> None:
        """One step of one attempt."""
        self.trace(f"{worker.host.name} {attempt.lease.token} {attempt.phase.name} {attempt.stop or ''}")
        before = self.view()
        worker.step(attempt, good=good)
        check_end(before, self.view(), attempt.lease.job.id, attempt.lease.token)

    def heal(self) -> None:
        """End all trouble; what people hold is released."""
        self.trace("heal")
        self.clock.jumped = max(0.0, self.clock.jumped)
        for host in self.hosts:
            host.link.cut, host.link.lost, host.provider.stuck = False, [], False
            if host.worker and (host.worker.closing or host.worker.frozen):
                self.kill(host)
            if host.worker is None:
                self._start(host)
            self.people.drain(host.name, False)
        self.people.release_queue()
        for job_id, row in self.view().jobs.items():
            if row["state"] == "held" and row["held_for"] == "person":
                self.people.release(job_id)

    # Time and workers

    def advance(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + QUANTUM_SECONDS)
            for host in self.hosts:
                if host.worker:
                    host.worker.tick()
            self.history.see_beats(look_at_beats(self.server), self.clock.now)

    def kill(self, host: Host) -> None:
        """Its worker is gone at once; what it held is nobody's."""
        self.trace(f"kill {host.name}")
        host.worker = None
        running = (row for row in self.view().jobs.values() if row["state"] == "running")
        self.history.unheld |= {row["token"] for row in running if row["worker"] == host.name}

    def _start(self, host: Host) -> None:
        store = connect(self.server, host.link, self._run_id)
        store.before_reap = self._watch_reap
        worker = SimWorker(host, store, self.clock, self.rng, self.loop.run_until_complete)
        plain = connect(self.server, host.link, self._run_id)
        object.__setattr__(worker.context, "store", plain)  # its own recovery waits for no lease
        try:
            worker.start()
        except TatinError as error:
            self.trace(f"{host.name} does not start: {error.what}")
        else:
            host.worker = worker

    def _watch_reap(self, job_id: str, seen: str) -> Callable[[bool], None]:
        """Perhaps the holder comes back between the reaper's look and its reap: then it must be refused."""
        holder = next((host for host in self.hosts if host.worker and seen.split("|")[0] in host.worker.attempts), None)
        if holder and holder.worker and self.rng.random() < 0.5:
            holder.link.cut, holder.link.lost, holder.worker.frozen = False, [], False
            holder.worker.beats.tick(self.clock.now)
        self.history.see_beats(look_at_beats(self.server), self.clock.now)

        def told(done: bool) -> None:
            if done:
                self.history.check_reap(job_id, seen, self.clock.now)

        return told

    def poll(self, host: Host) -> bool:
        """Let a worker claim; whether it got one."""
        worker = host.worker
        if worker is None or worker.frozen:
            return False
        view, wall = self.view(), self.clock.wall_ms()
        known = worker.claimer._nonce is not None
        lease = worker.poll()
        if lease is None:
            return False
        self.trace(f"{host.name} claims {lease.job.id} as {lease.token}")
        if not known:
            check_claim(view, lease.job.id, wall, past_gates=self.past_gates, past_needs=self.past_needs)
        self.past_gates.discard(lease.job.id)
        return True

    def any_host(self) -> Host:
        return self.rng.choice(self.hosts)

    def any_job(self) -> str | None:
        ids = sorted(self.history.submitted)
        return self.rng.choice(ids) if ids else None


# What happens


def submit(world: World) -> None:
    """One to three jobs; the later may need the earlier. Perhaps the reply is lost, and it is sent again."""
    waiting = [row for row in world.view().jobs.values() if row["state"] != "finished"]
    if len(waiting) >= MAX_WAITING or len(world.history.submitted) >= MAX_JOBS:
        return
    rng, now = world.rng, datetime.fromtimestamp(world.clock.wall(), UTC)
    world.serial += 1
    batch = f"b-{world.serial}"
    jobs: list[Job] = []
    for index in range(rng.randint(1, 3)):
        needs = tuple(rng.sample([job.id for job in jobs], rng.randint(0, len(jobs))))
        later = now + timedelta(seconds=rng.randint(1, 300)) if rng.random() < 0.15 else None
        model = Model(name="m", provider=rng.choice(["p", "q"])) if rng.random() < 0.6 else None
        cpus = rng.choice([1, 1, 2, 3, 4, 8])
        spec = JobSpec(
            name="job",
            repo=Repo(url="https://example.invalid/app.git"),
            tool="command",
            command="true",
            model=model,
            account=rng.choice(["a", "b"]) if model else None,
            priority=rng.randint(-1, 1),
            retries=Retries(max=rng.randint(0, 2)),
            deadline=now + timedelta(seconds=rng.randint(30, 900)) if rng.random() < 0.15 else None,
        )
        held = bool(needs or later or rng.random() < 0.05)
        jobs.append(
            Job(
                id=f"job-{world.serial}x{index}",
                batch=batch,
                spec=spec,
                need=Need(cpus=cpus, memory_mib=100 * cpus if cpus < 8 else 100, disk_mib=10, cpus_wish=cpus == 8),
                state=JobState.HELD if held else JobState.QUEUED,
                held_until=later,
                needs=needs,
                created_at=now,
            )
        )
    body = Batch(id=batch, created_at=now, jobs=tuple(job.id for job in jobs))
    world.trace(f"submit {', '.join(body.jobs)}")
    link: Link = world.people._client.link  # type: ignore[attr-defined]
    link.lost = [True] if rng.random() < 0.2 else []
    world.people.submit(body, jobs)
    world.history.submitted |= set(body.jobs)


def person(world: World) -> None:
    job_id, move = world.any_job(), world.rng.choice(["cancel", "hold", "release", "release"])
    if job_id is None:
        return
    world.trace(f"{move} {job_id}")
    row = world.view().jobs[job_id]
    getattr(world.people, move)(job_id)
    if move == "release" and row["state"] == "queued":
        world.past_gates.add(job_id)
    elif move == "release" and row["held_for"] in ("time", "needs"):
        world.past_needs.add(job_id)


def whole_queue(world: World) -> None:
    if world.rng.random() < 0.4:
        world.people.hold_queue()
    else:
        world.people.release_queue()


def claim(world: World) -> None:
    host = world.any_host()
    for _ in range(world.rng.randint(1, 3)):
        world.poll(host)


def work(world: World) -> None:
    worker = world.any_host().worker
    if worker and not worker.frozen and worker.attempts:
        attempt = world.rng.choice(list(worker.attempts.values()))
        for _ in range(world.rng.randint(1, 4)):
            if attempt.lease.token in worker.attempts:
                world.step(worker, attempt)


def wait(world: World) -> None:
    world.advance(world.rng.choice([1, 5, 20, 60, 200]))


def kill(world: World) -> None:
    world.kill(world.any_host())


def mend(world: World) -> None:
    """One host is well again."""
    host = world.any_host()
    world.trace(f"mend {host.name}")
    host.link.cut, host.link.lost, host.provider.stuck = False, [], False
    world.people.drain(host.name, False)
    if world.rng.random() < 0.3:
        world.people.release_queue()
    if host.worker and host.worker.closing:
        world.kill(host)
    if host.worker is None:
        world._start(host)
    else:
        host.worker.frozen = False


def freeze(world: World) -> None:
    if worker := world.any_host().worker:
        worker.frozen = True
        world.trace(f"freeze {worker.host.name}")


def cut(world: World) -> None:
    host = world.any_host()
    host.link.cut = True
    world.trace(f"cut {host.name}")


def away_and_back(world: World) -> None:
    """F05, F34: a host is away for longer than a lease, others take its jobs, and it goes on where it stood."""
    host = world.any_host()
    worker = host.worker
    if worker is None:
        return
    world.trace(f"{host.name} is away")
    worker.frozen = host.link.cut = True
    world.advance(world.rng.choice([30, 90, 150]))
    for other in world.hosts:
        while world.poll(other):
            pass
    worker.frozen = host.link.cut = False
    world.trace(f"{host.name} is back")
    for attempt in list(worker.attempts.values()):
        for _ in range(world.rng.randint(2, 8)):
            if attempt.lease.token in worker.attempts:
                world.step(worker, attempt)


def lose(world: World) -> None:
    world.any_host().link.lost = [world.rng.random() < 0.7 for _ in range(world.rng.choice([1, 3, 6]))]


def jump(world: World) -> None:
    world.clock.jumped = max(world.lowest_jump, world.rng.choice([-3600.0, 0.0, 3600.0]))
    world.highest_jump = max(world.highest_jump, world.clock.jumped)
    world.trace(f"the store's clock jumps by {world.clock.jumped:g}")


def forget_scripts(world: World) -> None:
    world.admin.script_flush()


def restart_store(world: World) -> None:
    world.run_number += 1


def save(world: World) -> None:
    world.saved = {key: world.admin.dump(key) for key in world.admin.keys("*")}
    world.saved_jobs = set(world.history.submitted)


def restore(world: World) -> None:
    """An older copy comes back: what was submitted since is gone, what ended since may run again. Not with a clock that
    was set back: then a number may come again that only a dead worker had seen."""
    if world.saved is None or world.clock.jumped < world.highest_jump:
        return
    world.trace("restore")
    world.lowest_jump = world.highest_jump
    world.clock.now += 1  # it takes longer than the claims of a millisecond
    world.admin.flushall()
    for key, value in world.saved.items():
        world.admin.restore(key, 0, value)
    world.run_number += 1
    history, view = world.history, world.view()
    history.submitted = set(world.saved_jobs)
    history.ends = {
        job_id: end for job_id, end in history.ends.items() if view.jobs.get(job_id, {}).get("state") == "finished"
    }
    history.unheld |= {row["token"] for row in view.jobs.values() if row["state"] == "running"}


def drain(world: World) -> None:
    host = world.any_host()
    world.people.drain(host.name, world.rng.random() < 0.5)
    if host.worker and world.rng.random() < 0.3:
        host.worker.closing = True
        host.worker.claimer.close()


def stick(world: World) -> None:
    provider = world.any_host().provider
    provider.stuck = True


MOVES: dict[Callable[[World], None], float] = {
    submit: 10,
    person: 4,
    whole_queue: 0.7,
    claim: 22,
    work: 40,
    wait: 8,
    away_and_back: 5,
    kill: 2,
    freeze: 1,
    cut: 1.5,
    mend: 9,
    lose: 6,
    jump: 1.5,
    forget_scripts: 0.5,
    restart_store: 1,
    save: 0.5,
    restore: 0.5,
    drain: 1,
    stick: 2,
}


@contextmanager
def _virtual(world: World, seed: int) -> Iterator[None]:
    """Time, chance and pauses of everything that runs in this world."""
    numbers = random.Random(f"hex {seed}")
    chance = random.Random(f"jitter {seed}")

    def token_hex(size: int | None = None) -> str:
        return "".join(numbers.choice("0123456789abcdef") for _ in range(2 * (size or 16)))

    with ExitStack() as stack:
        stack.enter_context(patch.object(time, "time", world.clock.wall))
        stack.enter_context(patch.object(secrets, "token_hex", token_hex))
        stack.enter_context(patch.object(random, "uniform", chance.uniform))
        stack.enter_context(patch.object(leases, "TROUBLE_SECONDS", 0.0))
        stack.enter_context(patch.object(sweep, "TRIES", 1))
        stack.enter_context(patch.object(asyncio, "sleep", _no_sleep))
        yield


async def _no_sleep(_: float) -> None:
    return


def run_seed(seed: int, steps: int, trace: Callable[[str], None] = lambda _: None) -> int:
    """Run one seed in a folder of its own; how many steps it took. Raises Violated."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="tatin-simulation-", dir=shared if shared.is_dir() else None))
    world = World(seed, folder, trace)
    try:
        with _virtual(world, seed):
            world.run(steps)
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)
    return world.steps
