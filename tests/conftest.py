"""Parts that a test needs, and what happens where one is missing.

On a laptop the test is skipped and says why. In CI (the variable ``CI`` is set) it fails, unless ``not_here.toml`` says
that CI's machine cannot have the part; those are printed with their reason and count.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.attack_report import AttackReport
from tests.support.parts import PARTS
from tests.support.ports import free_port

NOT_HERE: dict[str, str] = tomllib.loads((Path(__file__).parent / "not_here.toml").read_text())
_skipped: Counter[str] = Counter()
settings.register_profile("tatin", deadline=None)  # an example that is slow here may only have a busy machine
settings.load_profile("tatin")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(AttackReport(), "tatin-attack-report")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            _check(part)


def _check(part: str) -> None:
    why = PARTS[part]()  # a KeyError here is a misspelt part
    if why is None:
        return
    if part in NOT_HERE:
        _skipped[part] += 1
        pytest.skip(f"needs {part}: {NOT_HERE[part]}")
    if os.environ.get("CI"):
        pytest.fail(f"needs {part}, which CI must have: {why}")
    pytest.skip(f"needs {part}: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for part, count in sorted(_skipped.items()):
        terminalreporter.write_line(f"not here: {part} ({count} tests): {NOT_HERE[part]}")


@pytest.fixture
def unused_tcp_port() -> int:
    return free_port()
