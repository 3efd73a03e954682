"""Why a model route had the agent stopped, as the verdict on it."""

from __future__ import annotations

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import Verdict
from worker.gateway import RouteUsage


def stopped_by_route(usage: RouteUsage) -> Verdict | None:
    """None when the route did not ask for it. However the agent ended in between: a call was refused, so what it did
    after that is not what it would have done."""
    if not usage.enough.is_set():
        return None
    if usage.over_budget:
        return Verdict(Outcome.FAILED, Reason.BUDGET, f"{usage.over_budget} The agent was stopped.")
    if usage.quota:
        text = f"{usage.last_error} The agent was stopped: that is long to wait in a sandbox."
        return Verdict(Outcome.FAILED, Reason.QUOTA, text, reset_at=usage.quota.reset_at)
    return None  # a call went well after all
