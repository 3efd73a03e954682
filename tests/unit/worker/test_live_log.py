"""Output on its two ways: whole into the file up to its limit, and live at a rate that a person could read."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tatin_jobs.states import Step
from worker.agents.base import AgentEvent
from worker.live_log import LIVE_BURST_BYTES, LIVE_BYTES_PER_SECOND, LiveLog
from worker.outbox import Outbox, Piece


class Box:
    """An outbox that only remembers."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def post(self, item: Piece | Step) -> None:
        assert not isinstance(item, Step)
        self.pieces.append(item)

    def text(self, stream: str) -> bytes:
        return b"".join(data for name, data in self.pieces if name == stream)


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def make(path: Path, box: Box, limit: int = 2**24) -> LiveLog:
    return LiveLog(path, cast("Outbox", box), limit_bytes=limit)


def test_bytes_come_as_they_are_on_both_ways(tmp_path: Path, box: Box) -> None:
    with make(tmp_path / "log", box) as log:
        log.output("stdout", b"\x1b[31mred\xff\n")
        log.output("stderr", b"oh\n")
    assert (tmp_path / "log").read_bytes() == b"\x1b[31mred\xff\noh\n"
    assert box.text("stdout") == b"\x1b[31mred\xff\n"
    assert not log.cut


def test_of_a_stream_of_events_the_file_has_the_bytes_and_the_live_log_the_events(tmp_path: Path, box: Box) -> None:
    """Deltas and repetitions (Pi wrote 35 MB for an answer of 20 KB) are in no live log."""
    events = [AgentEvent("tool_call", "ls", {"name": "bash"}), AgentEvent("usage", "", {"input_tokens": 1})]
    with make(tmp_path / "log", box) as log:
        log.output("stdout", b'{"type":"delta"}\n', [])
        log.output("stdout", b'{"type":"call"}\n', events)
        log.output("stderr", b"a warning\n")
    assert (tmp_path / "log").read_bytes() == b'{"type":"delta"}\n{"type":"call"}\na warning\n'
    assert [name for name, _ in box.pieces] == ["event", "stderr"]
    assert json.loads(box.text("event")) == {"kind": "tool_call", "text": "ls", "data": {"name": "bash"}}


def test_events_that_an_earlier_worker_showed_are_not_shown_again(tmp_path: Path, box: Box) -> None:
    (tmp_path / "log").write_bytes(b"12345")
    log = LiveLog(tmp_path / "log", cast("Outbox", box), limit_bytes=2**20, again=True)
    with log:
        log.output("stdout", b"12345", [AgentEvent("message", "old")])
        log.output("stdout", b"678", [AgentEvent("message", "new")])
    assert json.loads(box.text("event"))["text"] == "new"


def test_the_file_is_cut_at_its_limit_with_one_notice(tmp_path: Path, box: Box) -> None:
    """A62."""
    with make(tmp_path / "log", box, limit=10) as log:
        for _ in range(3):
            log.output("stdout", b"12345678")
    assert (tmp_path / "log").read_bytes() == b"1234567812"
    assert log.cut
    assert box.text("tatin").count(b"is cut at") == 1
    assert box.text("stdout") == b"12345678" * 3, "the live view goes on"


def test_a_flood_is_shown_at_a_bounded_rate_and_says_what_is_missing(
    tmp_path: Path, box: Box, clock: list[float]
) -> None:
    """A62."""
    block = bytes(64 * 1024)
    with make(tmp_path / "log", box, limit=2**30) as log:
        for _ in range(100):
            log.output("stdout", block)
        shown = len(box.text("stdout"))
        assert shown == LIVE_BURST_BYTES
        clock[0] += 1
        log.output("stdout", block)
        assert len(box.text("stdout")) == shown + len(block)
        for _ in range(100):
            log.output("stdout", block)
        assert len(box.text("stdout")) <= shown + LIVE_BYTES_PER_SECOND
    missing = 201 * len(block) - len(box.text("stdout"))
    notices = [int(data.split(b" ")[0][1:]) for name, data in box.pieces if name == "tatin"]
    assert sum(notices) == missing
    assert (tmp_path / "log").stat().st_size == 201 * len(block)
    assert max(len(data) for _, data in box.pieces) <= 16 * 1024


def test_a_second_command_adds_to_the_file(tmp_path: Path, box: Box) -> None:
    for text in (b"one", b"two"):
        with make(tmp_path / "log", box) as log:
            log.output("stdout", text)
    assert (tmp_path / "log").read_bytes() == b"onetwo"


class Filling:
    """A file on a disk that fills up: it takes ``room`` bytes, in parts, and then refuses."""

    def __init__(self, room: int) -> None:
        self.room, self.got = room, b""

    def write(self, data: Any) -> int:
        part = bytes(data[: min(3, self.room)])
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(part)
        self.got += part
        return len(part)

    def close(self) -> None: ...


def test_a_disk_that_takes_a_part_loses_nothing_silently(tmp_path: Path, box: Box) -> None:
    """F13."""
    with make(tmp_path / "log", box) as log:
        log._file.close()
        log._file = filling = cast("Any", Filling(10))
        log.output("stdout", b"12345678")
        assert filling.got == b"12345678"
        with pytest.raises(OSError, match="No space left"):
            log.output("stdout", b"abcdefgh")
        assert filling.got == b"12345678ab"
