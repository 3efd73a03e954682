"""What may cross a model route. (Attacks on it over a real connection: ``tests/attacks/test_model_route.py``.)"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.rules import PATHS, allowed_target, bears, body_complaint, request_headers, response_headers


@pytest.mark.parametrize(
    ("api", "method", "target", "passed"),
    [
        ("openai", "POST", "/v1/chat/completions", "/chat/completions"),
        ("openai", "POST", "/v1/responses?", "/responses"),
        ("openai", "GET", "/v1/models?limit=5", "/models?limit=5"),
        ("anthropic", "POST", "/v1/messages?beta=true", "/messages?beta=true"),
        ("anthropic", "POST", "/v1/messages/count_tokens", "/messages/count_tokens"),
        ("anthropic", "POST", "/v1/chat/completions", None),
        ("openai", "POST", "/v1/messages", None),
        ("openai", "POST", "/v1/messages\n", None),
        ("openai", "GET", "/v1/models?x=%0a", None),
        ("openai", "GET", "/v1/models?" + "x" * 513, None),
    ],
)
def test_target_that_is_passed_on(api: str, method: str, target: str, passed: str | None) -> None:
    assert allowed_target(api, method, target) == passed


@given(api=st.sampled_from(sorted(PATHS)), method=st.sampled_from(["GET", "POST"]), target=st.text())
def test_nothing_else_is_passed_on(api: str, method: str, target: str) -> None:
    path = target.partition("?")[0]
    assert (allowed_target(api, method, target) is not None) <= ((method, path) in PATHS[api])


@pytest.mark.parametrize(
    ("headers", "borne"),
    [
        ({"Authorization": "Bearer right"}, True),
        ({"Authorization": "bearer  right "}, True),
        ({"X-Api-Key": "right"}, True),
        ({}, False),
        ({"Authorization": "Basic right"}, False),
        ({"Authorization": "right"}, False),
        ({"Authorization": "Bearer wrong"}, False),
        ({"Authorization": "Bearer wrong", "X-Api-Key": "right"}, False),
        ({"X-Api-Key": "r\udcffght"}, False),
    ],
)
def test_token_is_taken_from_either_header(headers: dict[str, str], borne: bool) -> None:
    assert bears(headers, "right") is borne


def test_model_of_the_attempt_may_be_asked_for() -> None:
    body = {"messages": [{"role": "user", "content": '"model": "other", {"models": []}'}], "model": "qwen3:8b"}
    assert body_complaint(json.dumps(body).encode(), "qwen3:8b") is None
    assert body_complaint(json.dumps({**body, "nested": {"model": "other"}}).encode(), "qwen3:8b") is None


def test_refusal_names_the_model_of_the_attempt() -> None:
    assert body_complaint(b'{"model": "big"}', "small") == (
        "This attempt's model is 'small', and no other may be asked for."
    )


@given(st.binary(max_size=200))
def test_body_of_any_bytes_is_judged_without_an_error(body: bytes) -> None:
    assert body_complaint(body, "small") is not None


def test_headers_to_the_provider_are_on_a_list() -> None:
    given_ = {"Content-Type": "application/json", "User-Agent": "x", "Authorization": "Bearer t", "X-Api-Key": "t",
              "Cookie": "c", "Connection": "close", "Host": "h", "Accept-Encoding": "gzip"}  # fmt: skip
    assert dict(request_headers(given_, "openai", "key")) == {
        "Content-Type": "application/json",
        "User-Agent": "x",
        "Accept-Encoding": "identity",
        "Authorization": "Bearer key",
    }
    assert "Authorization" not in request_headers(given_, "openai", None)
    assert dict(request_headers({}, "anthropic", "key")) == {"Accept-Encoding": "identity", "X-Api-Key": "key"}


def test_headers_to_the_guest_are_on_a_list() -> None:
    given_ = {"Content-Type": "a/b", "Retry-After": "3", "anthropic-ratelimit-tokens-reset": "x", "X-RateLimit-Y": "z",
              "Set-Cookie": "s", "Server": "s", "Content-Length": "3", "Openai-Organization": "org"}  # fmt: skip
    assert sorted(response_headers(given_)) == sorted(
        ["Content-Type", "Retry-After", "anthropic-ratelimit-tokens-reset", "X-RateLimit-Y"]
    )
