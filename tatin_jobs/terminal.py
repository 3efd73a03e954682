"""The one cleaning of text before it reaches a terminal: of guests, of job files, of names (A80, A81).

What is left cannot move the cursor, set a title, write to the clipboard, turn the direction of writing or hide
itself. Colour and cursor sequences (CSI) are left out, because agents print them all the time and they say nothing;
every other control is shown as an escape (``\\x1b``, ``\\u202e``), because somebody may have meant it to be unseen.
"""

from __future__ import annotations

import codecs
import re

_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but tab and newline
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags, and more variation selectors than anybody reads
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters that have no ink
    "\ud800-\udfff"  # halves of a pair
)
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_CSI = re.compile(r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]{0,64}[ -/]{0,8})?|\r+)\Z")
_RETURNS = re.compile(r"\r+\n?")
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """``text`` fit for a terminal; newlines and tabs stay. ``\\r\\n`` is a newline, a lone ``\\r`` is shown."""
    return _HIDDEN.sub(_shown, _CSI.sub("", text).replace("\r\n", "\n"))


def clean_line(text: str, limit: int = 300) -> str:
    """``text`` as one line of at most ``limit`` characters; what was cut off is an ellipsis."""
    # Only the beginning is looked at: a guest may send megabytes where a line is wanted.
    line = clean(_SPACE.sub(" ", text[: 8 * limit])).strip()
    cut = len(line) > limit or len(text) > 8 * limit
    return f"{line[: limit - 1]}…" if cut else line


class LogCleaner:
    """Cleans a log that comes in pieces: UTF-8, sequences and ``\\r\\n`` may be split anywhere between them.

    A lone ``\\r``, as progress bars print it, begins a new line; several are one. A byte that is not UTF-8 is shown as
    ``\\xff``. Holds back at most a few characters.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def feed(self, data: bytes) -> str:
        """What can be shown of everything that came so far."""
        return self._clean(self._rest + self._decoder.decode(data))

    def close(self) -> str:
        """The last of it; the next piece begins anew."""
        text = self._clean(self._rest + self._decoder.decode(b"", final=True))
        rest, self._rest = self._rest, ""
        self._decoder.reset()
        return text + (_RETURNS.sub("\n", rest) if rest.startswith("\r") else clean(rest))

    def _clean(self, text: str) -> str:
        unfinished = _UNFINISHED.search(text, max(0, len(text) - 80))
        cut = unfinished.start() if unfinished else len(text)
        text, self._rest = text[:cut], text[cut:]
        return _HIDDEN.sub(_shown, _RETURNS.sub("\n", _CSI.sub("", text)))


def clean_log(data: bytes) -> str:
    """A whole log at once."""
    cleaner = LogCleaner()
    return cleaner.feed(data) + cleaner.close()


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
