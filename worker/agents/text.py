"""What an agent printed, made fit for a sentence or an event. It is hostile: cleaned, and bounded in length."""

from __future__ import annotations

import json
import signal

from tatin_jobs.terminal import clean_line

EVENT_CHARACTERS = 4096
FINAL_CHARACTERS = 64 * 1024
LINE_CHARACTERS = 300


def unicode(value: object) -> str:
    """``value`` if it is a string, else empty; without the half characters that JSON can hold and UTF-8 cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def clip(text: str, limit: int = EVENT_CHARACTERS) -> str:
    """The beginning of ``text``, with a mark when more came. Never more than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 2] + " …"


def error_words(text: str) -> str:
    """An error of a model server, where the tool shows the JSON as it came: the message in it, in place of the JSON."""
    start = text.find("{")
    try:
        value, end = json.JSONDecoder().raw_decode(text, start) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return text
    inner = value.get("error", value) if isinstance(value, dict) else None
    message = unicode(inner.get("message")) if isinstance(inner, dict) else ""
    return f"{text[:start]}{message}{text[end:]}" if message else text


def last_line(data: bytes) -> str:
    """The last line that says anything, cleaned and shortened; empty when none does."""
    lines = (clean_line(line, LINE_CHARACTERS) for line in reversed(data.decode("utf-8", "replace").splitlines()))
    return next(filter(None, lines), "")


def exit_text(exit_status: int) -> str:
    """``exited with 2``, ``exited with 127 (command not found)``, ``was killed by signal 9 (SIGKILL)``."""
    if exit_status == 126:
        return "exited with 126 (found, but cannot be executed)"
    if exit_status == 127:
        return "exited with 127 (command not found)"
    if exit_status > 128:
        number = exit_status - 128
        try:
            return f"was killed by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"exited with {exit_status}"
    return f"exited with {exit_status}"
