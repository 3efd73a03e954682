"""The notify command: once a batch, by one worker, with facts as JSON; nothing that goes wrong stops it for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tests.support.stores import FakeStore, client_of, fake_store, make_job, submit
from tests.support.wait import until
from worker import notifier
from worker.notifier import Notifier

Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def store() -> FakeStore:
    return fake_store()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "BLOCK_SECONDS", 0.05)


@pytest.fixture
def told(tmp_path: Path) -> Told:
    """What the command was given so far."""

    def read() -> list[dict[str, Any]]:
        path = tmp_path / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    code = f"import sys; open({str(tmp_path / 'told')!r}, 'a').write(sys.stdin.read() + chr(10))"
    return Settings(home=tmp_path, worker_name="w1", notify=(sys.executable, "-c", code))


def run(store: FakeStore, settings: Settings, home_id: str = "h1") -> Notifier:
    made = Notifier(store.sibling(), settings, home_id)
    made.start()
    return made


def test_the_end_of_a_batch_is_told_once_by_one_worker(store: FakeStore, settings: Settings, told: Told) -> None:
    batch = submit(store, make_job("job-1"), make_job("job-2"))
    both = [run(store, settings), run(store, settings, "h2")]
    store.cancel("job-1")
    store.cancel("job-2")
    until(told, what="the notification")
    for one in both:
        one.stop()
    (facts,) = told()
    assert (facts["event"], facts["batch"]) == ("finished", batch.id)
    for home_id in ("h1", "h2"):
        run(store, settings, home_id).stop()
    assert len(told()) == 1


def test_what_a_worker_died_over_is_told_by_the_next_of_its_home(
    store: FakeStore, settings: Settings, told: Told
) -> None:
    """F01: killed after it had said that it would tell, and before it did."""
    batch = submit(store, make_job("job-1", created_at=datetime.now(UTC)))
    store.cancel("job-1")
    assert store.first_to_notify(batch.id, "finished", "h1")
    run(store, settings, "h2").stop()
    assert told() == []
    for _ in range(2):
        run(store, settings, "h1").stop()
    assert [facts["batch"] for facts in told()] == [batch.id]


def test_a_batch_of_which_only_held_jobs_are_left_is_told(store: FakeStore, settings: Settings, told: Told) -> None:
    submit(store, make_job("job-1"), make_job("job-2", state=JobState.HELD))
    one = run(store, settings)
    store.cancel("job-1")
    until(told, what="the notification")
    one.stop()
    assert [facts["event"] for facts in told()] == ["held"]


def test_a_worker_that_stops_looks_once_more(store: FakeStore, settings: Settings, told: Told) -> None:
    submit(store, make_job("job-1"))
    one = run(store, settings)
    store.cancel("job-1")
    one.stop()
    assert len(told()) == 1


def test_an_end_that_a_dead_worker_left_untold_is_told_at_the_next_start(
    store: FakeStore, settings: Settings, told: Told
) -> None:
    submit(store, make_job("job-1", created_at=datetime.now(UTC)))
    submit(store, make_job("job-old"))
    store.cancel("job-1")
    store.cancel("job-old")
    run(store, settings).stop()
    (facts,) = told()
    assert [job["id"] for job in facts["jobs"]] == ["job-1"], "not what ended long ago"


def test_a_batch_that_was_pruned_or_is_damaged_stops_no_other(store: FakeStore, settings: Settings, told: Told) -> None:
    batch = submit(store, make_job("job-1"), batch="b-aaa")
    submit(store, make_job("job-bad"), batch="b-bbb")
    good = submit(store, make_job("job-2"), batch="b-ccc")
    client_of(store).hset("tatin:job:job-bad", "spec", "{")
    one = run(store, settings)
    client_of(store).delete(f"tatin:batch:{batch.id}")
    for name in ("job-1", "job-2"):
        store.cancel(name)
    until(told, what="the notification")
    one.stop()
    assert [facts["batch"] for facts in told()] == [good.id]


def test_a_store_that_was_away_costs_no_notification(
    store: FakeStore, settings: Settings, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, make_job("job-1"))
    real, left = FakeStore.first_to_notify, [2]

    def lossy(*args: Any) -> bool:
        answer = real(*args)
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("The store does not answer.")
        return answer

    monkeypatch.setattr(FakeStore, "first_to_notify", lossy)
    one = run(store, settings)
    store.cancel("job-1")
    until(told, what="the notification")
    one.stop()
    assert len(told()) == 1


@pytest.mark.parametrize("command", [("/nowhere/to/be/found",), (sys.executable, "-c", "raise SystemExit(3)")])
def test_a_command_that_fails_is_logged_and_the_worker_goes_on(
    store: FakeStore, settings: Settings, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    submit(store, make_job("job-1"))
    one = run(store, settings.model_copy(update={"notify": command}))
    store.cancel("job-1")
    one.stop()
    assert "action=notify" in caplog.text


def test_without_a_command_nothing_runs(store: FakeStore, settings: Settings) -> None:
    one = run(store, settings.model_copy(update={"notify": ()}))
    assert not one._thread.is_alive()
    one.stop()
