"""The contract of every provider (tests/contract/test_sandboxes.py), asked of Tart."""

from tests.contract.test_sandboxes import *  # noqa: F403
