"""What a worker holds: ``python -m benchmarks.memory``.

Resident memory of the worker's own process, without its guests: with one job running, with sixteen, and how it grows
while an agent prints a gigabyte, or one line of 500 MB.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.batch import make_repository, worker
from benchmarks.latency import submit
from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import pack_local_repo
from tatin_jobs.models import Job, Repo
from tatin_jobs.settings import load_settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store, open_store

PRINTED_BYTES = 10**9
FLOOD = ("sh", "-c", f"yes 'a line that an agent prints, over and over, as fast as it can' | head -c {PRINTED_BYTES}")
LONG_LINE = ("sh", "-c", "head -c 500000000 /dev/zero | tr '\\0' 'x'; echo; echo end")


def resident_mib(process: psutil.Process) -> float:
    """What the process holds now."""
    return float(process.memory_info().rss) / 2**20


def wait_all(store: Store, jobs: list[Job], state: JobState, step: str | None = None) -> None:
    """Until all are there."""
    while any(job.state is not state or (step and job.step != step) for job in store.jobs(job.id for job in jobs)):
        time.sleep(0.05)


def held_with(store: Store, process: psutil.Process, repo: Repo, count: int) -> float:
    """The worker's memory while ``count`` quiet agents run."""
    jobs = [submit(store, repo, ("sh", "-c", "echo up; sleep 600")) for _ in range(count)]
    wait_all(store, jobs, JobState.RUNNING, "agent")
    time.sleep(2)
    held = resident_mib(process)
    for job in jobs:
        store.cancel(job.id)
    wait_all(store, jobs, JobState.FINISHED)
    return held


def growth(store: Store, process: psutil.Process, repo: Repo, command: tuple[str, ...]) -> tuple[float, float]:
    """(how much more the worker held at most while this agent ran, seconds it took)."""
    before = most = resident_mib(process)
    started = time.perf_counter()
    job = submit(store, repo, command)
    while store.job(job.id).state is not JobState.FINISHED:
        most = max(most, resident_mib(process))
        time.sleep(0.02)
    ended = store.job(job.id)
    assert ended.outcome is not None
    return most - before, time.perf_counter() - started


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="tatin-bench-") as folder:
        home = Home(Path(folder) / "home")
        home.prepare()
        packed = pack_local_repo(make_repository(Path(folder) / "repo"), None, Blobs(home.blobs))
        repo = Repo(blob=packed.blob, commit=packed.commit, path="repo")
        settings = load_settings({"TATIN_HOME": str(home.root)}, {"cpus": 16, "slots": 16, "memory_mib": 16 * 512})
        with open_store(settings, home) as store, worker(settings) as running:
            process = psutil.Process(running.pid)
            held_with(store, process, repo, 1)
            idle = resident_mib(process)
            one = held_with(store, process, repo, 1)
            sixteen = held_with(store, process, repo, 16)
            flood, flood_seconds = growth(store, process, repo, FLOOD)
            long_line, long_seconds = growth(store, process, repo, LONG_LINE)
        print(f"{os.cpu_count()} CPUs; resident memory of the worker's process")
        print(f"  idle                                {idle:7.1f} MiB")
        print(f"  with 1 job                          {one:7.1f} MiB")
        print(f"  with 16 jobs                        {sixteen:7.1f} MiB")
        print(f"  more while an agent prints 1 GB     {flood:7.1f} MiB   ({flood_seconds:.1f} s)")
        print(f"  more at a line of 500 MB            {long_line:7.1f} MiB   ({long_seconds:.1f} s)")


if __name__ == "__main__":
    main()
