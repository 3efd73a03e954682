"""Limits are the machine's own, and root of the guest may do what it likes with it."""

import pytest

from tests.attacks.test_resources import (  # noqa: F401
    made,
    test_a60_a_fork_bomb_ends_with_its_guest,
    test_a62_a_flood_of_output_is_cut_and_said_to_be,
    test_a64_a_guest_that_kills_all_it_can_still_ends_and_is_collected,
    test_a65_every_time_in_the_result_is_the_hosts,
    test_a67_a_guest_cannot_lengthen_its_life,
)

pytestmark = pytest.mark.needs("git", "valkey")
