"""A store that is away while somebody follows a job: said once, and waited for (F22). A command that only begins fails
at once instead; whoever follows has something to lose."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tatin_jobs.cli.output import say
from tatin_jobs.errors import StoreUnavailable

PAUSE_SECONDS = 0.5

T = TypeVar("T")


class Outage:
    """``enough`` says when to wait no longer."""

    def __init__(self, enough: Callable[[], bool] = lambda: False) -> None:
        self._enough = enough
        self._away = False

    def ask(self, question: Callable[[], T]) -> T:
        """Its answer, whenever that comes.

        Raises:
            StoreUnavailable: there was none, and it is enough.
        """
        while True:
            try:
                answer = question()
            except StoreUnavailable as error:
                self.began(error)
                if self._enough():
                    raise
                time.sleep(PAUSE_SECONDS)
            else:
                self.ended()
                return answer

    def began(self, error: StoreUnavailable) -> None:
        """Say so, once an outage."""
        if not self._away:
            say(f"{error.what} Waiting for it; jobs that run go on.")
        self._away = True

    def ended(self) -> None:
        """The store has answered."""
        if self._away:
            say("The store is back.")
        self._away = False
