"""Why a model route had the agent stopped, as the verdict on it."""

from __future__ import annotations

from tatin_jobs.states import Outcome, Reason
from worker.agents.base import Verdict
from worker.gateway import RouteUsage


def stopped_by_route(usage: RouteUsage, *, stopped: bool) -> Verdict | None:
    """None when it is not for the route to say. ``stopped``: the agent was, and did not end of itself.

    After a call that was refused for the budget the agent's own ending counts for nothing: it is not what it would have
    done. After a limit of the provider it does: it may have had its answer already.
    """
    if usage.over_budget:
        return Verdict(Outcome.FAILED, Reason.BUDGET, f"{usage.over_budget} The agent was stopped.")
    if stopped and usage.long_quota:
        said = f" It says: {usage.long_quota.text}" if usage.long_quota.text else ""
        text = f"The model provider is at a limit.{said} The agent was stopped: that is long to wait in a sandbox."
        return Verdict(Outcome.FAILED, Reason.QUOTA, text, reset_at=usage.long_quota.reset_at)
    return None
