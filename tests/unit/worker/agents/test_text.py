"""Text of an agent, made fit for a sentence."""

from __future__ import annotations

import pytest

from worker.agents.text import clip, error_words, exit_text, last_line, unicode


def test_clip_keeps_to_its_limit_and_marks_what_is_missing() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abcdef", 5) == "abc …"


def test_last_line_is_the_last_that_says_anything() -> None:
    assert last_line(b"one\n\x1b[1mtwo\x1b[0m \n\n  \n\x1b[0m\n") == "two"
    assert last_line(b"") == ""
    assert last_line(b"a\x1b]52;c;aGVsbG8=\x07b\n") == r"a\x1b]52;c;aGVsbG8=\x07b"
    assert len(last_line(b"x" * 5000)) == 300


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (2, "exited with 2"),
        (126, "exited with 126 (found, but cannot be executed)"),
        (127, "exited with 127 (command not found)"),
        (137, "was killed by signal 9 (SIGKILL)"),
        (255, "exited with 255"),
    ],
)
def test_exit_status_in_words(status: int, text: str) -> None:
    assert exit_text(status) == text


def test_half_characters_of_json_become_ones_that_utf_8_can_hold() -> None:
    assert unicode("a\ud800b").encode() == b"a?b"
    assert unicode(None) == unicode(["a"]) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('502: {"type":"x","code":"502","message":"It cannot be reached."}', "502: It cannot be reached."),
        ('{"error": {"message": "No such model.", "code": 404}} (again)', "No such model. (again)"),
        ("402 Payment required", "402 Payment required"),
        ('500: {"error": "busy"}', '500: {"error": "busy"}'),
        ('502: {"message": "cut o', '502: {"message": "cut o'),
        ('{"message": 7}', '{"message": 7}'),
        ("{" * 5000, "{" * 5000),
        ('{"a":' * 5000, '{"a":' * 5000),
    ],
)
def test_the_message_stands_for_the_json(text: str, words: str) -> None:
    assert error_words(text) == words
