"""Reward files as guests leave them: which number counts, and what cannot be used."""

from __future__ import annotations

import pytest

from worker.reward import parse_json, parse_text


@pytest.mark.parametrize(
    ("data", "reward", "passed"),
    [(b"1", 1.0, True), (b" 0.75\n", 0.75, False), (b"1.5", 1.5, True), (b"-1e3", -1000.0, False), (b"0", 0.0, False)],
)
def test_a_text_holds_one_number_and_one_or_more_is_a_pass(data: bytes, reward: float, passed: bool) -> None:
    found = parse_text(data)
    assert (found.reward, found.passed, found.problem) == (reward, passed, "")


@pytest.mark.parametrize("data", [b"", b"  \n", b"yes", b"nan", b"inf", b"1 2", b"\xff", b"1_0_x", b"9" * 5000 + b"e9"])
def test_a_text_that_holds_no_number_is_a_problem_and_no_pass(data: bytes) -> None:
    found = parse_text(data)
    assert (found.reward, found.passed) == (None, False)
    assert found.problem.startswith("reward.txt ")


@pytest.mark.parametrize(
    ("data", "reward", "rewards"),
    [
        (b'{"reward": 1}', 1.0, {"reward": 1.0}),
        (b'{"accuracy": 0.5}', 0.5, {"accuracy": 0.5}),
        (b'{"speed": 3, "reward": 0.25}', 0.25, {"speed": 3.0, "reward": 0.25}),
    ],
)
def test_of_an_object_the_reward_or_the_only_number_counts(
    data: bytes, reward: float, rewards: dict[str, float]
) -> None:
    found = parse_json(data)
    assert (found.reward, found.rewards, found.problem) == (reward, rewards, "")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"1", b"[1]", b"{}", b"null", b'{"reward": "1"}', b'{"reward": true}', b'{"reward": null}'),
        *(b'{"reward": NaN}', b'{"reward": 1e999}', b'{"a": 1, "b": 1}', b'{"reward": {"a": 1}}', b"[" * 100_000),
        b'{"reward": ' + b"9" * 400 + b"}",
        b"{" + b",".join(b'"n%d": 1' % number for number in range(65)) + b"}",
        b'{"' + b"x" * 101 + b'": 1}',
    ],
)
def test_anything_else_is_a_problem_and_no_pass(data: bytes) -> None:
    found = parse_json(data)
    assert (found.reward, found.passed) == (None, False)
    assert found.problem.startswith("reward.json ")
