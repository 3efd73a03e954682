"""The file of an attempt's events, when another worker goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.agents.base import AgentEvent
from worker.events import EventLog


def texts(path: Path) -> list[str]:
    return [event.get("step") or event["text"] for event in map(json.loads, path.read_text().splitlines())]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What an earlier worker wrote: two steps, and the agent's word between them."""
    log = EventLog(tmp_path / "events.jsonl")
    log.ours("step", step="cloning")
    log.agent([AgentEvent("message", 'I print "kind": "step"')])
    log.ours("step", step="agent")
    return tmp_path / "events.jsonl"


def test_what_is_ours_is_kept_and_the_agents_stream_comes_again(path: Path) -> None:
    log = EventLog(path)
    log.begin_again()
    assert texts(path) == ["cloning", "agent"]
    log.agent([AgentEvent("message", "hello")])
    assert texts(path) == ["cloning", "agent", "hello"]


def test_an_attempt_without_a_file_has_none_yet(tmp_path: Path) -> None:
    EventLog(tmp_path / "events.jsonl").begin_again()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_killed_meanwhile_has_lost_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment before the new file has its name: all of the old one is there."""
    before = texts(path)

    def killed(_: Path, target: Path) -> None:
        assert texts(target) == before
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        EventLog(path).begin_again()
    assert texts(path) == before
