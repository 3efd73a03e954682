"""The route's port comes into the guest over SSH."""

import pytest

from tests.attacks.test_model_route import (  # noqa: F401
    test_a74_a75_a76_an_agent_in_a_guest_gets_its_own_route_and_budget_and_no_more,
)

pytestmark = pytest.mark.needs("git", "valkey")
