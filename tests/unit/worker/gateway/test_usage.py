"""What is read out of answers, and whose fault a failed call is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatin_jobs.states import Reason
from worker.gateway.tokens import Tokens
from worker.gateway.usage import RouteUsage
from worker.gateway.usage_reader import MAX_BODY_BYTES, MAX_LINE_BYTES, AnswerReader, tokens_told
from worker.model_errors import status_reason


def stream(*events: object) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )


CHAT = stream(
    {"choices": [{"delta": {"content": 'say "[DONE]" and "type": "message_stop"'}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}},
    b"[DONE]",
)
MESSAGES = b"event: x\n" + stream(
    {"type": "message_start", "message": {"usage": {"input_tokens": 90, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"text": "hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
    {"type": "message_stop"},
)
RESPONSES = stream(
    {"type": "response.created", "response": {"error": None, "usage": None}},
    {"type": "response.output_text.delta", "delta": "hello"},
    {"type": "response.completed", "response": {"error": None, "usage": {"input_tokens": 70, "output_tokens": 5}}},
)


def _told(reader: AnswerReader) -> tuple[int | None, int | None]:
    tokens = reader.tokens or Tokens()
    return tokens.input, tokens.output


@pytest.mark.parametrize(
    ("body", "tokens"),
    [(CHAT, (120, 30)), (MESSAGES, (90, 25)), (RESPONSES, (70, 5))],
    ids=["chat", "messages", "responses"],
)
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_stream_tells_its_tokens_and_its_end(body: bytes, tokens: tuple[int, int], size: int) -> None:
    for data in (body, body.replace(b"\n", b"\r\n")):
        reader = AnswerReader("text/event-stream")
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
        reader.end()
        assert _told(reader) == tokens
        assert reader.finished
        assert not reader.failed


@pytest.mark.parametrize(
    ("body", "lines"), [(CHAT, 1), (MESSAGES, 3), (RESPONSES, 2)], ids=["chat", "messages", "responses"]
)
def test_stream_that_stops_before_its_end_mark_is_not_finished(body: bytes, lines: int) -> None:
    reader = AnswerReader("text/event-stream")
    reader.feed(b"\n\n".join(body.split(b"\n\n")[:lines]))
    reader.end()
    assert not reader.finished


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"error": {"message": "out of memory"}},
        {"error": "out of memory"},
        {"type": "response.failed", "response": {"error": {"code": "server_error"}}},
    ],
)
def test_error_inside_a_stream_is_its_end_and_a_failure(event: object) -> None:
    reader = AnswerReader("text/event-stream")
    reader.feed(stream(event))
    assert reader.failed
    assert reader.finished


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, (7, 2)),
        ({"input_tokens": 7, "output_tokens": 2}, (7, 2)),
        ({"input_tokens": 7}, (7, None)),
        ({"input_tokens": -1, "output_tokens": 10**15}, (None, None)),
        ({"input_tokens": True, "output_tokens": "5"}, (None, None)),
        ([], (None, None)),
    ],
)
def test_whole_answer_tells_its_tokens(usage: object, tokens: tuple[int | None, int | None]) -> None:
    reader = AnswerReader("application/json")
    reader.feed(json.dumps({"usage": usage}).encode())
    reader.end()
    assert _told(reader) == tokens
    assert reader.finished


@given(
    kind=st.sampled_from(["text/event-stream", "application/json", ""]),
    pieces=st.lists(
        st.binary(max_size=40) | st.sampled_from([b"data:", b'"usage"', b"\n", b'{"usage":', b"[[[["]), max_size=20
    ),
)
def test_reader_never_raises(kind: str, pieces: list[bytes]) -> None:
    reader = AnswerReader(kind)
    for piece in pieces:
        reader.feed(piece)
    reader.end()


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "audio/wav"])
def test_endless_answer_is_read_in_bounded_memory(kind: str) -> None:
    reader = AnswerReader(kind)
    for _ in range(500):
        reader.feed(b"x" * 65_536)
        assert len(reader._rest) <= max(MAX_LINE_BYTES, MAX_BODY_BYTES)
    reader.feed(b"\n" + stream(b'{"usage":{"input_tokens":1}}'))
    assert _told(reader)[0] == (1 if kind == "text/event-stream" else None)


def test_nobody_is_to_blame_before_a_call_failed() -> None:
    usage = RouteUsage()
    assert usage.blame() is usage.blame(stalled=True) is None


def test_newest_call_decides_who_is_to_blame() -> None:
    usage = RouteUsage()
    usage.failed("429", "It answered 429.")
    assert usage.blame() == (Reason.QUOTA, "It answered 429.")
    usage.failed("cut", "It broke off.")
    assert usage.blame() == (Reason.PROVIDER, "It broke off.")
    usage.went_well()
    assert usage.blame() is None
    assert usage.errors == {"429": 1, "cut": 1}


def test_call_given_up_is_the_providers_fault_only_for_an_agent_that_stalled() -> None:
    usage = RouteUsage()
    usage.given_up()
    assert usage.blame() is None
    blamed = usage.blame(stalled=True)
    assert blamed is not None
    assert blamed[0] is Reason.PROVIDER
    usage.went_well()
    assert usage.blame(stalled=True) is None


def test_tokens_stay_unknown_until_an_answer_names_some() -> None:
    unknown = Tokens() + Tokens()
    known = unknown + Tokens(input=5) + Tokens(input=2, output=0)
    assert not unknown.told
    assert known == Tokens(input=7, output=0)
    assert known.total == 7


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {"prompt_tokens": 100, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 60}},
            Tokens(input=40, output=9, cache_read=60),
        ),
        (
            {"input_tokens": 100, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 60}},
            Tokens(input=40, output=9, cache_read=60),
        ),
        (
            {
                "input_tokens": 40,
                "output_tokens": 9,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 5,
            },
            Tokens(input=40, output=9, cache_read=60, cache_write=5),
        ),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 60}}, Tokens(input=0, cache_read=60)),
        ({"input_tokens": 3, "input_tokens_details": {"cached_tokens": -1}}, Tokens(input=3)),
    ],
    ids=["chat", "responses", "messages", "more cached than given", "nonsense"],
)
def test_cached_tokens_are_counted_apart_in_every_dialect(usage: dict[str, object], tokens: Tokens) -> None:
    assert tokens_told(usage) == tokens


def test_figures_of_a_messages_stream_come_in_two_events() -> None:
    reader = AnswerReader("text/event-stream")
    reader.feed(
        stream(
            {"type": "message_start", "message": {"usage": {"input_tokens": 5, "cache_read_input_tokens": 70}}},
            {"type": "content_block_delta", "delta": {"text": "a"}},
            {"type": "content_block_delta", "delta": {"text": "b"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
        )
    )
    assert reader.tokens == Tokens(input=5, output=25, cache_read=70)
    assert reader.pieces == 3


def test_model_time_counts_parallel_calls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr("worker.gateway.usage.time.monotonic", lambda: next(times))
    usage = RouteUsage()
    usage.began()  # at 10
    usage.began()
    usage.ended()
    usage.ended()  # at 13
    usage.began()  # at 20
    usage.ended()  # at 21
    assert usage.model_seconds == 4
    assert usage.calls == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.AGENT), (401, Reason.AUTH), (402, Reason.QUOTA), (403, Reason.AUTH), (404, Reason.PROVIDER),
        (413, Reason.AGENT), (422, Reason.AGENT), (429, Reason.QUOTA), (500, Reason.PROVIDER), (529, Reason.PROVIDER),
    ],
)  # fmt: skip
def test_status_stands_for_a_reason(status: int, reason: Reason) -> None:
    assert status_reason(status) is reason


_LINES = [
    b'data: {"delta": {"content": "a"}}',
    b'data: {"choices": [{"delta": {"content": "\\"error\\": {"}, "finish_reason": null}], "usage": null}',
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}',
    b'data: {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}',
    b'data: {"type":"error","error":{"message":"x"}}',
    b"data: [DONE]",
    b"event: message_stop",
    b"",
]


@given(st.lists(st.sampled_from(_LINES), max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_stream_says_the_same_however_it_is_cut(lines: list[bytes], sizes: list[int]) -> None:
    """Blocks of words are counted whole, lines that tell of more are taken apart: both must read alike."""
    data = b"".join(line + b"\n" for line in lines)
    cut, whole = AnswerReader("text/event-stream"), AnswerReader("text/event-stream")
    for line in lines:
        whole.feed(line + b"\n")
    start = 0
    for size in sizes * (len(data) + 1):
        cut.feed(data[start : start + size])
        start += size
        if start >= len(data):
            break
    assert (cut.finished, cut.failed, cut.error, cut.tokens, cut.pieces) == (
        *(whole.finished, whole.failed, whole.error, whole.tokens, whole.pieces),
    )
