"""Sandbox names: how a host knows its own (I6)."""

from __future__ import annotations

import pytest

from worker.sandboxes.names import Owner, is_ours, parse_sandbox_name, sandbox_name, verify_name


def test_a_name_tells_home_job_and_attempt() -> None:
    name = sandbox_name("0a1b2c3d", "fix-the-tests-abcdefghjk", 12)
    assert name == "tatin-0a1b2c3d-abcdefghjk-12"
    assert parse_sandbox_name(name) == Owner("0a1b2c3d", "abcdefghjk", 12)
    assert is_ours(name, "0a1b2c3d")
    assert not is_ours(name, "ffffffff")


def test_the_sandbox_in_which_an_attempt_is_verified_is_ours_too() -> None:
    first = sandbox_name("0a1b2c3d", "fix-abcdefghjk", 12)
    second = verify_name(first)
    assert second != first
    assert parse_sandbox_name(second) == parse_sandbox_name(first)
    assert parse_sandbox_name(verify_name(second)) is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "tatin", "tatin-0a1b2c3d-abc", "tatin-0a1b2c3d-abc-0", "tatin-0A1B2C3D-abc-1", "my-tatin-0a1b2c3d-abc-1"),
        *("tatin-0a1b2c3d-../etc-1", "tatin-0a1b2c3d-abc-1\n", "tatin-0a1b2c3d-abc-123456", "-tatin-0a1b2c3d-abc-1"),
    ],
)
def test_anything_else_is_not_ours(name: str) -> None:
    assert parse_sandbox_name(name) is None


@pytest.mark.parametrize(("home", "job", "attempt"), [("home", "job-abc", 1), ("0a1b2c3d", "job-abc", 0)])
def test_no_name_is_made_of_what_is_no_name(home: str, job: str, attempt: int) -> None:
    with pytest.raises(ValueError, match="no sandbox name"):
        sandbox_name(home, job, attempt)
