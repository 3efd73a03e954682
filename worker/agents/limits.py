"""Usage limits in a tool's own words, and when they end: a subscription's limit may be told in text only."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_WAIT = timedelta(days=32)
_LIMITED = re.compile(
    r"(?:usage|session|weekly|5-hour|monthly|rate|opus|sonnet)[ -]limit|hit your .{0,40}limit|out of .{0,20}usage"
    r"|quota",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"limit reached\|(\d{9,11})")
_CLOCK = re.compile(
    r"resets?(?: at)? (?:(?P<month>[A-Z][a-z]{2})[a-z]* (?P<day>\d{1,2})(?:,? at)? )?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>am|pm)?(?: \((?P<zone>[A-Za-z_+/0-9-]{2,40})\))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def reset_in_text(text: str, now: datetime | None = None) -> tuple[bool, datetime | None]:
    """Whether ``text`` tells of a usage limit, and the moment (aware, UTC) at which it says that the limit ends.

    Known: ``... limit reached|1735689600``, ``resets 3pm``, ``resets at 3:30pm (Europe/Berlin)``, ``resets Nov 26 at
    9am (UTC)``. A time without a zone is taken as UTC, which is the zone of a guest.
    """
    text = text[:2000]
    if _LIMITED.search(text) is None:
        return False, None
    now = now or datetime.now(UTC)
    if found := _SECONDS.search(text):
        return True, believed(int(found[1]), now)
    if found := _CLOCK.search(text):
        return True, _clock(found, now)
    return True, None


def _clock(found: re.Match[str], now: datetime) -> datetime | None:
    try:
        zone = ZoneInfo(found["zone"]) if found["zone"] else UTC
        local = now.astimezone(zone)
        hour = int(found["hour"]) % 12 if found["half"] else int(found["hour"])
        hour += 12 if (found["half"] or "").lower() == "pm" else 0
        at = local.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"]:
            at = at.replace(month=_MONTHS.index(found["month"].lower()) + 1, day=int(found["day"]))
            at = at if at > local - timedelta(days=1) else at.replace(year=at.year + 1)
        elif at <= local:
            at += timedelta(days=1)
    except (ValueError, OverflowError, ZoneInfoNotFoundError, OSError):
        return None
    return believed(at.timestamp(), now)


def believed(seconds: float, now: datetime) -> datetime | None:
    """The moment that is so many seconds after 1970, not before ``now``; None when it is too far away to be true."""
    if seconds - now.timestamp() > MAX_WAIT.total_seconds():
        return None
    return max(datetime.fromtimestamp(seconds, UTC), now)
