"""What went through a model route, and whose fault it was when a call failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from tatin_jobs.models import Budget
from tatin_jobs.states import Reason
from worker.gateway.budget import spent
from worker.gateway.prices import Price
from worker.gateway.quota import QuotaSeen
from worker.gateway.tokens import Tokens
from worker.gateway.usage_reader import BYTES_PER_TOKEN, AnswerReader
from worker.model_errors import status_reason

UNREACHABLE = "unreachable"
TIMEOUT = "timeout"
CUT = "cut"
REDIRECT = "redirect"
HTML = "html"
EMPTY = "empty"
TOO_LARGE = "too_large"
STREAM_ERROR = "error"
CLOSED = "closed"
BUDGET = "budget"
"""Keys of ``RouteUsage.errors`` beside the statuses over 399. ``error``: one inside a stream that had begun."""


PATIENCE_SECONDS = 60
"""How long a limit may last for the agent to be left to its own retries."""


class CallFailed(Exception):
    """A call that had no good answer. ``kind`` is a key of ``RouteUsage.errors``, ``status`` what the guest gets."""

    def __init__(self, kind: str, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status


@dataclass
class RouteUsage:
    """Figures of one attempt's route, kept up to date while it runs. Tokens are as the provider counts them."""

    calls: int = 0
    """Calls that were passed on to the provider."""
    refused: int = 0
    """Calls that were not: wrong token, path, model or size."""
    errors: dict[str, int] = field(default_factory=dict)
    """Status of an answer over 399, or what else went wrong -> how often."""
    request_bytes: int = 0
    response_bytes: int = 0
    answered: int = 0
    """Calls that the model answered to their end: an agent's turns."""
    tokens: Tokens = field(default_factory=Tokens)
    """What the answers told of, in all."""
    untold: int = 0
    """Answered calls that told of no tokens."""
    estimated: Tokens = field(default_factory=Tokens)
    """For the budget alone: what answers took that told of nothing, or were cut, by the bytes asked and the pieces that
    came."""
    price: Price | None = None
    """None: the worker knows no price for this model."""
    budget: Budget | None = None
    enough: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    """Set when the agent is to be stopped: ``over_budget`` or ``long_quota`` says why."""
    over_budget: str | None = None
    """One sentence: what was spent when a call was refused or an answer cut for it."""
    last_status: int | None = None
    quota: QuotaSeen | None = None
    """The newest answer that told of a limit reached; None when a call went well after it, or there was none."""
    long_quota: QuotaSeen | None = None
    """A limit that ends so much later that the agent is stopped for it; kept whatever comes after."""
    last_error: str | None = None
    """One sentence for people about the newest call when it failed; None when it went well or there was none."""
    last_activity: float = 0.0
    """``time.monotonic()`` of the last sign of life: a call that began, or bytes of an answer. 0: none so far."""
    _last_kind: str = ""
    _given_up: bool = False
    _under_way: int = 0
    _live: set[AnswerReader] = field(default_factory=set)
    _asked: int = 0
    """Questions to the model that are under way."""
    _busy_since: float = 0.0
    _busy_seconds: float = 0.0

    def failed(self, kind: str, message: str) -> None:
        """Count a call that failed; ``kind`` is a key of ``errors``."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.last_error = message
        self._last_kind = kind
        self.quota = None
        self._given_up = False

    def went_well(self, *, answer: bool = False) -> None:
        """A call came to its end; ``answer``: with words of the model."""
        self.answered += answer
        self.last_error = None
        self.quota = None
        self._given_up = False

    def saw_quota(self, quota: QuotaSeen, now: datetime) -> None:
        """The call that just failed did so for a limit. Where that ends long from now, agents either give up or sleep
        until then: this one is stopped."""
        self.quota = quota
        if quota.text:
            self.last_error = f"{self.last_error} It says: {quota.text}"
        if quota.reset_at and (quota.reset_at - now).total_seconds() > PATIENCE_SECONDS:
            self.long_quota = quota
            self.enough.set()

    def given_up(self) -> None:
        """The guest went, or was killed, before a call had come to its end."""
        self._given_up = True

    def blame(self, *, stalled: bool = False) -> tuple[Reason, str] | None:
        """Whose fault it is that the newest call failed, and one sentence; None when it did not.

        For an agent whose own output does not say: one that was ended while it waited for its model, or that ended as
        if by itself. ``stalled``: it was ended because neither it nor the model gave a sign of life; then a call that
        was still under way is one that the provider did not answer.
        """
        if stalled and self._given_up:
            return Reason.PROVIDER, "The model provider did not go on with a call for all of that time."
        if self.last_error is None:
            return None
        if self.quota is not None:
            return Reason.QUOTA, self.last_error
        return status_reason(int(self._last_kind)) if self._last_kind.isdigit() else Reason.PROVIDER, self.last_error

    @property
    def last_was_ours(self) -> bool:
        """Whether the newest call failed by a rule of this side: it says nothing of the provider."""
        return self.last_error is not None and self._last_kind in (BUDGET, TOO_LARGE, CLOSED)

    def began(self) -> None:
        """A call goes to the provider."""
        self.calls += 1
        self._under_way += 1
        if self._under_way == 1:
            self._busy_since = time.monotonic()

    def ended(self) -> None:
        """It is over, well or not."""
        self._under_way -= 1
        if self._under_way == 0:
            self._busy_seconds += time.monotonic() - self._busy_since

    def spent(self, *, within_answer: bool = False) -> str | None:
        """Which part of the budget is used up, with what is under way counted as far as it is known; None while there
        is some left, or no budget. ``within_answer``: asked for an answer whose turn is counted already.
        """
        if self.budget is None:
            return None
        tokens = sum((reader.so_far() for reader in self._live), self.tokens + self.estimated)
        return spent(self.budget, self.price, tokens, 0 if within_answer else self.answered + self._asked)

    def stop_for_budget(self, why: str) -> None:
        """A call was refused, or an answer cut, because the budget is spent: the agent is to be stopped."""
        self.over_budget = self.over_budget or why
        self.enough.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A question to the model is under way: it may become a turn."""
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    @contextmanager
    def reading(self, reader: AnswerReader, request_bytes: int) -> Iterator[None]:
        """Its figures count while they come, and stay. ``request_bytes``: of the question, for one that tells none."""
        self._live.add(reader)
        try:
            yield
        finally:
            self._live.remove(reader)
            self.tokens += reader.tokens or Tokens()
            if reader.tokens is None:
                self.estimated += Tokens(input=request_bytes // BYTES_PER_TOKEN, output=reader.pieces)
            elif not reader.finished:
                self.estimated += Tokens(output=max(0, reader.pieces - (reader.tokens.output or 0)))

    @property
    def model_seconds(self) -> float:
        """How long there was at least one call under way."""
        return self._busy_seconds + (time.monotonic() - self._busy_since if self._under_way else 0.0)

    @property
    def cost_usd(self) -> float | None:
        """What the tokens cost; None where the price is unknown or no answer told of tokens."""
        return self.price.cost_usd(self.tokens) if self.price and self.tokens.told else None
