"""Known secrets are taken out of texts and streams, in whatever form and however split (A73)."""

from __future__ import annotations

import base64
import json
import logging
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.events import EventLog
from worker.redaction import HELD_BYTES, RedactingFilter, Redactor

SECRET = 'sk-ant-Zm9v/bar+9_Q=é"x'
FORMS = {
    "plain": SECRET.encode(),
    "hex": SECRET.encode().hex().encode(),
    "HEX": SECRET.encode().hex().upper().encode(),
    "url": quote(SECRET, safe="").encode(),
    "json": json.dumps(SECRET).encode(),
    **{f"base64 {shift}": base64.b64encode(b"x" * shift + SECRET.encode() + b"tail") for shift in range(3)},
    **{f"base64url {shift}": base64.urlsafe_b64encode(b"x" * shift + SECRET.encode()) for shift in range(3)},
}


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add(SECRET)
    return made


def _kept(data: bytes) -> list[str]:
    """Forms of the secret, or long parts of one, that are still there."""
    joined = data.replace(b"\n", b"").replace(b"\r", b"")
    return [
        name for name, form in FORMS.items() if any(form[at : at + 14] in joined for at in range(4, len(form) - 18))
    ]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("width", [1000, 16, 5, 1])
def test_a73_a_secret_is_taken_out_in_each_form_and_over_lines(redactor: Redactor, form: bytes, width: int) -> None:
    """A73: as it is, encoded, folded."""
    folded = b"\r\n".join(form[start : start + width] for start in range(0, len(form), width))
    clean = redactor.data(b"before " + folded + b" after")
    assert _kept(clean) == []
    assert b"***" in clean
    assert clean.startswith(b"before ")
    assert clean.endswith(b" after")


@given(
    form=st.sampled_from(sorted(FORMS)),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    around=st.sampled_from([b"", b"x", b"sk-ant", b"\n", b"sk-ant-\nsk-"]),
)
def test_a73_a_secret_split_over_pieces_is_taken_out(form: str, cuts: list[int], around: bytes) -> None:
    """A73: a guest chooses where its output is split."""
    redactor = Redactor()
    redactor.add(SECRET)
    data = around + FORMS[form] + around
    stream = redactor.stream()
    out = b""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in pairwise(edges):
        out += stream.feed(data[start:end])
    out += stream.close()
    assert _kept(out) == []


@given(pieces=st.lists(st.binary(max_size=40) | st.sampled_from([b"sk-ant-", b"sk-", b"\n"]), max_size=20))
def test_what_holds_no_secret_comes_through_byte_for_byte(pieces: list[bytes]) -> None:
    redactor = Redactor()
    redactor.add(SECRET)
    stream = redactor.stream()
    assert b"".join([*(stream.feed(piece) for piece in pieces), stream.close()]) == b"".join(pieces)


@pytest.mark.parametrize("newline", ["\n", "\r\n", ""])
def test_a73_a_secret_of_several_lines_is_taken_out(newline: str) -> None:
    """A73: a key in PEM form, as a file of it is printed."""
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\nBCIEIHq7\n-----END PRIVATE KEY-----"
    redactor = Redactor()
    redactor.add(key)
    printed = key.replace("\n", newline).encode()
    assert redactor.data(b"<" + printed + b">") == b"<***>"
    stream = redactor.stream()
    assert b"MC4CAQ" not in b"".join([*(stream.feed(printed[at : at + 9]) for at in range(0, 99, 9)), stream.close()])


def test_a73_any_number_of_line_breaks_hides_nothing() -> None:
    redactor = Redactor()
    redactor.add("s3cretvalue")
    assert (
        redactor.data(b"\n\n<" + b"\r\n\r\n\n\n".join(b"%c" % byte for byte in b"s3cretvalue") + b">\n")
        == b"\n\n<***>\n"
    )


def test_a73_secrets_that_overlap_leave_no_end_behind() -> None:
    redactor = Redactor()
    redactor.add("token-one-two")
    redactor.add("two-three-four")
    assert redactor.data(b"a token-one-two-three-four b") == b"a *** b"
    assert redactor.data(b"token-one-two\ntoken-one-two\n") == b"***\n***\n"


def test_an_ordinary_line_is_not_held_back(redactor: Redactor) -> None:
    stream = redactor.stream()
    for line in (b"a line\n", b"half a line s", b"sk-a"):
        assert len(b"sk-a") < HELD_BYTES
        assert stream.feed(line) == line


def test_texts_are_cleaned_in_lists_and_mappings(redactor: Redactor) -> None:
    tree = {"a": [f"x {SECRET}", 3, None], SECRET: (SECRET,), "b": {"c": "fine"}}
    assert redactor.tree(tree) == {"a": ["x ***", 3, None], "***": ["***"], "b": {"c": "fine"}}
    assert redactor.text("half a pair \ud800 stays") == "half a pair \ud800 stays"


def test_a73_a_place_that_a_guest_named_by_a_secret_is_cleaned_in_the_events(tmp_path: Path) -> None:
    """A73: what was denied is told as the guest wrote it."""
    redactor = Redactor()
    redactor.add("0123456789abcdef")
    EventLog(tmp_path / "events.jsonl", redactor).ours("network", text="blocked: 0123456789abcdef.example.com:443")
    assert json.loads((tmp_path / "events.jsonl").read_text())["text"] == "blocked: ***.example.com:443"


def test_a_short_secret_is_left_for_it_would_take_words_along() -> None:
    redactor = Redactor()
    redactor.add("the")
    assert redactor.text("the end") == "the end"


def test_a_flood_is_searched_as_fast_as_it_is_kept(redactor: Redactor) -> None:
    """The log's limit is 64 MiB; searching it must not be what holds an attempt up."""
    stream = redactor.stream()
    block = b"sk-an compiling module, nothing to see here sk-ant\n" * 1285
    began = time.process_time()
    for _ in range(64):
        stream.feed(block)
    assert time.process_time() - began < 8  # 4 MiB


def test_a62_a_flood_is_searched_as_fast_for_a_long_secret() -> None:
    """A62: a key file of some thousand bytes; the worker's one loop does nothing else meanwhile."""
    redactor = Redactor()
    redactor.add("".join(map(str, range(1500))))
    stream = redactor.stream()
    block = b"some line of output with words\n" * 2100
    began = time.process_time()
    for _ in range(900):
        stream.feed(block)
    assert time.process_time() - began < 3  # well under one; nine where each length was tried


def test_a73_the_workers_own_log_holds_none_in_messages_or_tracebacks(
    redactor: Redactor, caplog: pytest.LogCaptureFixture
) -> None:
    """A73: also an exception that quotes one."""
    logger = logging.getLogger("test.redaction")
    caplog.handler.addFilter(keep := RedactingFilter(redactor))
    try:
        try:
            int(SECRET)
        except ValueError:
            logger.exception("could not use %s", SECRET)
    finally:
        caplog.handler.removeFilter(keep)
    assert "could not use ***" in caplog.text
    assert _kept(caplog.text.encode()) == []
