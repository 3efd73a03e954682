"""A second net under the secrets of this host: what is known is taken out of what is shown and kept (A73).

The first net is that no long-lived secret is in a guest. What a job asked for by name (``secrets``) is, and a provider
may quote its key; so every text of an attempt passes here: the live log, agent.log, events, messages, the result.
Looked for is each secret as it is, in base64 (in its three alignments, both alphabets), in hex, URL-encoded and as in
JSON, with line breaks anywhere in it. A guest that means to get its own secret out finds another way to write it.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

STARS = "***"
MIN_CHARACTERS = 8
"""A shorter secret stands in too many innocent words."""
HELD_BYTES = 6
"""So many bytes at the end of a piece that may begin a secret are held back until the next piece."""
_BETWEEN_BREAKS = re.compile(rb"[^\r\n]+")


class Redactor:
    """Knows the secrets that were read so far; grows only. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: frozenset[bytes] = frozenset()
        self.longest = 0
        """Bytes of the longest form, line breaks not counted."""

    def add(self, secret: str) -> None:
        """Take this out of everything from now on; one that is too short is not taken out."""
        if len(secret) < MIN_CHARACTERS:
            return
        with self._lock:
            forms = self._forms | _forms(secret)
            if forms == self._forms:
                return
            self._forms = forms
            self.longest = max(map(len, forms))

    def data(self, data: bytes) -> bytes:
        """``data`` without the secrets; the same object where there is none."""
        spans = _found(self._forms, data.translate(None, b"\r\n"))
        return _starred(data, spans) if spans else data

    def text(self, text: str) -> str:
        """``text`` without the secrets."""
        raw = text.encode("utf-8", "surrogatepass")
        clean = self.data(raw)
        return text if clean is raw else clean.decode("utf-8", "surrogatepass")

    def tree(self, value: Any) -> Any:
        """The same for every text in lists and mappings, their keys too."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.tree(key): self.tree(item) for key, item in value.items()}
        return [self.tree(item) for item in value] if isinstance(value, (list, tuple)) else value

    def begins(self, data: bytes) -> int:
        """Where the secret begins that ``data`` may end with a part of, if that has ``HELD_BYTES`` or more; else its
        length."""
        tail_start = max(0, len(data) - 2 * self.longest)
        tail = data[tail_start:]
        joined = tail.translate(None, b"\r\n")
        size = max((_begun(form, joined) for form in self._forms), default=0)
        return tail_start + _back(tail, size) if size else len(data)

    def stream(self) -> RedactedStream:
        """For bytes that come in pieces."""
        return RedactedStream(self)


class RedactedStream:
    """Takes secrets out of one stream, also those that are split over its pieces. Holds back a few hundred bytes at
    most, and only such as begin a secret; of one that was split after its first few characters those have gone out."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._shown = b""
        """The end of what has gone out, which may be the beginning of a secret."""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can go out of all that came so far."""
        if not self._redactor.longest:
            return data
        data = self._held + data
        cut = max(0, self._redactor.begins(self._shown + data) - len(self._shown))
        return self._out(data[:cut], data[cut:])

    def close(self) -> bytes:
        """The rest."""
        return self._out(self._held, b"")

    def _out(self, data: bytes, held: bytes) -> bytes:
        self._held = held
        before = self._shown
        whole = before + data
        clean = self._redactor.data(whole)
        if clean is not whole:
            # A secret that begins in what has gone out: its rest is what can still be kept back.
            kept = len(before)
            while kept and clean[:kept] != before[:kept]:
                kept -= 1
            data = clean[kept:]
        self._shown = whole[-5 * HELD_BYTES :]  # each of them may have line breaks behind it
        return data


class RedactingFilter(logging.Filter):
    """For the handlers of the worker's own log: messages, and tracebacks that hold one."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        clean = self._redactor.text(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info:
            trace = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = self._redactor.text(trace)
        return True


def _forms(secret: str) -> frozenset[bytes]:
    raw = secret.encode()
    forms = {raw, raw.hex().encode(), raw.hex().upper().encode(), json.dumps(secret)[1:-1].encode()}
    forms |= {quote(secret, safe="").encode(), quote_plus(secret).encode()}
    for shift in range(3):
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            # What stands before and after changes the characters at the borders; those between are the secret's own.
            first, last = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
            forms.add(encode(b"\0" * shift + raw)[first:last])
    # A key in PEM form has lines: it is looked for as everything is, with line breaks anywhere.
    forms = {form.translate(None, b"\r\n") for form in forms}
    return frozenset(form for form in forms if len(form) >= MIN_CHARACTERS)


def _found(forms: Iterable[bytes], joined: bytes) -> list[tuple[int, int]]:
    """Where in ``joined`` any form is, from left to right; those that overlap are one."""
    spans = []
    for form in forms:
        at = joined.find(form)
        while at >= 0:
            spans.append((at, at + len(form)))
            at = joined.find(form, at + len(form))
    spans.sort()
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _starred(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """``data`` with stars in place of ``spans``, which count its bytes without line breaks."""
    places, counts = [], []  # of each piece between line breaks: where it begins, and how many bytes came before
    count = 0
    for piece in _BETWEEN_BREAKS.finditer(data):
        places.append(piece.start())
        counts.append(count)
        count += piece.end() - piece.start()

    def place(byte: int) -> int:
        index = bisect_right(counts, byte) - 1
        return places[index] + byte - counts[index]

    out, shown = bytearray(), 0
    for start, end in spans:
        out += data[shown : place(start)] + STARS.encode()
        shown = place(end - 1) + 1
    return bytes(out + data[shown:])


def _begun(form: bytes, data: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of ``form``, and not all of it; 0: fewer than
    ``HELD_BYTES``."""
    head = form[:HELD_BYTES]
    at = data.find(head, max(0, len(data) - len(form) + 1))
    while at >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at = data.find(head, at + 1)
    return 0


def _back(data: bytes, count: int) -> int:
    """Where the last ``count`` bytes of ``data`` begin, line breaks not counted."""
    place = len(data)
    while count:
        place -= 1
        count -= data[place : place + 1] not in (b"\r", b"\n")
    return place
