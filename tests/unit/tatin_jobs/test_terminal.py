"""Cleaning text for a terminal."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatin_jobs.terminal import LogCleaner, clean, clean_line, clean_log

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_every_control_and_invisible_character_is_shown_as_an_escape() -> None:
    for code in range(0x110000):
        char = chr(code)
        if unicodedata.category(char) in HIDDEN and char not in "\n\t":
            assert clean(char).startswith("\\"), hex(code)


@pytest.mark.parametrize("text", ["plain", "tab\tand\nnewline", "żółć 漢字 🦫 ✓ ○ ◐ ●", "[link=x] [/x] [bold]", "é"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2K\x1b[1Aup", "up"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x1b\x1b[0m[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\r\nc", "a\\x0db\nc"),
        ("\u202eevil\u2069\u200b", "\\u202eevil\\u2069\\u200b"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_sequences_of_colour_go_and_others_are_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_line_is_one_line_and_short() -> None:
    assert clean_line(" a\r\nb\t\u2028c ") == "a b c"
    assert clean_line("x" * 1000, 10) == "x" * 9 + "…"
    assert len(clean_line("\x1b" * 1000, 50)) == 50


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"\xe2", b"\x9c", b"\x93"], "✓"),
        ([b"\x1b", b"[3", b"1mred"], "red"),
        ([b"a\r", b"\nb"], "a\nb"),
        ([b"10%\r", b"20%\r\r\n", b"done"], "10%\n20%\ndone"),
        ([b"\xff\xc3("], "\\xff\\xc3("),
        ([b"end\x1b[3"], "end\\x1b[3"),
        ([b"end\r"], "end\n"),
        ([b"end\xe2\x9c"], "end\\xe2\\x9c"),
    ],
)
def test_a_log_may_be_split_anywhere(pieces: list[bytes], shown: str) -> None:
    cleaner = LogCleaner()
    assert "".join(map(cleaner.feed, pieces)) + cleaner.close() == shown


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_how_a_log_is_split_changes_nothing(data: bytes, cuts: list[int]) -> None:
    cleaner = LogCleaner()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert "".join(map(cleaner.feed, pieces)) + cleaner.close() == clean_log(data)


@given(st.text(max_size=200))
def test_cleaned_text_is_clean(text: str) -> None:
    shown = clean(text)
    assert clean(shown) == shown
    assert not any(unicodedata.category(char) in HIDDEN and char not in "\n\t" for char in shown)
    shown.encode()


def test_plain_text_is_shown_at_once() -> None:
    assert LogCleaner().feed(b"half a line") == "half a line"
