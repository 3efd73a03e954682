"""What submit tells of the workers that are there."""

from __future__ import annotations

import pytest

from tatin_jobs.cli.submit import tell_warnings
from tatin_jobs.models import Batch, WorkerInfo
from tatin_jobs.submitting import Submitted
from tests.support.cli import NOW, OFFER, make_job


@pytest.mark.parametrize("warning", ["", "its guests also reach every port of this host"])
def test_a_worker_that_does_not_keep_its_guests_in_is_told(warning: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job()
    info = WorkerInfo(
        name="mac",
        host="mac",
        pid=1,
        version="0",
        offer=OFFER,
        sandbox="tart",
        started_at=NOW,
        egress_warning=warning,
    )
    tell_warnings(Submitted(Batch(id="b-1", created_at=NOW, jobs=(job.id,)), (job,), ()), [info])
    said = " ".join(capsys.readouterr().err.split())
    expected = "worker 'mac' (tart) does not keep all network rules: its guests also reach every port of this host."
    assert (expected in said) is bool(warning)
