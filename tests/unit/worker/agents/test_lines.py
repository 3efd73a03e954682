"""JsonLines: whole objects out of any stream, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.agents.lines import MAX_LINE_BYTES, JsonLines


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=4), max_size=8))
def test_objects_come_out_whole_however_the_stream_is_cut(objects: list[dict[str, int | str]]) -> None:
    data = b"".join(json.dumps(item).encode() + b"\n" for item in objects)
    for size in (1, 2, 7, 10_000):
        lines = JsonLines()
        read = [item for start in range(0, len(data), size) for item in lines.feed(data[start : start + size])]
        assert read == objects


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"{",
        b"[1]",
        b"1",
        b'{"a": 1e',
        b"\xff\xfe{}",
        b"[" * 5000,
        b'{"a":' * 5000,
        b"{}{}",
        b'{"n": ' + b"9" * 9999,
    ],
    ids=lambda line: repr(line[:12]),
)
def test_line_that_is_no_object_is_skipped_and_the_next_one_read(line: bytes) -> None:
    assert list(JsonLines().feed(line + b'\n{"a": 1}\n')) == [{"a": 1}]


def test_last_line_without_a_newline_is_read_at_the_end() -> None:
    lines = JsonLines()
    assert list(lines.feed(b'{"a": 1}\n{"b"')) == [{"a": 1}]
    assert list(lines.feed(b": 2}")) == []
    assert list(lines.end()) == [{"b": 2}]
    assert list(lines.end()) == []


def test_line_of_500_mb_is_skipped_in_bounded_memory() -> None:
    chunk = b"x" * 2**20

    def stream() -> Iterator[bytes]:
        yield b'{"a": 1}\n{"long": "'
        for _ in range(500):
            yield chunk
        yield b'"}\n{"b": 2}\n'

    lines = JsonLines()
    tracemalloc.start()
    try:
        read = [item for piece in stream() for item in lines.feed(piece)]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == [{"a": 1}, {"b": 2}]
    assert most < 8 * MAX_LINE_BYTES


def test_longest_line_that_is_kept_is_the_limit() -> None:
    def line(size: int) -> bytes:
        return b'{"a":"' + b"x" * (size - 8) + b'"}'

    assert len(list(JsonLines(100).feed(line(100) + b"\n"))) == 1
    assert list(JsonLines(100).feed(line(101) + b"\n")) == []
    assert list(JsonLines(100).feed(line(100) + b" " + b"\n")) == []
