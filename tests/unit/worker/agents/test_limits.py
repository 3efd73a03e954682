"""When a usage limit ends, as tools say it in text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.agents.limits import reset_in_text

NOW = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "reset_at"),
    [
        ("Claude AI usage limit reached|1795629600", datetime(2026, 11, 25, 18, 0, tzinfo=UTC)),
        ("You've hit your 5-hour limit · resets 4:51pm (UTC)", datetime(2026, 11, 25, 16, 51, tzinfo=UTC)),
        ("You've hit your limit · resets 3am", datetime(2026, 11, 26, 3, 0, tzinfo=UTC)),
        ("You've hit your session limit · resets 12am", datetime(2026, 11, 26, 0, 0, tzinfo=UTC)),
        ("weekly limit reached, resets at 9am (Europe/Berlin)", datetime(2026, 11, 26, 8, 0, tzinfo=UTC)),
        ("weekly limit reached · resets Nov 28 at 9am (UTC)", datetime(2026, 11, 28, 9, 0, tzinfo=UTC)),
        ("weekly limit reached · resets Jan 2, 9am (UTC)", None),  # further away than any window
        ("usage limit reached, resets 25:99pm", None),
        ("usage limit reached, resets Xyz 40 at 9am", None),
        ("usage limit reached, resets 9am (No/Where)", None),
        ("usage limit reached|99999999999", None),
        ("You exceeded your current quota", None),
    ],
)
def test_limit_says_when_it_ends(text: str, reset_at: datetime | None) -> None:
    assert reset_in_text(text, NOW) == (True, reset_at)


def test_end_that_has_passed_is_now() -> None:
    assert reset_in_text("usage limit reached|1795600000", NOW) == (True, NOW)


@pytest.mark.parametrize("text", ["", "500 The server had an error", "the hard limit of the disk", "resets 3pm"])
def test_what_tells_of_no_limit_is_none(text: str) -> None:
    assert reset_in_text(text, NOW) == (False, None)
