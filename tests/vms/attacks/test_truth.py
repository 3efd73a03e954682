"""What the agent says comes over SSH; what it writes into the launcher's notes is read by the same launcher."""

import pytest

from tests.attacks.test_truth import (  # noqa: F401
    made,
    test_a70_a_guest_that_writes_the_launchers_notes_gets_no_success_past_verify,
    test_a70_no_output_makes_a_failure_a_success,
)

pytestmark = pytest.mark.needs("git", "valkey")
