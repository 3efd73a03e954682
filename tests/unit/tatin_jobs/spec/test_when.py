"""``not_before``: times of day and instants of the submitter, in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tatin_jobs.spec.local_files import Surroundings
from tatin_jobs.spec.problems import FieldError
from tatin_jobs.spec.when import not_before
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
"""As the rule itself, so that the test needs no zone files."""


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", BERLIN)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        ("2030-01-15T12:00", "22:00", "2030-01-15T21:00"),
        ("2030-01-15T12:00", "7:30", "2030-01-16T06:30"),
        ("2030-01-15T21:00", "22:00", "2030-01-16T21:00"),  # now is not next
        ("2030-01-15T20:59", "22:00", "2030-01-15T21:00"),
        ("2030-01-15T23:30", "00:15:30", "2030-01-16T23:15:30"),  # it is past midnight there
        ("2030-03-30T23:30", "22:00", "2030-03-31T20:00"),  # summer time begins in between
        ("2030-10-26T21:30", "22:00", "2030-10-27T21:00"),  # and ends
        ("2030-01-15T12:00", "2030-02-01T22:00", "2030-02-01T21:00"),
        ("2030-01-15T12:00", "2030-07-01 22:00", "2030-07-01T20:00"),
        ("2030-01-15T12:00", "2030-02-01T22:00:30Z", "2030-02-01T22:00:30"),
        ("2030-01-15T12:00", "2030-02-01T22:00-05:00", "2030-02-02T03:00"),
        ("2030-01-15T12:00", "2020-01-01T00:00Z", "2020-01-01T00:00"),
    ],
)
def test_a_time_is_an_instant_in_utc(now: str, text: str, expected: str) -> None:
    around = Surroundings(Path(), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert not_before(text, around) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["25:00", "22", "tomorrow", "2030-02-30T10:00", "2030-01-01", "9999-12-31T23:59", "0001-01-01T00:00", "1e3"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """F48."""
    with pytest.raises(FieldError):
        not_before(text, Surroundings(Path(), datetime(2030, 1, 15, tzinfo=UTC)))


def test_a_job_is_held_until_then_and_a_past_time_is_a_warning(jobs: JobFolder) -> None:
    (later,) = jobs.read(jobs.write(f"{MINIMAL}not_before: 22:00\n"))
    (past,) = jobs.read(jobs.write(f"{MINIMAL}not_before: 2020-01-01T00:00Z\n"))
    assert later.spec.not_before == datetime(2030, 1, 15, 21, tzinfo=UTC)
    assert later.warnings == ()
    assert past.warnings == ("not_before is past, so the job is not held",)
