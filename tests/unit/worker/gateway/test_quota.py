"""When a provider that has had enough will answer again, in the words of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.quota import QuotaSeen, quota_in_answer, quota_in_stream

NOW = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)


def seconds(quota: QuotaSeen | None) -> float | None:
    """From NOW to the reset."""
    assert quota is not None
    return None if quota.reset_at is None else (quota.reset_at - NOW).total_seconds()


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Wed, 25 Nov 2026 02:00:00 GMT"}, 3600),
        ({"retry-after": "Wed, 25 Nov 2026 00:00:00 GMT"}, 0),  # it is over already
        ({"anthropic-ratelimit-unified-reset": str(int(NOW.timestamp()) + 7200), "retry-after": "60"}, 7200),
        (
            {
                "anthropic-ratelimit-requests-remaining": "9",
                "anthropic-ratelimit-requests-reset": "2026-11-25T03:00:00Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-11-25T01:00:30Z",
            },
            30,
        ),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1h6m0.5s",
                "x-ratelimit-remaining-tokens": "50",
                "x-ratelimit-reset-tokens": "7h",
            },
            3960.5,
        ),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp() * 1000) + 5000)}, 5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1" * 15}, None),
        ({"retry-after": str(33 * 86_400)}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_reset_time_of_a_429_is_read_from_its_headers(headers: dict[str, str], after: float | None) -> None:
    assert seconds(quota_in_answer(429, headers, "", NOW)) == after


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ({"error": {"message": "Rate limit reached for gpt-5. Please try again in 6m0s. Visit ..."}}, 360),
        ({"error": {"message": "Please try again in 1.5s."}}, 1.5),
        ({"error": {"message": "Please retry after 20 seconds"}}, 20),
        ({"error": {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 900}}, 900),
        ({"error": {"type": "usage_limit_reached", "message": "x", "resets_at": int(NOW.timestamp()) + 60}}, 60),
        ({"error": {"message": f"Claude AI usage limit reached|{int(NOW.timestamp()) + 5}"}}, 5),
        ({"error": {"message": "x", "details": [{"retryDelay": "32s"}]}}, 32),
        ({"error": {"message": "You exceeded your current quota."}}, None),
    ],
)
def test_reset_time_of_a_429_is_read_from_its_words(body: object, after: float | None) -> None:
    assert seconds(quota_in_answer(429, {}, json.dumps(body), NOW)) == after


def test_words_are_the_providers_own_on_one_clean_line() -> None:
    body = {"error": {"type": "rate_limit_error", "message": "Slow\n\x1b[31mdown " + "x" * 900}}
    quota = quota_in_answer(429, {}, json.dumps(body), NOW)
    assert quota is not None
    assert quota.text.startswith("Slow down x")
    assert len(quota.text) == 300


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (402, "", True),
        (400, '{"error":{"message":"Your credit balance is too low to access the Anthropic API."}}', True),
        (400, '{"error":{"message":"prompt is too long"}}', False),
        (403, '{"error":{"code":"insufficient_quota"}}', True),
        (400, '{"error":{"message":"You have reached your specified API usage limits."}}', True),
        (
            400,
            '{"error":{"message":"Unknown parameter: \'quota, try again in 20d\'.","code":"unknown_parameter"}}',
            False,
        ),
        (
            400,
            '{"error":{"type":"invalid_request_error","message":"rate_limit: Extra inputs are not permitted"}}',
            False,
        ),
        (403, "Rate limit exceeded", True),
        (401, '{"error":{"message":"quota"}}', False),
        (500, '{"error":{"message":"rate limit"}}', False),
        (529, '{"error":{"type":"overloaded_error"}}', False),
    ],
)
def test_only_answers_about_a_limit_are_taken_for_one(status: int, body: str, told: bool) -> None:
    assert (quota_in_answer(status, {}, body, NOW) is not None) is told


def test_limit_told_inside_a_stream() -> None:
    error = '{"type":"error","error":{"type":"rate_limit_error","message":"try again in 10s"}}'
    assert quota_in_stream(error, NOW) == QuotaSeen(NOW + timedelta(seconds=10), "try again in 10s")
    failed = '{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"No."}}}'
    assert quota_in_stream(failed, NOW) == QuotaSeen(None, "No.")
    assert quota_in_stream('{"type":"error","error":{"type":"overloaded_error"}}', NOW) is None


VALUES = st.text(max_size=30) | st.from_regex(r"[0-9dhms.TZ:+-]{1,25}", fullmatch=True)
NAMES = st.sampled_from(
    ["retry-after", "retry-after-ms", "anthropic-ratelimit-unified-reset", "x-ratelimit-reset-tokens"]
)


@given(status=st.integers(400, 599), headers=st.dictionaries(NAMES, VALUES), body=st.text(max_size=80) | VALUES)
def test_nothing_that_a_provider_writes_makes_it_raise_or_wait_for_years(
    status: int, headers: dict[str, str], body: str
) -> None:
    for quota in (quota_in_answer(status, headers, body, NOW), quota_in_stream(body, NOW)):
        if quota and quota.reset_at:
            assert NOW <= quota.reset_at <= NOW + timedelta(days=32)
