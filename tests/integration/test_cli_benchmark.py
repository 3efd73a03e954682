"""A benchmark from the command line: one file, a batch of jobs, and what the commands say of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tatin_jobs.states import Outcome, Reason
from tests.support.cli import Queue, open_queue, tatin

pytestmark = pytest.mark.needs("valkey")
FILE = """
repo: https://example.com/app.git
name: bench
matrix: {command: [./a, ./b]}
prompt: Do it
trials: 2
verify: {run: make test, in: fresh}
"""


def submitted(queue: Queue) -> str:
    """The batch."""
    (queue.home.root / "bench.yaml").write_text(FILE)
    return str(tatin(queue.home.root, "submit", "bench.yaml", "--json").json()["batch"])


def test_a_dry_run_shows_the_cells_and_submits_nothing(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(FILE)
    done = tatin(tmp_path, "submit", "--dry-run", "bench.yaml")
    assert done.code == 0
    assert "4 jobs in 2 cells:\n  2 x bench  command=./a\n  2 x bench  command=./b\n" in done.err
    assert done.text.count("trials: 2") == 4
    assert not (tmp_path / "jobs").exists()


def test_a_batch_is_listed_reported_cancelled_and_waited_for_by_its_name(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        batch = submitted(queue)
        queue.finish(queue.claim(), patch=b"x")
        lease = queue.claim()
        queue.store.finish(lease, Outcome.FAILED, Reason.PROVIDER, "Its model is gone.")

        listed = tatin(tmp_path, "list", "--batch", batch)
        assert "command=./a #1" in listed.text
        assert "command=./b #2" in listed.text
        jobs = tatin(tmp_path, "list", "--batch", batch, "--json").json()["jobs"]
        assert ({"command": "./b"}, 2) in [(job["cell"], job["trial"]) for job in jobs]

        report = tatin(tmp_path, "report", batch, "--html", "out.html", "--csv", "out.csv")
        assert report.code == 0
        assert [line.split()[:7] for line in report.text.splitlines()[:3]] == [
            ["TOOL", "MODEL", "PROMPT", "OTHER", "VERIFY", "TRIALS", "PASSED"],
            ["command", "-", "Do", "it", "command=./a", "fresh", "2"],
            ["command", "-", "Do", "it", "command=./b", "fresh", "2"],
        ]
        assert report.err.splitlines() == ["wrote out.html", "wrote out.csv"]
        assert f"<h1>Batch {batch}</h1>" in (tmp_path / "out.html").read_text()
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
        assert [(row["scored"], row["passed"]) for row in rows] == [("1", "1"), ("0", "0")]
        scores = tatin(tmp_path, "report", batch, "--json").json()["scores"]
        assert [score["unscored"] for score in scores] == [{}, {"provider": 1}]
        assert [score["cost_usd"]["value"] for score in scores] == [None, None]

        assert tatin(tmp_path, "cancel", batch).err.count("cancelled") == 2
        assert tatin(tmp_path, "wait", batch).code == 1
        retried = tatin(tmp_path, "retry", batch, "--json").json()
        again = tatin(tmp_path, "show", retried["jobs"][0]["id"], "--json").json()["job"]
        assert (again["cell"], again["trial"]) == ({"command": "./b"}, 1)
        assert len(retried["jobs"]) == 3


def test_a_report_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    with open_queue(tmp_path) as queue:
        batch = submitted(queue)
        done = tatin(tmp_path, "report", batch, "--html", "gone/out.html", "--json")
    assert done.code == 2
    assert "'gone/out.html' cannot be written" in json.loads(done.err)["error"]["what"]
    assert done.out == b""
