"""The gateway's port comes into the guest over SSH."""

import pytest

from tests.attacks.test_network import (  # noqa: F401
    guests,
    provider,
    test_a27_a50_no_address_that_is_not_public_is_reached_in_any_form,
    test_a27_a74_a_redirect_leads_no_further_than_a_request,
    test_a27_git_is_led_no_further_by_a_redirect,
    test_a50_a74_numbers_that_a_resolver_takes_for_addresses_are_no_names,
    test_a74_nothing_but_what_is_allowed_is_reached,
    test_a75_a78_a_gateway_ends_with_its_attempt,
    test_a75_a_guest_reaches_its_own_gateway_only,
)

pytestmark = pytest.mark.needs("git")
