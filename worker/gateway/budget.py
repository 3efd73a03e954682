"""What is left of a job's budget at its model route. Pure functions."""

from __future__ import annotations

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import Budget
from tatin_jobs.states import Reason
from worker.gateway.prices import Price
from worker.gateway.tokens import Tokens


def check_budget(budget: Budget | None, price: Price | None, provider: str, model: str) -> None:
    """Before anything is spent.

    Raises:
        AttemptError: reason budget, a budget in dollars for a model whose price nobody knows.
    """
    if budget and budget.usd is not None and price is None:
        raise AttemptError(
            f"A budget of ${budget.usd:g} cannot be held: this worker knows no price for '{model}' of '{provider}'.",
            try_=f'add [{provider}] "{model}" = {{input = ..., output = ...}} to prices.toml on the worker, or limit'
            " `tokens` or `turns`.",
            reason=Reason.BUDGET,
        )


def spent(budget: Budget, price: Price | None, tokens: Tokens, turns: int) -> str | None:
    """Which part of the budget is used up, as one sentence for people; None while something is left of each.

    ``turns``: calls that were answered or may still be. A budget in dollars needs a ``price``; nobody opens a route
    with the one and without the other.
    """
    if budget.turns is not None and turns >= budget.turns:
        return f"The budget of {budget.turns:,} turns is spent."
    if budget.tokens is not None and tokens.total >= budget.tokens:
        return f"The budget of {budget.tokens:,} tokens is spent: {tokens.total:,} were used."
    if budget.usd is not None and price is not None and (cost := price.cost_usd(tokens)) >= budget.usd:
        return f"The budget of ${budget.usd:g} is spent: ${cost:.4f} were used."
    return None
