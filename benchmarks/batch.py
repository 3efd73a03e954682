"""A hundred small jobs against the same bare steps: ``python -m benchmarks.batch``, with ``--help`` for its numbers.

Each job clones a small repository, runs one shell command in bwrap and brings back the patch. The bare steps are git
clone, bwrap and tar, run by ``xargs -P``. Both are timed in turn, in one run, on this machine; the figure is the ratio
of the medians. Tatin's time goes from its submit to the last accepted result, with a worker that idles. What the bare
steps made is removed at the very end: ext4 without a journal would have the next round's pay for it (``spread.py``).
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tatin_jobs import names
from tatin_jobs.blobs import Blobs
from tatin_jobs.home import Home
from tatin_jobs.localrepo import pack_local_repo
from tatin_jobs.models import Batch, Job, JobSpec, Need, Repo
from tatin_jobs.settings import Settings, load_settings
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Store, open_store

COMMAND = "echo hello > new.txt"
NEED = Need(cpus=1, memory_mib=512, disk_mib=100)
LOOK_SECONDS = 0.003
"""For each job that is left, between two looks at whether all is done: a look takes a millisecond from what is
measured, and the last one is late."""
PATCH = "git add -A && git diff --cached --binary HEAD > ../changes.patch"
_BARE = """
set -e
out=$1/$3
mkdir -p "$out"
git clone --quiet "$2" "$out/repo"
bwrap --unshare-all --die-with-parent --new-session --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib \\
  --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp --bind "$out" /home/agent --chdir /home/agent/repo \\
  --setenv HOME /home/agent -- sh -c {command}
tar -C "$out" -cf "$out.tar" changes.patch
"""


def make_repository(path: Path, files: int = 30) -> Path:
    """A small repository: ``files`` text files in three folders, one commit."""
    for number in range(files):
        file = path / f"folder{number % 3}" / f"file{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"line of file {number}\n" * 50)
    git = ["git", "-C", str(path), "-c", "user.name=Bench", "-c", "user.email=bench@example.invalid"]
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=first"], check=True)
    return path


def bare_seconds(work: Path, repository: Path, jobs: int, at_once: int) -> float:
    """Wall time of the bare steps."""
    script = work / "bare.sh"
    script.write_text(_BARE.format(command=shlex.quote(f"{COMMAND} && {PATCH}")))
    out = Path(tempfile.mkdtemp(prefix="bare-", dir=work))
    started = time.perf_counter()
    subprocess.run(
        ["xargs", "-P", str(at_once), "-I", "{}", "sh", str(script), str(out), str(repository), "{}"],
        input="\n".join(str(number) for number in range(jobs)).encode(),
        check=True,
    )
    seconds = time.perf_counter() - started
    assert len(list(out.glob("*.tar"))) == jobs
    return seconds


@contextmanager
def worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of its own process, idle when this returns."""
    environment = {
        **os.environ,
        "TATIN_HOME": str(settings.home),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    program = "import os; from worker.main import run_worker; from tatin_jobs.settings import load_settings as s"
    flags = {"cpus": settings.cpus, "slots": settings.slots}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}; run_worker(s(os.environ, {flags!r}))"],
        env=environment,
        start_new_session=True,
    )
    try:
        with open_store(settings, Home(settings.home)) as store:
            while not store.workers():
                assert process.poll() is None, "the worker ended at once"
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


def submit(store: Store, home: Home, repository: Path, jobs: int, need: Need = NEED, **spec_fields: Any) -> str:
    """Pack the repository, submit one batch of jobs that need so much; its id."""
    packed = pack_local_repo(repository, None, Blobs(home.blobs))
    repo = Repo(blob=packed.blob, commit=packed.commit, path=str(repository))
    spec = JobSpec(name="bench", repo=repo, tool="command", command=COMMAND, **spec_fields)
    now, batch = datetime.now(UTC), names.batch_id()
    made = [
        Job(id=names.job_id("bench"), batch=batch, spec=spec, need=need, state=JobState.QUEUED, created_at=now)
        for _ in range(jobs)
    ]
    store.submit(Batch(id=batch, created_at=now, jobs=tuple(job.id for job in made)), made)
    return batch


def tatin_seconds(
    store: Store, home: Home, repository: Path, jobs: int, need: Need = NEED, **spec_fields: Any
) -> float:
    """Wall time of the same jobs through Tatin, from submit to the last accepted result."""
    before = store.counts()[JobState.FINISHED]
    started = time.perf_counter()
    batch = submit(store, home, repository, jobs, need, **spec_fields)
    while (left := before + jobs - store.counts()[JobState.FINISHED]) > 0:
        time.sleep(left * LOOK_SECONDS)
    seconds = time.perf_counter() - started
    ended = store.jobs(store.batch(batch).jobs)
    wrong = [job.message for job in ended if job.outcome is not Outcome.SUCCEEDED]
    assert not wrong, wrong[:3]
    assert all((home.attempt(job.id, 1) / "changes.patch").stat().st_size for job in ended)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--files", type=int, default=30, help="in the repository")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tatin-bench-") as folder:
        work = Path(folder)
        repository = make_repository(work / "repo", options.files)
        home = Home(work / "home")
        home.prepare()
        settings = load_settings({"TATIN_HOME": str(home.root)}, {"cpus": options.at_once, "slots": options.at_once})
        bare, ours = [], []
        with open_store(settings, home) as store, worker(settings):
            tatin_seconds(store, home, repository, options.at_once)  # the first attempt sets things up
            for _ in range(options.rounds):
                bare.append(bare_seconds(work, repository, options.jobs, options.at_once))
                ours.append(tatin_seconds(store, home, repository, options.jobs))
        ratio = statistics.median(ours) / statistics.median(bare)
        print(
            f"{options.jobs} jobs, {options.at_once} at a time, {options.files} files, {options.rounds} rounds, "
            f"{os.cpu_count()} CPUs"
        )
        print(f"  bare steps  {' '.join(f'{seconds:6.2f}' for seconds in bare)}  s")
        print(f"  Tatin       {' '.join(f'{seconds:6.2f}' for seconds in ours)}  s")
        print(f"  ratio of the medians  {ratio:.2f}")


if __name__ == "__main__":
    main()
