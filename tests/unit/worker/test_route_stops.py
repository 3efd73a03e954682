"""Why a route had its agent stopped, and when its own ending counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tatin_jobs.states import Reason
from worker.gateway import QuotaSeen, RouteUsage
from worker.route_stops import stopped_by_route

NOW = datetime(2026, 11, 25, 1, 0, tzinfo=UTC)


def limited(seconds: float) -> RouteUsage:
    """After a call that met a limit which ends in so many seconds."""
    usage = RouteUsage()
    usage.failed("429", "It answered 429.")
    usage.saw_quota(QuotaSeen(NOW + timedelta(seconds=seconds), "Weekly limit."), NOW)
    return usage


def test_a_long_limit_stops_the_agent_and_says_when_it_ends() -> None:
    usage = limited(3600)
    assert usage.enough.is_set()
    verdict = stopped_by_route(usage, stopped=True)
    assert verdict is not None
    assert (verdict.reason, verdict.reset_at) == (Reason.QUOTA, NOW + timedelta(hours=1))
    assert "Weekly limit." in verdict.message


def test_a_stop_for_a_limit_is_one_also_when_another_call_went_well_meanwhile() -> None:
    usage = limited(3600)
    usage.went_well(answer=True)
    verdict = stopped_by_route(usage, stopped=True)
    assert verdict is not None
    assert verdict.reason is Reason.QUOTA


def test_an_agent_that_ended_of_itself_is_judged_by_what_it_said() -> None:
    assert stopped_by_route(limited(3600), stopped=False) is None


def test_a_short_limit_is_left_to_the_agents_own_retries() -> None:
    assert not limited(20).enough.is_set()


def test_a_spent_budget_counts_however_the_agent_ended() -> None:
    usage = RouteUsage()
    usage.stop_for_budget("The budget of 2 turns is spent.")
    usage.stop_for_budget("The budget of 9 turns is spent.")
    for stopped in (True, False):
        verdict = stopped_by_route(usage, stopped=stopped)
        assert verdict is not None
        assert (verdict.reason, verdict.message) == (
            Reason.BUDGET,
            "The budget of 2 turns is spent. The agent was stopped.",
        )
