"""Names of a guest's files, before they become names on the host."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.unpacker.names import NameRefused, fold, shown, split_name


def test_a_name_is_split_at_its_slashes() -> None:
    assert split_name("d\u00fcr/b c/x.txt".encode(), 10) == ("d\u00fcr", "b c", "x.txt")
    assert split_name(b"folder/", 10) == ("folder",)


@given(st.binary(max_size=1200))
def test_what_is_accepted_stays_inside_and_can_be_shown(raw: bytes) -> None:
    try:
        parts = split_name(raw, 5)
    except NameRefused:
        return
    assert 1 <= len(parts) <= 5
    for part in parts:
        assert not {unicodedata.category(char) for char in part} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert part not in ("", ".", "..")
        assert "/" not in part
        assert not part.startswith("-")


@given(st.binary(max_size=600))
def test_a_name_is_shown_on_one_short_printable_line(raw: bytes) -> None:
    text = shown(raw)
    assert len(text) <= 120
    assert all(char.isprintable() for char in text)


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("\u00e9", "e\u0301"), ("\u1e9e", "ss"), ("\ufb01", "FI")])
def test_names_that_some_file_systems_take_for_one_are_equal(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert fold(one) != fold(other + "x")
