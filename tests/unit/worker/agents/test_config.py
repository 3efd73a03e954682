"""The user's own configuration of a tool, and ours laid over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Reason
from worker.agents.config import as_file, merged, user_config


def test_ours_goes_before_theirs_key_by_key_and_the_rest_stays() -> None:
    theirs = {"a": {"x": 1, "y": [1, 2]}, "b": "kept", "c": {"deep": 1}}
    ours = {"a": {"y": [3], "z": 0}, "c": "flat"}
    assert merged(theirs, ours) == {"a": {"x": 1, "y": [3], "z": 0}, "b": "kept", "c": "flat"}
    assert theirs["a"] == {"x": 1, "y": [1, 2]}, "unchanged itself"
    assert as_file({"é": 1}, b'{"a": 2}') == b'{\n  "\\u00e9": 1,\n  "a": 2\n}\n'


def test_no_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert user_config(None) == {}
    (tmp_path / "own.json").write_text('{"theme": "dark"}')
    assert user_config(tmp_path / "own.json") == {"theme": "dark"}


@pytest.mark.parametrize("text", [None, "", "[1]", "{", "{" * 100_000, '"x"', "\udc80"])
def test_file_that_cannot_be_used_is_the_workers_fault_and_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "own.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AttemptError, match=r"own\.json") as refused:
        user_config(path)
    assert refused.value.reason is Reason.WORKER
