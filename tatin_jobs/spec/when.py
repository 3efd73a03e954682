"""``not_before`` and ``deadline``: a time of day, or a date and time, of the submitter's -> an instant in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tatin_jobs.spec.checks import one_name
from tatin_jobs.spec.local_files import Surroundings
from tatin_jobs.spec.problems import FieldError

MAX_AHEAD = timedelta(days=366)

_TIME = re.compile(r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?")


def not_before(value: object, around: Surroundings) -> datetime:
    """The instant that is meant. Without a zone it is this process's.

    A time of day is the next one, also across a change of the clock. An instant that is past is returned as it is.

    Raises:
        FieldError: it is no time, there is no such date, or it is more than a year ahead.
    """
    text, now = one_name(value, "a time"), around.now
    if match := _TIME.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in match.groups())
        return _next(hour, minute, second, now)
    if _DATE_TIME.fullmatch(text) is None:
        raise FieldError("is no time.", "write 22:00, 2030-01-31T22:00 or 2030-01-31T22:00:00Z.")
    try:
        instant = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise FieldError("is no date that there is.") from error
    if instant > now + MAX_AHEAD:
        raise FieldError(f"is more than {MAX_AHEAD.days} days ahead.")
    return instant


def deadline(value: object, around: Surroundings) -> datetime:
    """As ``not_before``, but to come. Raises FieldError also when it is past."""
    instant = not_before(value, around)
    if instant <= around.now:
        raise FieldError("is past.", "write a time that is to come, or leave it out.")
    return instant


def _next(hour: int, minute: int, second: int, now: datetime) -> datetime:
    today = now.astimezone().replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0)
    # Naive times are this zone's, so each day's own offset from UTC counts.
    days = ((today + timedelta(days=day)).astimezone(UTC) for day in range(3))
    return next(instant for instant in days if instant > now)
