"""How soon: ``python -m benchmarks.latency [--jobs 40]``. Figures, each p50 and p99, in milliseconds.

- From submit to the agent's first byte in the live log, on an idle worker in a process of its own.
- From one line that the agent prints to the same line in a ``tatin logs -f`` of another process. The agent prints its
  own clock; the reader stamps each line as it reads it from the pipe. All are on this host, so on one clock.
- The same for an event of an agent: a line of OpenCode's JSON, which its adapter reads and ``logs`` shows as text.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.batch import make_repository, worker
from tatin_jobs import names
from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import pack_local_repo
from tatin_jobs.models import Batch, Job, JobSpec, Need, Repo
from tatin_jobs.settings import load_settings
from tatin_jobs.states import JobState
from tatin_jobs.store import Store, open_store
from worker.agents.base import AgentAdapter, AgentPlan, AgentReader, AgentTask
from worker.agents.opencode import OpenCodeReader

LINES = 200
EVENT_PRINTER = "benchmarks.latency:EventPrinter"
PRINTER = """
import json, time
time.sleep(2)
for _ in range({lines}):
    said = f"at {{time.time_ns()}}"
    print({printed}, flush=True)
    time.sleep(0.02)
"""
TEXT = PRINTER.format(lines=LINES, printed="said")
EVENTS = PRINTER.format(lines=LINES, printed='json.dumps({"type": "text", "part": {"text": said}})')


class EventPrinter(AgentAdapter):
    """An agent that prints what OpenCode would, with the time in it."""

    name = "event-printer"
    needs_model = False
    tool_packages = ()
    prints_events = True

    def plan(self, task: AgentTask) -> AgentPlan:
        return AgentPlan(argv=["python3", "-c", EVENTS])

    def reader(self) -> AgentReader:
        return OpenCodeReader()


def submit(store: Store, repo: Repo, command: tuple[str, ...] | None, tool: str = "command") -> Job:
    """One job as a batch of its own."""
    now, batch = datetime.now(UTC), names.batch_id()
    spec = JobSpec(name="bench", repo=repo, tool=tool, command=command, prompt="print")
    job = Job(
        id=names.job_id("bench"),
        batch=batch,
        spec=spec,
        need=Need(cpus=1, memory_mib=512, disk_mib=100),
        state=JobState.QUEUED,
        created_at=now,
    )
    store.submit(Batch(id=batch, created_at=now, jobs=(job.id,)), [job])
    return job


def first_byte_ms(store: Store, repo: Repo) -> float:
    """From submit until the first byte is in the live log."""
    started = time.perf_counter()
    job = submit(store, repo, ("echo", "first"))
    while not any(chunk.stream == "stdout" for chunk in store.read_log(job.id, block_seconds=1)):
        pass
    elapsed = (time.perf_counter() - started) * 1000
    while store.job(job.id).state is not JobState.FINISHED:
        time.sleep(0.01)
    return elapsed


def line_ms(store: Store, home: Home, job: Job) -> list[float]:
    """For each line of one job, how long it took to the reader of ``logs -f``."""
    environment = {**os.environ, "TATIN_HOME": str(home.root), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "tatin_jobs.cli", "logs", "-f", job.id]
    delays = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as reader:
        assert reader.stdout
        for line in reader.stdout:
            now = time.time_ns()
            if line.startswith(b"at "):
                delays.append((now - int(line.split()[1])) / 1e6)
    assert len(delays) == LINES, f"{len(delays)} of {LINES} lines came"
    return delays


def show(label: str, values: list[float]) -> None:
    """One line of the table."""
    cuts = statistics.quantiles(values, n=100)
    print(f"  {label:<42} p50 {cuts[49]:7.1f} ms   p99 {cuts[98]:7.1f} ms   ({len(values)} times)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tatin-bench-") as folder:
        home = Home(Path(folder) / "home")
        home.prepare()
        packed = pack_local_repo(make_repository(Path(folder) / "repo"), None, Blobs(home.blobs))
        repo = Repo(blob=packed.blob, commit=packed.commit, path="repo")
        home.settings_file.write_text(f'agent_classes = ["{EVENT_PRINTER}"]\n')
        settings = load_settings({"TATIN_HOME": str(home.root)})
        with open_store(settings, home) as store, worker(settings):
            first_byte_ms(store, repo)  # the first attempt sets things up
            first = [first_byte_ms(store, repo) for _ in range(options.jobs)]
            lines = line_ms(store, home, submit(store, repo, ("python3", "-c", TEXT)))
            events = line_ms(store, home, submit(store, repo, None, EVENT_PRINTER))
        print(f"{os.cpu_count()} CPUs, embedded store, bwrap")
        show("submit to the agent's first byte", first)
        show("a line of the agent to `logs -f`", lines)
        show("an event of the agent to `logs -f`", events)


if __name__ == "__main__":
    main()
