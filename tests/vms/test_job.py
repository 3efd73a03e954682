"""Acceptance: one real job through the queue in a virtual machine, with the real OpenCode of its image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tests.support.attempts import make_repository
from tests.support.parts import CI_IMAGE
from worker.sandboxes.qemu import process

pytestmark = [pytest.mark.needs("git", "valkey"), pytest.mark.timeout(900)]


@pytest.fixture
def model_address() -> Iterator[str]:
    argv = [sys.executable, "-m", "tatin_jobs.demo.modelserver", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.kill()


def test_a_real_job_runs_in_a_machine_of_its_own_and_leaves_nothing(
    vm_homes: tuple[Home, Home], model_address: str, tmp_path: Path
) -> None:
    """tatin run: queue, worker, a copy of the frozen state, model route, patch, verdict."""
    home = vm_homes[1]
    home.settings_file.write_text(f'[models.demo]\nbase_url = "{model_address}"\n')
    make_repository(tmp_path / "repo")
    job = tmp_path / "job.yaml"
    job.write_text(
        f"""
repo: {{path: repo}}
tool: opencode
model: {{name: hello, provider: demo}}
prompt: Write hello.txt.
sandbox: qemu
image: {CI_IMAGE}
resources: {{cpus: 2, memory: 1536MiB, disk: 4GB}}
setup: sudo -n true && test "$(id -un)" = agent
verify: grep -q hello hello.txt
timeout: 10m
idle_timeout: 8m
"""
    )
    env = {**os.environ, "TATIN_HOME": str(home.root), "TATIN_SANDBOX": "qemu", "TATIN_DISK_FLOOR": "1000"}
    argv = [sys.executable, "-m", "tatin_jobs.cli", "run", str(job)]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = home.jobs.glob("*/attempt-1")
    result = json.loads((folder / "result.json").read_text())
    assert (result["outcome"], result["accepted"]) == ("succeeded", True)
    sandbox = result["sandbox"]
    assert (sandbox["kind"], sandbox["separate_kernel"], sandbox["sudo"]) == ("qemu", True, True)
    assert sandbox["image"].startswith(f"{CI_IMAGE}@")
    assert b"hello.txt" in (folder / "changes.patch").read_bytes()
    assert result["agent"]["version"]
    assert os.listdir(home.sandboxes) == []
    assert os.listdir(home.journal) == []
    assert process.unnoted(sandbox["name"]) == []
