"""What reaches a guest is the image, its seed disk and what is sent in."""

import pytest

from tests.attacks.test_secrets import (  # noqa: F401
    made,
    test_a73_a_guest_that_prints_all_it_can_see_shows_no_key,
    test_a73_a_job_secret_is_in_the_guest_and_nowhere_else,
)

pytestmark = pytest.mark.needs("git", "valkey")
