"""What a notify command is told."""

from __future__ import annotations

import json

from tatin_jobs.models import Batch
from tatin_jobs.notify import MAX_JOBS, notification
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.cli import NOW, make_job

BATCH = Batch(id="b-x", created_at=NOW, jobs=(), source="a\x1b]0;x\x07.yaml")


def test_it_has_the_facts_of_a_batch_as_json() -> None:
    failed = make_job(
        state=JobState.FINISHED, outcome=Outcome.FAILED, reason=Reason.AGENT, message="One\n\x1b[2Jtwo\u202e"
    )
    told = json.loads(json.dumps(notification(BATCH, [failed, make_job(state=JobState.HELD)])))
    assert told["batch"] == "b-x"
    assert told["source"] == "a\\x1b]0;x\\x07.yaml"
    assert told["counts"] == {"failed": 1, "held": 1}
    assert told["next"] == "tatin report b-x"
    assert told["jobs"][0] == {
        "id": failed.id,
        "state": "finished",
        "outcome": "failed",
        "reason": "agent",
        "message": "One two\\u202e",
    }


def test_a_large_batch_is_counted_whole_and_listed_in_part() -> None:
    told = notification(BATCH, [make_job() for _ in range(MAX_JOBS + 5)])
    assert told["counts"] == {"queued": MAX_JOBS + 5}
    assert (len(told["jobs"]), told["jobs_not_listed"]) == (MAX_JOBS, 5)
