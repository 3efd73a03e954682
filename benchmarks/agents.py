"""What Tatin adds to an agent's run: ``python -m benchmarks.agents [--rounds 5] [--tools claude opencode pi]``.

Each agent follows the same script (five model calls, four tool calls) against the same scripted model server: bare, in
a clone of the repository on the host with the same configuration; and as a job, from submit to the accepted result, on
a worker that idles (sandbox, clone, model route, patch, transcript, destroy). In turn, in one run; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.batch import make_repository, worker
from tatin_jobs import names
from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import PackedRepo, pack_local_repo
from tatin_jobs.models import Batch, Job, JobSpec, Model, Need, Repo
from tatin_jobs.settings import home_from, load_settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, open_store
from tatin_jobs.tools import find_tool
from worker.agents import adapter
from worker.agents.base import AgentTask, ModelRoute

PROMPT = "Task:\nWrite TOUR.md."


@contextmanager
def model_server() -> Iterator[str]:
    """The scripted server in a process of its own; its address."""
    argv = [sys.executable, "-m", "tatin_jobs.demo.modelserver", "--script", "demo"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()


def bare_seconds(tool: str, work: Path, repository: Path, address: str) -> float:
    """Wall time of a clone and the agent's own run in it."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        home, clone, prompt = Path(folder, "home"), Path(folder, "repo"), Path(folder, "prompt.txt")
        home.mkdir()
        prompt.write_text(PROMPT)
        made = adapter(tool)
        spec = JobSpec(name="bench", repo=Repo(path="."), tool=tool, prompt=PROMPT, model=Model(name="demo"))
        route = ModelRoute(address, "none", "demo", "bench", made.apis[0])
        plan = made.plan(AgentTask("bench", spec, str(prompt), str(clone), str(home), route))
        for path, data in plan.files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
        tools = [find_tool(home_from(os.environ), name).folder / "bin" for name in made.tool_packages]
        env = {**plan.env, "HOME": str(home), "PATH": ":".join([*map(str, tools), "/usr/bin", "/bin"])}
        started = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
        with prompt.open("rb") as stdin:
            subprocess.run(
                plan.argv, cwd=clone, env=env, stdin=stdin, stdout=subprocess.DEVNULL, check=True, capture_output=False
            )
        seconds = time.perf_counter() - started
        assert (clone / "TOUR.md").exists()
    return seconds


def tatin_seconds(tool: str, store: Store, packed: PackedRepo) -> float:
    """Wall time of the same as a job, from submit to the accepted result."""
    repo = Repo(blob=packed.blob, commit=packed.commit, path="repo")
    spec = JobSpec(
        name="bench",
        repo=repo,
        tool=tool,
        prompt=PROMPT,
        model=Model(name="demo", provider="bench"),
        timeout_seconds=120,
    )
    now, batch = datetime.now(UTC), names.batch_id()
    need = Need(cpus=1, memory_mib=3072, disk_mib=1000)
    job = Job(id=names.job_id("bench"), batch=batch, spec=spec, need=need, state=JobState.QUEUED, created_at=now)
    started = time.perf_counter()
    store.submit(Batch(id=batch, created_at=now, jobs=(job.id,)), [job])
    while (ended := store.job(job.id)).state is not JobState.FINISHED:
        time.sleep(0.005)
    assert ended.outcome is Outcome.SUCCEEDED, ended.message
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tools", nargs="+", default=["claude", "opencode", "pi"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tatin-bench-") as folder, model_server() as address:
        work = Path(folder)
        repository = make_repository(work / "repo")
        (repository / "README.md").write_text("# Bench\n")
        git = ["git", "-C", str(repository), "-c", "user.name=Bench", "-c", "user.email=bench@example.invalid"]
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=second"], check=True)
        home = Home(work / "home")
        home.prepare()
        home.tools.rmdir()
        home.tools.symlink_to(home_from(os.environ).tools)
        home.settings_file.write_text(f'[models.bench]\nbase_url = "{address}"\napi = "both"\n')
        settings = load_settings({"TATIN_HOME": str(home.root)}, {"cpus": 2, "slots": 1})
        packed = pack_local_repo(repository, None, Blobs(home.blobs))
        print(f"{options.rounds} rounds, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; seconds, medians")
        with open_store(settings, home) as store, worker(settings):
            for tool in options.tools:
                bare_seconds(tool, work, repository, address)  # the first of each brings its files into memory
                tatin_seconds(tool, store, packed)
                bare, ours = [], []
                for _ in range(options.rounds):
                    bare.append(bare_seconds(tool, work, repository, address))
                    ours.append(tatin_seconds(tool, store, packed))
                a, b = statistics.median(bare), statistics.median(ours)
                print(
                    f"  {tool:<9} bare {a:5.2f}  as a job {b:5.2f}  added {b - a:5.2f}  ratio {b / a:.2f}", flush=True
                )


if __name__ == "__main__":
    main()
