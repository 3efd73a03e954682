"""How well a night is packed: ``python -m benchmarks.night [--seed N]``. Virtual time, the real claim.

Five hundred jobs of 1 to 8 CPUs on three hosts; and an 8-CPU job that comes while a stream of 1-CPU jobs keeps every
host full (F45). What is measured is the makespan over its lower bound, and how long big jobs wait. Hosts ask as workers
do: when something ends or comes, and else every 15 seconds (in earnest: every second).
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from unittest.mock import patch

import fakeredis

from tatin_jobs import names
from tatin_jobs.models import Batch, Job, JobSpec, Lease, Need, Offer, Repo
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store
from tatin_jobs.store.leasing import RESERVE_AFTER_SECONDS

HOSTS = {
    name: Offer(cpus=cpus, memory_mib=10**6, disk_mib=10**6, slots=64) for name, cpus in (("a", 8), ("b", 8), ("c", 12))
}
JOBS = 500
POLL_SECONDS = 15.0
EVERY_SECONDS = 26.0
"""A small job comes: a little more than the 28 CPUs of all hosts can do."""
BASE = 1_790_000_000.0
BIG = 8


@dataclass
class Night:
    """One store, three hosts, a clock that goes from event to event."""

    seed: int
    now: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """Job -> how long it runs."""
    came: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.store = Store(fakeredis.FakeRedis())
        self.store.prepare()
        self.nonces = count()
        self.events: list[tuple[float, int, Lease | Job | None]] = []
        self.order = count()

    def at(self, when: float, what: Lease | Job | None) -> None:
        heapq.heappush(self.events, (when, next(self.order), what))

    def job(self, cpus: int, seconds: float) -> Job:
        """A job that runs so long."""
        spec = JobSpec(name="job", repo=Repo(url="https://example.invalid/a.git"), tool="command", command="true")
        made = Job(
            id=names.job_id(f"c{cpus}"),
            batch="b-night",
            spec=spec,
            need=Need(cpus=cpus, memory_mib=1, disk_mib=1),
            state=JobState.QUEUED,
            created_at=datetime.fromtimestamp(BASE, UTC),
        )
        self.seconds[made.id] = seconds
        return made

    def submit(self, *jobs: Job) -> None:
        """All of these now."""
        batch = names.batch_id()
        self.came |= {job.id: self.now for job in jobs}
        record = Batch(id=batch, created_at=jobs[0].created_at, jobs=tuple(job.id for job in jobs))
        self.store.submit(record, [job.model_copy(update={"batch": batch}) for job in jobs])

    def run(self, until: str | None = None) -> None:
        """To the end of all jobs, or until this one begins."""
        self.at(0.0, None)
        while self.events and (until is None or until not in self.begun):
            self.now, _, what = heapq.heappop(self.events)
            if isinstance(what, Job):
                self.submit(what)
            elif what is not None:
                self.store.finish(what, Outcome.SUCCEEDED)
                self.ended = self.now
            elif len(self.begun) < len(self.seconds):
                self.at(self.now + POLL_SECONDS, None)
            self.claim_all()

    def claim_all(self) -> None:
        """Every host takes what fits."""
        for name, offer in HOSTS.items():
            while lease := self.store.claim(name, offer, [], str(next(self.nonces)), 60):
                self.begun[lease.job.id] = self.now
                self.at(self.now + self.seconds[lease.job.id], lease)

    def waited(self, job_id: str) -> float:
        return self.begun[job_id] - self.came[job_id]


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def mixed(seed: int) -> None:
    """500 jobs, submitted at once in any order, each of 1 to 40 minutes."""
    night = Night(seed)
    with patch.object(time, "time", lambda: BASE + night.now):
        jobs = [night.job(night.rng.choice([1, 1, 2, 2, 3, 4, 6, 8]), night.rng.uniform(60, 2400)) for _ in range(JOBS)]
        night.submit(*jobs)
        night.run()
    work = sum(job.need.cpus * night.seconds[job.id] for job in jobs)
    bound = max(work / sum(offer.cpus for offer in HOSTS.values()), max(night.seconds.values()))
    big = max(_beyond_its_turn(night, jobs, job) for job in jobs if job.need.cpus == BIG)
    print(
        f"seed {seed}: makespan {minutes(night.ended)}, lower bound {minutes(bound)}, ratio {night.ended / bound:.3f};"
        f" a big job began {minutes(big)} at most after all that stood before it had begun"
    )


def _beyond_its_turn(night: Night, jobs: list[Job], job: Job) -> float:
    """How long after the last of those that stood before it in line it began."""
    before = (night.begun[other.id] for other in jobs[: jobs.index(job)])
    return max(0.0, night.begun[job.id] - max(before, default=night.begun[job.id]))


def stream(seed: int) -> None:
    """One 8-CPU job among 1-CPU jobs of 5 to 20 minutes, of which there are always more than run."""
    night = Night(seed)
    with patch.object(time, "time", lambda: BASE + night.now):
        small = [night.job(1, night.rng.uniform(300, 1200)) for _ in range(JOBS)]
        for index, job in enumerate(small):
            night.at(index * EVERY_SECONDS, job)
        big = night.job(BIG, 600)
        night.at(3600.0, big)
        night.run(until=big.id)
    before = [night.begun[job.id] for job in small if night.came.get(job.id, 3600) < 3600]
    first = night.begun[big.id] - max(3600.0, *before)
    print(
        f"seed {seed}: under small ones an {BIG}-CPU job began {minutes(night.waited(big.id))} after it came,"
        f" {minutes(first)} after it was first in line"
        f" (bound: {minutes(RESERVE_AFTER_SECONDS + 1200 + POLL_SECONDS)})"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night")
    parser.add_argument("--seed", type=int, action="append")
    for seed in parser.parse_args().seed or [1, 2, 3]:
        mixed(seed)
        stream(seed)


if __name__ == "__main__":
    main()
