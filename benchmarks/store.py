"""What the store costs: claims at 100 and 100,000 queued, bulk submit, memory a job. ``python -m benchmarks.store``.

Everything runs against an embedded Valkey of its own, started as Tatin starts it. Times are ratios to a bare round trip
(PING over the same connection) in the same run, so that they say something on another machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

import redis

from tatin_jobs import names
from tatin_jobs.embedded import embedded_server
from tatin_jobs.home import Home
from tatin_jobs.models import Batch, Job, JobSpec, Need, Offer, Repo
from tatin_jobs.states import JobState
from tatin_jobs.store import Store

OFFER = Offer(cpus=64, memory_mib=262_144, disk_mib=2_000_000, slots=64)
LINES = 20
"""Need classes that the jobs are spread over."""
BATCH = 500
ROUNDS = 1000
LEASE_SECONDS = 60.0
PROMPT = "Make the test suite stable. " * 8


@contextmanager
def fresh_store() -> Iterator[tuple[Store, redis.Redis]]:
    """An empty store on a server of its own, and its connection."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.prepare()
        with embedded_server(home) as path:
            client = redis.Redis(unix_socket_path=str(path), decode_responses=False)
            store = Store(client)
            store.prepare()
            try:
                yield store, client
            finally:
                store.close()


def make_jobs(count: int, batch: str) -> list[Job]:
    """Jobs such as people submit, of several need classes."""
    spec = JobSpec(
        name="bench",
        repo=Repo(url="https://example.invalid/app.git", ref="main"),
        tool="command",
        command="true",
        prompt=PROMPT,
    )
    return [
        Job(
            id=names.job_id("bench"),
            batch=batch,
            spec=spec,
            need=Need(cpus=1 + index % LINES // 4, memory_mib=1024 * (1 + index % 4), disk_mib=1000),
            state=JobState.QUEUED,
            created_at=datetime.now(UTC),
        )
        for index in range(count)
    ]


def fill(store: Store, count: int) -> float:
    """Submit ``count`` jobs in batches; the seconds that the store took."""
    seconds = 0.0
    for start in range(0, count, BATCH):
        batch_id = names.batch_id()
        jobs = make_jobs(min(BATCH, count - start), batch_id)
        batch = Batch(id=batch_id, created_at=datetime.now(UTC), jobs=tuple(job.id for job in jobs))
        began = time.perf_counter()
        store.submit(batch, jobs)
        seconds += time.perf_counter() - began
    return seconds


def timed(call: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def claims(store: Store) -> list[float]:
    """Seconds of each claim; what was claimed goes back to its place in between, so the queue keeps its length."""
    found = []
    for index in range(ROUNDS):
        began = time.perf_counter()
        lease = store.claim("bench", OFFER, [], f"n{index}", LEASE_SECONDS)
        found.append(time.perf_counter() - began)
        assert lease is not None
        store.requeue(lease, message="", delay_seconds=0, counted=False)
    return found


def line(what: str, seconds: list[float], bare: list[float]) -> str:
    """One row: p50 and p99 in ms, and both as multiples of the bare round trip's p50."""
    middle, high = _percentiles(seconds)
    unit = _percentiles(bare)[0]
    return f"{what:<28}{middle * 1e3:>9.3f}{high * 1e3:>9.3f}{middle / unit:>11.1f}{high / unit:>9.1f}"


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    cuts = quantiles(seconds, n=100)
    return cuts[49], cuts[98]


def main() -> None:
    """Measure and print."""
    with fresh_store() as (store, client):
        timed(client.ping)
        bare = timed(client.ping)
        rows = [line("bare round trip (PING)", bare, bare)]
        empty = int(client.info("memory")["used_memory"])
        submit_seconds = 0.0
        queued = 0
        medians = []
        for wanted in (100, 100_000):
            submit_seconds += fill(store, wanted - queued)
            queued = wanted
            used = int(client.info("memory")["used_memory"])
            claims(store)
            found = claims(store)
            medians.append(_percentiles(found))
            rows.append(line(f"claim, {queued:,} queued", found, bare))
    print(f"{'':<28}{'p50 ms':>9}{'p99 ms':>9}{'p50 ratio':>11}{'p99':>9}")
    print("\n".join(rows))
    few, many = medians
    print(f"\nat 100,000 over at 100          p50 {many[0] / few[0]:.2f}, p99 {many[1] / few[1]:.2f} (aim: 2 at most)")
    print(f"submit in batches of {BATCH}    {queued / submit_seconds:,.0f} jobs/s")
    print(f"memory a job                {(used - empty) / queued:,.0f} bytes, with a prompt of {len(PROMPT)} bytes")


if __name__ == "__main__":
    main()
