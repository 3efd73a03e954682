"""Answers that tell of a limit reached, and when the provider will answer again. Pure functions; never raise on what a
provider wrote.

Where the time stands, best first: what Anthropic says of a subscription's window (seconds since 1970, in
``anthropic-ratelimit-unified-reset``), ``retry-after`` (seconds, or a date), the reset of the limit that is used up
(Anthropic: a date; OpenAI: a time such as ``6m0s``; others: seconds or milliseconds since 1970), the body's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from tatin_jobs.terminal import clean_line

TEXT_CHARACTERS = 300
MAX_WAIT = timedelta(days=32)
"""A reset that is further away is not believed: a month is the longest window that providers have."""
_STATUSES = (402, 429)
_CODES = re.compile(
    r"402|429|insufficient_quota|quota_exceeded|resource_exhausted|rate_limited|(?:billing|usage_limit|rate_limit)_[a-z_]+",
    re.IGNORECASE,
)
_SENTENCES = re.compile(
    r"your credit balance is too low|you (?:have )?(?:exceeded|reached|hit) your |(?:claude ai )?usage limit reached"
    r"|(?:rate limit|quota) (?:exceeded|reached)",
    re.IGNORECASE,
)
"""Codes of an error that mean a limit, and how its message then begins, where the status does not say so (Anthropic:
400 for an empty account). Only the beginning: errors quote what was asked, and a guest would hold the whole account
with a parameter called ``quota, try again in 30d``. (``rules`` lets no parameter's name begin such a sentence.)"""
_SPAN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?")
_IN_BODY = (
    re.compile(r'"resets_at"\s*:\s*"?(?P<at>\d{9,13})'),
    re.compile(r'"resets_in_seconds"\s*:\s*"?(?P<seconds>\d{1,8})'),
    re.compile(r"limit reached\|(?P<at>\d{9,13})"),
    re.compile(r'"retryDelay"\s*:\s*"(?P<span>[0-9.dhms]{2,20})"'),
    re.compile(r"(?:try again|retry) (?:in|after) (?P<span>[0-9][0-9.dhms]{1,20})", re.IGNORECASE),
    re.compile(r"(?:try again|retry) (?:in|after) (?P<seconds>\d{1,8}) ?sec", re.IGNORECASE),
)


@dataclass(frozen=True)
class QuotaSeen:
    """``reset_at``: when the provider will answer again (aware, UTC), as far as it said so. ``text``: its own words,
    one line, clean."""

    reset_at: datetime | None
    text: str


def quota_in_answer(status: int, headers: Mapping[str, str], body: str, now: datetime) -> QuotaSeen | None:
    """What an answer over 399 tells of a limit; None when it tells of none. ``headers`` are looked up in lower case
    without regard to case where the mapping does so (as aiohttp's)."""
    if status not in _STATUSES and not (status in (400, 403) and _tells_of_limit(body)):
        return None
    return QuotaSeen(_from_headers(headers, now) or _from_body(body, now), _words(body))


def quota_in_stream(event: str, now: datetime) -> QuotaSeen | None:
    """What an error inside a stream that had begun tells of a limit; None when it tells of none."""
    return QuotaSeen(_from_body(event, now), _words(event)) if _tells_of_limit(event) else None


def _tells_of_limit(body: str) -> bool:
    error = _error_in(body)
    codes = [str(error.get(name))[:64] for name in ("type", "code")]
    return any(_CODES.fullmatch(code) for code in codes) or _SENTENCES.match(_message(error, body)) is not None


def _from_headers(headers: Mapping[str, str], now: datetime) -> datetime | None:
    return (
        _moment(headers.get("anthropic-ratelimit-unified-reset", ""), now)
        or _after(float(milliseconds) / 1000 if (milliseconds := _number(headers.get("retry-after-ms"))) else None, now)
        or _moment(headers.get("retry-after", ""), now)
        or _of_used_up(headers, now)
    )


def _of_used_up(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """The latest reset among the limits of which nothing remains; among all of them when none says so."""
    resets: dict[str, datetime] = {}
    for name, value in headers.items():
        low = name.lower()
        if low.startswith(("anthropic-ratelimit-", "x-ratelimit-")) and "reset" in low and (at := _moment(value, now)):
            resets[low] = at
    left = {name.lower(): value.strip() for name, value in headers.items()}
    used_up = [at for name, at in resets.items() if left.get(name.replace("reset", "remaining")) == "0"]
    return max(used_up or resets.values(), default=None)


def _from_body(body: str, now: datetime) -> datetime | None:
    for pattern in _IN_BODY:
        if found := pattern.search(body[:16_384]):
            groups = found.groupdict()
            text = groups.get("at") or groups.get("span") or groups.get("seconds") or ""
            if at := _moment(text.rstrip("."), now):
                return at
    return None


def _moment(text: str, now: datetime) -> datetime | None:
    """A number of seconds, a time span, seconds or milliseconds since 1970, or a date: the moment that it means."""
    text = text.strip()[:64]
    if (number := _number(text)) is not None:
        if number > 10**11:
            number /= 1000
        return _believed(_since_1970(number), now) if number > 10**8 else _after(number, now)
    if text and (span := _SPAN.fullmatch(text)):
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in span.groups())
        return _after(days * 86_400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000, now)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return _believed(at if at.tzinfo else at.replace(tzinfo=UTC), now)
    return None


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text.strip()) else None


def _since_1970(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _after(seconds: float | None, now: datetime) -> datetime | None:
    if seconds is None or seconds > MAX_WAIT.total_seconds():
        return None
    return now + timedelta(seconds=seconds)


def _believed(at: datetime, now: datetime) -> datetime | None:
    """The same moment in UTC, not before ``now``; None when it is too far away."""
    try:
        at = at.astimezone(UTC)
    except (OverflowError, ValueError):
        return None
    return max(at, now) if at - now <= MAX_WAIT else None


def _words(body: str) -> str:
    """The error's own message where the body is one of the usual shapes, else the body."""
    return clean_line(_message(_error_in(body), body), TEXT_CHARACTERS)


def _message(error: Mapping[str, Any], body: str) -> str:
    message = error.get("message")
    return message if isinstance(message, str) else body


def _error_in(body: str) -> Mapping[str, Any]:
    """The object that tells of the error, in any dialect; empty where there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    for holder in ("error", "response"):
        if isinstance(found, dict) and isinstance(inner := found.get(holder), dict):
            found = inner.get("error") if holder == "response" and isinstance(inner.get("error"), dict) else inner
    return found if isinstance(found, dict) else {}
