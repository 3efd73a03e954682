"""A user's own adapter: only where the worker's settings list it, because its code runs on the host."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Reason
from worker.agents import adapter
from worker.agents.command import CommandAdapter
from worker.agents.own import own_adapter


class Mine(CommandAdapter):
    name = "mine"


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("out of order")


HERE = __name__


def test_class_that_the_settings_list_is_loaded() -> None:
    assert type(adapter(f"{HERE}:Mine", (f"{HERE}:Mine",))).__name__ == "Mine"


def test_class_that_the_settings_do_not_list_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job file must not run code on the host."""

    def never(name: str) -> None:
        raise AssertionError(f"'{name}' was imported")

    monkeypatch.setattr("importlib.import_module", never)
    for allowed in ((), ("other:Class",)):
        with pytest.raises(AttemptError, match="does not let jobs use") as refused:
            adapter("os:system", allowed)
        assert refused.value.reason is Reason.REFUSED
        assert 'agent_classes = ["os:system"]' in (refused.value.try_ or "")


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("no_such_module_here:Agent", "ModuleNotFoundError"),
        (f"{HERE}:NoSuchClass", "AttributeError"),
        (f"{HERE}:Broken", "RuntimeError: out of order"),
        ("pathlib:Path", "it is a PosixPath"),
    ],
)
def test_class_that_cannot_be_used_says_why(name: str, seen: str) -> None:
    with pytest.raises(AttemptError) as failed:
        own_adapter(name, (name,))
    assert failed.value.reason is Reason.WORKER
    assert seen in (failed.value.seen or "")
