"""The host's own memory of its sandboxes (I5)."""

from __future__ import annotations

from pathlib import Path

from tatin_jobs.models import Need
from tatin_jobs.results import DeniedFacts, NetworkFacts
from worker.journal import Entry, Journal

ENTRY = Entry(sandbox="tatin-0a1b2c3d-abc-1", job="job-abc", attempt=1, token="s:1", need=Need())


def test_what_was_written_is_there_until_it_is_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    journal.write(ENTRY)
    assert Journal(tmp_path).entries() == [ENTRY]
    journal.remove(ENTRY.sandbox)
    journal.remove(ENTRY.sandbox)
    assert journal.entries() == []


def test_a_start_clears_what_was_only_begun(tmp_path: Path) -> None:
    """F01: a chaos run left such a file."""
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    (tmp_path / "tatin-0a1b2c3d-ghi-1.draft").write_text('{"sand')
    journal.clear_drafts()
    assert [path.name for path in tmp_path.iterdir()] == [f"{ENTRY.sandbox}.json"]


def test_what_a_guest_reached_goes_with_its_sandbox(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    facts = NetworkFacts(mode="none", denied=(DeniedFacts(where="a.example:80", why="no network", times=2),))
    journal.note_network(ENTRY.sandbox, facts)
    assert journal.network(ENTRY.sandbox) is None, "there is no such sandbox"
    journal.write(ENTRY)
    journal.note_network(ENTRY.sandbox, facts)
    assert Journal(tmp_path).network(ENTRY.sandbox) == facts
    assert journal.entries() == [ENTRY]
    journal.clear_drafts()
    assert journal.network(ENTRY.sandbox) == facts
    (tmp_path / f"{ENTRY.sandbox}.json").unlink()
    journal.clear_drafts()
    assert list(tmp_path.iterdir()) == [], "its worker was killed while it removed them"


def test_a_half_written_or_damaged_entry_stops_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    (tmp_path / "tatin-0a1b2c3d-def-1.json").write_text('{"sandbox": "tat')
    (tmp_path / "tatin-0a1b2c3d-ghi-1.draft").write_text("{}")
    assert journal.entries() == [ENTRY]
