"""The lock of a shape: one holder at a time, and no file when nobody holds it."""

from __future__ import annotations

import os
from pathlib import Path

from tatin_jobs.home import Home
from worker.sandboxes.qemu.frozen import FrozenStates
from worker.sandboxes.qemu.lock import let_go, take


def test_one_holds_it_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = take(path)
    assert first is not None
    assert take(path) is None
    let_go(first)
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_file_that_went_while_it_was_waited_for_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    class GoesWhenOpened(type(path)):  # type: ignore[misc]
        """Somebody lets go between the opening and the locking."""

        def open(self, *arguments: object, **more: object) -> object:
            file = super().open(*arguments, **more)
            path.unlink()
            return file

    assert take(GoesWhenOpened(path)) is None, "another may have made a new one and hold that"
    lock = take(path)
    assert lock is not None
    let_go(lock)


async def test_locks_of_workers_that_were_killed_go_and_those_that_are_held_stay(tmp_path: Path) -> None:
    home = Home(tmp_path)
    frozen = home.machines / "frozen"
    (frozen / ".draft-left").mkdir(parents=True)
    (frozen / ".lock-left").touch()
    (frozen / ".lock-idle").touch()
    (frozen / ".draft-held").mkdir()
    held = take(frozen / ".lock-held")
    assert held is not None
    await FrozenStates(home).clear_drafts()
    assert sorted(os.listdir(frozen)) == [".draft-held", ".lock-held"]
    let_go(held)
    await FrozenStates(home).clear_drafts()
    assert os.listdir(frozen) == []
