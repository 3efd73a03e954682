"""Whole jobs under kills: ``python -m benchmarks.chaos [--jobs 500 --workers 3 --kills 25 --freezes 10 --redis-kills 5
--seed 1]``.

Real workers (one process and one home each) run jobs in bwrap sandboxes over a real Redis or Valkey, each through a
proxy that loses some replies. Workers are killed and frozen, the server is killed, jobs are cancelled, as the seed
says. Then the history of every job is checked: none lost, none accepted twice, no sandbox left, no host over its
capacity, every end the one that the job was made for. The seed fixes the plan; the timing is the machine's.

Prints one JSON object; ends with 1 when something is wrong, and then keeps the folder and names it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tatin_jobs.errors import StoreUnavailable, TatinError
from tatin_jobs.models import Batch, Job, JobEvent, JobSpec, Need, Verify
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.store import Store, connect
from tests.faults.harness.fleet import Fleet, fleet, problems
from tests.faults.harness.hosts import Host
from tests.faults.harness.proxy import proxy
from tests.faults.harness.servers import FSYNC, KINDS
from worker.sandboxes.names import parse_sandbox_name

LEASE_SECONDS = 3.0
SLOTS = CPUS = 4
LOST_REPLIES = 0.01
MAX_DEATHS = 20
"""No job of this run is given up: each was made to end in its own way."""
SAMPLE_SECONDS = 0.05
LATE_SECONDS = 900.0
"""After so long without a finished job the run is given up."""

Expected = tuple[Outcome, Reason | None]


@dataclass
class Plan:
    """What is to happen."""

    jobs: int = 500
    workers: int = 3
    kills: int = 25
    freezes: int = 10
    redis_kills: int = 5
    seed: int = 1


@dataclass
class Ways:
    """How jobs are made to end, and the words for it."""

    random: random.Random
    made: Fleet

    def spec(self) -> tuple[JobSpec, Expected]:
        """One job, and how it must end."""
        draw, seconds = self.random.random(), round(self.random.uniform(0.1, 2), 2)
        work = f"echo up; sleep {seconds}; echo $TATIN_ATTEMPT > attempt.txt"
        if draw < 0.76:
            return self.made.spec(work), (Outcome.SUCCEEDED, None)
        if draw < 0.84:
            return self.made.spec(f"{work}; exit 3"), (Outcome.FAILED, Reason.AGENT)
        if draw < 0.92:
            return self.made.spec(work, verify=Verify(run="exit 1")), (Outcome.FAILED, Reason.VERIFY)
        return self.made.spec("echo up; sleep 600", timeout_seconds=1), (Outcome.TIMED_OUT, Reason.AGENT)


@dataclass
class Watch:
    """Looks at every host all the time: what lies in its sandboxes' folder is never more than it has."""

    hosts: list[Host]
    needs: dict[str, Need]
    """Short id of a job -> what it takes."""
    over: list[str] = field(default_factory=list)
    samples: int = 0
    most: int = 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look until the context is left."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(SAMPLE_SECONDS):
                for host in self.hosts:
                    self._sample(host)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, host: Host) -> None:
        names = host.sandboxes()
        owners = [owner for owner in map(parse_sandbox_name, names) if owner]
        cpus = sum(self.needs[owner.short_id].cpus for owner in owners)
        self.samples += 1
        self.most = max(self.most, cpus)
        if cpus > host.cpus or len(names) > host.slots:
            self.over.append(f"{host.name}: {cpus} CPUs in {len(names)} sandboxes: {names}")


@dataclass
class Kill:
    """A worker's death: which, when (wall clock), and when it was started again."""

    host: str
    at: float


class Chaos:
    """One run."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self._root = root
        self._random = random.Random(plan.seed)
        self._kind = KINDS[plan.seed % 2]
        self._fsync = FSYNC[plan.seed // 2 % 2]
        self._expected: dict[str, Expected] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._kills: list[Kill] = []
        self._busy: set[str] = set()
        """Hosts that are dead or frozen at present, and ``redis``."""
        self._links: list[Any] = []

    def run(self) -> dict[str, Any]:
        """All of it; the figures."""
        began = time.monotonic()
        with ExitStack() as stack:
            self._made = stack.enter_context(fleet(self._root, self._kind, self._fsync))
            for number in range(self._plan.workers):
                link = stack.enter_context(proxy(self._made.server.port, self._plan.seed * 100 + number))
                link.cut_replies = LOST_REPLIES
                self._links.append(link)
                self._made.host(f"h{number}", url=link.url, slots=SLOTS, cpus=CPUS, **_SETTINGS)
            far = Store(connect(self._links[0].url))
            jobs = self._jobs()
            watch = Watch(self._made.hosts, {job.id.rsplit("-", 1)[1]: job.need for job in jobs})
            with watch.looking():
                self._go(far, jobs)
                self._settle()
            figures = self._figures(jobs, watch)
            far.close()
        return {**figures, "seconds": round(time.monotonic() - began)}

    def _jobs(self) -> list[Job]:
        ways = Ways(self._random, self._made)
        jobs = []
        for _ in range(self._plan.jobs):
            spec, expected = ways.spec()
            need = Need(cpus=self._random.choice([1, 1, 1, 2, 3]), memory_mib=256, disk_mib=100)
            (job,) = self._made.jobs(spec, need=need)
            self._expected[job.id] = expected
            jobs.append(job)
        return jobs

    # While it runs

    def _go(self, far: Store, jobs: list[Job]) -> None:
        """Submit, disturb, cancel, until every job is finished."""
        plan = self._plan
        actions = ["kill"] * plan.kills + ["freeze"] * plan.freezes + ["redis"] * plan.redis_kills
        actions += ["cancel"] * (plan.jobs // 25)
        self._random.shuffle(actions)
        waiting, done, moved = list(jobs), 0, time.monotonic()
        while done < len(jobs):
            self._run_due()
            while waiting and len(jobs) - len(waiting) - done < 60:
                if not _submit(far, waiting[-1]):
                    break
                waiting.pop()
            count = self._finished()
            if count > done:
                done, moved = count, time.monotonic()
            if actions and done >= len(jobs) * 0.9 * self._share(actions) and self._act(actions[-1], jobs):
                actions.pop()
            if time.monotonic() - moved > LATE_SECONDS:
                return
            time.sleep(self._random.uniform(0.02, 0.1))

    def _share(self, actions: list[str]) -> float:
        """How far through its list of actions the run is."""
        plan = self._plan
        total = plan.kills + plan.freezes + plan.redis_kills + plan.jobs // 25
        return 1 - len(actions) / total

    def _finished(self) -> int:
        try:
            return self._made.store.counts()[JobState.FINISHED]
        except StoreUnavailable:
            return 0

    def _act(self, action: str, jobs: list[Job]) -> bool:
        """Do it; False when there is nobody to do it to just now."""
        if action == "redis":
            return self._kill_redis()
        if action == "cancel":
            return any(self._cancel(job) for job in self._random.sample(jobs, len(jobs) // 2 + 1))
        free = [host for host in self._made.hosts if host.name not in self._busy]
        if not free:
            return False
        host = self._random.choice(free)
        self._busy.add(host.name)
        if action == "kill":
            host.kill()
            self._kills.append(Kill(host.name, time.time()))
            self._later(self._random.uniform(0, 2) * LEASE_SECONDS, lambda: self._back(host, host.start))
        else:
            host.freeze()
            self._later(self._random.uniform(0.5, 3) * LEASE_SECONDS, lambda: self._back(host, host.thaw))
        return True

    def _back(self, host: Host, how: Callable[[], None]) -> None:
        how()
        self._busy.discard(host.name)

    def _kill_redis(self) -> bool:
        if "redis" in self._busy:
            return False
        self._busy.add("redis")
        self._made.server.kill()

        def again() -> None:
            self._made.server.start()
            self._busy.discard("redis")

        self._later(self._random.uniform(0, 2) * LEASE_SECONDS, again)
        return True

    def _cancel(self, job: Job) -> bool:
        """A cancel that was accepted holds, however far the job is."""
        try:
            self._made.store.cancel(job.id)
        except TatinError:
            return False  # finished, or not submitted yet, or nobody answers
        self._expected[job.id] = (Outcome.CANCELLED, None)
        return True

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, what))

    def _run_due(self, everything: bool = False) -> None:
        now = time.monotonic()
        for due in [one for one in self._due if everything or one[0] <= now]:
            self._due.remove(due)
            due[1]()

    def _settle(self) -> None:
        """Every host back, every leftover cleared away by its own worker, and the workers stopped in order."""
        self._run_due(everything=True)
        for host in self._made.hosts:
            if not host.runs():
                host.start()
        deadline = time.monotonic() + 60
        while not all(host.is_clean() for host in self._made.hosts) and time.monotonic() < deadline:
            time.sleep(0.1)
        for host in self._made.hosts:
            host.stop()

    # What came of it

    def _figures(self, jobs: list[Job], watch: Watch) -> dict[str, Any]:
        store, hosts = self._made.store, self._made.hosts
        ids = [job.id for job in jobs]
        records = store.jobs(ids)
        found = problems(store, hosts, ids)
        wrong = [
            f"{job.id} ended as {job.outcome} {job.reason or ''} ({job.message}), made for {self._expected[job.id]}"
            for job in records
            if job.state is JobState.FINISHED and (job.outcome, job.reason) != self._expected[job.id]
        ]
        wrong += [text for job in records if (text := _wrong_patch(job, hosts))]
        orphans = [f"{host.name}: {what}" for host in hosts for what in _left(host)]
        orphans += [f"misplaced: {job_id}" for job_id in store.misplaced()]
        orphans += [f"leased: {job_id}" for job_id in store.beats()]
        plan = self._plan
        return {
            "seed": plan.seed,
            "server": f"{self._kind}, appendfsync {self._fsync}",
            "jobs": len(jobs),
            "workers": plan.workers,
            "kills": len(self._kills),
            "freezes": plan.freezes,
            "redis_kills": plan.redis_kills,
            "replies_lost": sum(link.lost for link in self._links),
            "lost": sum("is lost" in text for text in found),
            "accepted_twice": sum("is lost" not in text for text in found),
            "wrong_ends": len(wrong),
            "orphans": len(orphans),
            "over_capacity": len(watch.over),
            "samples_of_capacity": watch.samples,
            "most_cpus_at_once": watch.most,
            "attempts": sum(job.attempt for job in records),
            "deaths": sum(job.deaths for job in records),
            "ends": dict(Counter(f"{job.outcome}" for job in records)),
            "longest_from_death_to_queued_again": self._longest(store, records, ("reap", "claim", "finish")),
            "longest_from_death_to_running_again": self._longest(store, records, ("claim", "finish")),
            "problems": [*found, *wrong, *orphans, *watch.over][:50],
        }

    def _longest(self, store: Store, jobs: list[Job], moves: Sequence[str]) -> dict[str, float]:
        """From a worker's death to the next such move of a job that it ran (``finish``: its result lay ready): the
        longest, the CPUs of that job, and the longest of a job of one CPU."""
        found = [(0.0, 0)]
        for job in jobs:
            events = store.events(job.id)
            times = [_again_after(events, kill, moves) for kill in self._kills]
            found += [
                (again - kill.at, job.need.cpus)
                for again, kill in zip(times, self._kills, strict=True)
                if again is not None
            ]
        seconds, cpus = max(found)
        small = max(waited for waited, wanted in found if wanted < 2)
        return {"seconds": round(seconds, 1), "cpus": cpus, "seconds_of_one_cpu": round(small, 1)}


_SETTINGS: dict[str, Any] = {
    "max_deaths": MAX_DEATHS,
    "environment": {
        "TATIN_LEASE_SECONDS": str(LEASE_SECONDS),
        "TATIN_BEAT_SECONDS": "0.5",
        "TATIN_REAP_SECONDS": "0.5",
    },
}


def _again_after(events: list[JobEvent], kill: Kill, moves: Sequence[str]) -> float | None:
    """When a job that this death stopped went on; None when the dead worker did not run it."""
    holder = ""
    for event in events:
        at = event.at.timestamp()
        if at <= kill.at:
            if event.move == "claim":
                holder = event.detail
            elif event.move in ("finish", "requeue", "reap"):
                holder = ""
        elif holder != kill.host:
            return None
        elif event.move in moves:
            return at
    return None


def _submit(store: Store, job: Job) -> bool:
    try:
        store.submit(Batch(id=job.batch, created_at=job.created_at, jobs=(job.id,)), [job])
    except StoreUnavailable:
        return False  # it may be there: it is asked again with the same ids
    return True


def _wrong_patch(job: Job, hosts: list[Host]) -> str:
    """A job that succeeded has the patch of the attempt that counts."""
    if job.outcome is not Outcome.SUCCEEDED:
        return ""
    folder = next(host for host in hosts if host.name == job.worker).home.attempt(job.id, job.attempt)
    patch = folder / "changes.patch"
    if patch.exists() and f"+{job.attempt}\n" in patch.read_text():
        return ""
    return f"{job.id} succeeded without the patch of its attempt {job.attempt}"


def _left(host: Host) -> list[str]:
    journal = [path.name for path in host.home.journal.iterdir()]
    return [*host.sandboxes(), *journal, *(f"process {guest.pid}" for guest in host.guests())]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    for name, value in vars(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    plan = Plan(**vars(parser.parse_args()))
    root = Path(tempfile.mkdtemp(prefix="tatin-chaos-"))
    figures = Chaos(plan, root).run()
    print(json.dumps(figures, indent=2))
    if figures["problems"]:
        print(f"something is wrong; everything of this run lies in {root}", file=sys.stderr)
        return 1
    shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
