"""At the end of a run that has attacks in it: by group, how many were tried, how many held, how many cannot be here;
and the same of those that were tried from a virtual machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.attack_ids import GROUPS, attack_tests

MACHINES = "tests/vms/"


class AttackReport:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self._passed: dict[str, bool] = {}
        """Test without its parameters -> whether all of its runs passed."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.failed and not report.skipped):
            test = report.nodeid.partition("[")[0]
            self._passed[test] = self._passed.get(test, True) and report.passed

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for heading, machines in (("attacks", False), ("attacks from a virtual machine of QEMU", True)):
            place = f"{MACHINES}attacks/" if machines else "tests/attacks/"
            if any(test.startswith(place) for test in self._passed):
                terminalreporter.write_line(f"{heading} (docs/security.md has each):")
                for line in self._lines(machines=machines):
                    terminalreporter.write_line(f"  {line}")

    def _lines(self, *, machines: bool) -> Iterator[str]:
        known = attack_tests()
        for group, numbers in GROUPS.items():
            tests = [known.get(f"A{number:02}", set()) for number in numbers]
            runs = [{test for test in of_one if self._is_of(test, machines)} for of_one in tests]
            tried = [of_one for of_one in runs if of_one]
            held = [of_one for of_one in tried if all(self._passed[test] for test in of_one)]
            without = "" if machines else f", not possible here {sum(not of_one for of_one in tests)}"
            yield f"{group}: {len(numbers)} cases, tried {len(tried)}, held {len(held)}{without}"

    def _is_of(self, test: str, machines: bool) -> bool:
        return test in self._passed and test.startswith(MACHINES) is machines
