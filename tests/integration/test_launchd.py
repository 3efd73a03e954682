"""The worker as an agent of launchd, from install to uninstall, against a stand-in for ``launchctl``."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings, load_settings
from tests.support.cli import environment
from tests.support.wait import has_ended, until
from worker.reach import Reach, read_reach, wait_for_reach
from worker.service import Service, _run, install, service, uninstall

pytestmark = pytest.mark.needs("bwrap", "valkey")
LAUNCHCTL = Path(__file__).parents[1] / "standins" / "launchctl"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    path = f"{LAUNCHCTL}{os.pathsep}{os.environ['PATH']}"
    for name, value in {"PATH": path, "HOME": str(tmp_path), "LAUNCHCTL_STATE": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    made = load_settings({"TATIN_HOME": str(tmp_path / "home"), "TATIN_SANDBOX": "bwrap", "TATIN_DRAIN_SECONDS": "5"})
    Home(made.home).prepare()
    yield made
    if (reach := read_reach(Home(made.home))) is not None and not has_ended(reach.pid):
        os.kill(reach.pid, signal.SIGTERM)  # a killed one would leave its store's server
        until(lambda: has_ended(reach.pid), 60)


@pytest.fixture
def agent(settings: Settings) -> Service:
    environ = environment(settings.home, {"TATIN_SANDBOX": "bwrap", "TATIN_DRAIN_SECONDS": "5"})
    return service(settings, [], "darwin", environ)


def installed(agent: Service, settings: Settings) -> Reach:
    home = Home(settings.home)
    home.reach.unlink(missing_ok=True)
    install(agent, settings)
    reach = wait_for_reach(home)
    assert reach is not None, (settings.home / "launchd.log").read_text()
    return reach


def test_an_agent_starts_is_replaced_and_ends(agent: Service, settings: Settings) -> None:
    first = installed(agent, settings)
    assert first.state == "yes", "guests of bwrap need no network"
    assert not has_ended(first.pid)
    with pytest.raises(PartMissing, match="bootstrap"):
        _run(agent.start[-1], 10)
    second = installed(agent, settings)
    assert has_ended(first.pid)
    assert not has_ended(second.pid)
    assert uninstall(agent)
    assert has_ended(second.pid)
    assert not agent.path.exists()


def test_an_agent_whose_file_was_removed_is_replaced(agent: Service, settings: Settings) -> None:
    first = installed(agent, settings)
    agent.path.unlink()
    second = installed(agent, settings)
    assert has_ended(first.pid)
    assert not has_ended(second.pid)


def test_an_agent_whose_file_was_removed_is_uninstalled(agent: Service, settings: Settings) -> None:
    first = installed(agent, settings)
    agent.path.unlink()
    assert uninstall(agent)
    assert has_ended(first.pid)
    assert not uninstall(agent)


def test_what_launchd_refuses_leaves_nothing(agent: Service, settings: Settings) -> None:
    broken = replace(agent, start=(*agent.start, agent.start[-1]))
    with pytest.raises(PartMissing) as caught:
        install(broken, settings)
    assert "Input/output error" in (caught.value.seen or "")
    assert not agent.path.exists()
    agent.path.touch()
    uninstall(agent)
