"""At the end of a run that has attacks in it: by group, how many were tried, how many held, how many cannot be here."""

from __future__ import annotations

import pytest

from tests.support.attack_ids import GROUPS, attack_tests

_passed: dict[str, bool] = {}
"""Test without its parameters -> whether all of its runs passed."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or (report.failed and not report.skipped):
        test = report.nodeid.partition("[")[0]
        _passed[test] = _passed.get(test, True) and report.passed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    known = attack_tests()
    if not any(test.startswith("tests/attacks/") for test in _passed):
        return
    terminalreporter.write_line("attacks (docs/security.md has each):")
    for group, numbers in GROUPS.items():
        runs = [[test for test in known.get(f"A{number:02}", ()) if test in _passed] for number in numbers]
        tried = [tests for tests in runs if tests]
        held = [tests for tests in tried if all(_passed[test] for test in tests)]
        without = sum(f"A{number:02}" not in known for number in numbers)
        terminalreporter.write_line(
            f"  {group}: {len(numbers)} cases, tried {len(tried)}, held {len(held)}, not possible here {without}"
        )
