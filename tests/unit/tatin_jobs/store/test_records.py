"""Records as hashes and back, need classes, and what is refused on the way in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tatin_jobs.errors import TatinError
from tatin_jobs.models import RECORD_VERSION, Need
from tatin_jobs.states import JobState
from tatin_jobs.store.keys import PRIORITY_STEP, need_class
from tatin_jobs.store.records import from_ms, job_of, new_fields, to_ms
from tests.support.stores import make_job


def test_a_record_survives_the_hash() -> None:
    job = make_job("job-1", message="why", retry_of="job-0")
    assert job_of("job-1", {**new_fields(job), "state": "queued"}) == job


def test_every_value_of_the_hash_is_text() -> None:
    assert all(type(value) is str for value in new_fields(make_job()).values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "asleep"},
        {"state": ""},
        {"spec": "{"},
        {"spec": '{"name": "x", "surprise": 1}'},
        {"need": '{"cpus": "NaN"}'},
        {"version": ""},
        {"created_at": "soon"},
        {"created_at": "1e308"},
        {"attempt": "1.5"},
        {"outcome": "fine"},
    ],
)
def test_what_is_no_record_is_refused_by_its_id(wrong: dict[str, str]) -> None:
    """A40, A43: what comes out of the store is checked again."""
    fields = {**new_fields(make_job()), "state": "queued", **wrong}
    with pytest.raises(TatinError, match="record of job 'job-1' cannot be read"):
        job_of("job-1", fields)


def test_unknown_fields_of_the_hash_are_of_no_concern() -> None:
    fields = {**new_fields(make_job()), "state": "held", "asked": "x", "queued_at": "1"}
    assert job_of("job-1", fields).state is JobState.HELD


def test_times_are_milliseconds_and_aware() -> None:
    instant = datetime(2026, 3, 1, 22, 0, 0, 123_000, tzinfo=UTC)
    assert from_ms(str(to_ms(instant))) == instant
    assert from_ms("") is None
    assert from_ms("inf") is None
    assert from_ms("+inf") is None


def test_a_need_class_names_version_needs_wishes_and_tags() -> None:
    need = Need(cpus=2, memory_mib=4096, disk_mib=20_000, memory_wish=True, tags=("arch:arm64", "os:linux"))
    assert need_class(need) == f"{RECORD_VERSION};c2;m4096w;d20000;arch:arm64;os:linux"


def test_needs_that_differ_have_lines_that_differ() -> None:
    base = Need(cpus=1, memory_mib=2, disk_mib=3)
    others = [
        base.model_copy(update=change)
        for change in (
            {"cpus": 2},
            {"memory_mib": 3},
            {"disk_mib": 4},
            {"cpus_wish": True},
            {"memory_wish": True},
            {"disk_wish": True},
            {"tags": ("a",)},
        )
    ]
    assert len({need_class(need) for need in [base, *others]}) == len(others) + 1


def test_places_stay_exact_at_the_highest_priority() -> None:
    place = -1000 * PRIORITY_STEP + 12_345
    assert float(place) == place
    assert float(place + 1) != float(place)
