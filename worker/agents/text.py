"""What an agent printed, made fit for a sentence or an event. It is hostile: controls are cut, lengths bounded."""

from __future__ import annotations

import re
import signal

EVENT_CHARACTERS = 4096
FINAL_CHARACTERS = 64 * 1024
LINE_CHARACTERS = 300
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,16}[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clip(text: str, limit: int = EVENT_CHARACTERS) -> str:
    """The beginning of ``text``, with a mark when more came. Never more than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 2] + " …"


def clean(text: str) -> str:
    """Without terminal escapes, controls (but tab and newline) and marks that turn the direction of writing."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def last_line(data: bytes) -> str:
    """The last line that says anything, cleaned and shortened; empty when none does."""
    for line in reversed(clean(data.decode("utf-8", "replace")).splitlines()):
        if stripped := line.strip():
            return clip(stripped, LINE_CHARACTERS)
    return ""


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
