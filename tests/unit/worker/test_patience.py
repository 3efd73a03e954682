"""What an attempt cannot go on without is asked for until the store answers (F20)."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import StoreUnavailable
from worker import patience
from worker.patience import ask


class Away:
    """A store that answers after so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def question(self, word: str) -> str:
        self.left -= 1
        if self.left >= 0:
            raise StoreUnavailable("The store does not answer.")
        return word


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.0)


async def test_an_answer_is_waited_for() -> None:
    """F20, F21."""
    assert await ask(60, Away(3).question, "yes") == "yes"


async def test_no_answer_for_too_long_is_told() -> None:
    with pytest.raises(StoreUnavailable):
        await ask(-1, Away(3).question, "yes")
