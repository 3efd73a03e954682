"""The worker as a service: what is written, and that nothing half-done is left."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.settings import Settings, load_settings
from worker.service import LABEL, STOP_MARGIN_SECONDS, Service, install, service, uninstall


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"TATIN_HOME": str(tmp_path / "a home")})


@pytest.fixture
def unit(settings: Settings, tmp_path: Path) -> Service:
    made = service(settings, ["--cpus", "4"], "linux")
    return replace(made, path=tmp_path / "units" / made.path.name)


@pytest.fixture
def agent(settings: Settings, tmp_path: Path) -> Service:
    made = service(settings, [], "darwin")
    return replace(made, path=tmp_path / "LaunchAgents" / made.path.name)


class Manager:
    """A service manager that remembers; ``broken`` refuses. A service that was stopped drains for ``drains`` looks.
    systemd stops what ``runs``."""

    def __init__(self, *, broken: bool = False, drains: int = 0) -> None:
        self.called: list[Sequence[str]] = []
        self._broken = broken
        self._drains = drains
        self.runs = False

    def __call__(self, argv: Sequence[str], seconds: float) -> None:
        self.called.append(argv)
        self._drains -= argv[1] == "print"
        if self._broken or (argv[1] == "print" and self._drains < 0):
            raise PartMissing("no bus")
        if "stop" in argv and not self.runs:
            raise PartMissing("Unit not loaded.")
        self.runs = "restart" in argv or (self.runs and "stop" not in argv)


def test_the_unit_runs_this_worker_on_this_home(unit: Service, settings: Settings) -> None:
    text = unit.text.decode()
    assert '"-m" "tatin_jobs.cli" "worker" "--cpus" "4"' in text
    assert f'Environment="TATIN_HOME={settings.home}"' in text
    assert "KillMode=process" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here to read it")
def test_systemd_reads_the_unit(unit: Service, tmp_path: Path) -> None:
    path = tmp_path / unit.path.name
    path.write_bytes(unit.text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert path.name not in done.stderr


def test_the_launchd_agent_is_a_plist(settings: Settings) -> None:
    made = service(settings, [], "darwin")
    body = plistlib.loads(made.text)
    assert body["Label"] == LABEL
    assert body["ProgramArguments"][1:] == ["-m", "tatin_jobs.cli", "worker"]
    assert body["EnvironmentVariables"]["TATIN_HOME"] == str(settings.home)
    assert body["ExitTimeOut"] == settings.drain_seconds + STOP_MARGIN_SECONDS


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_what_tatin_reads_of_this_shell_goes_along_and_nothing_else(tmp_path: Path, platform: str) -> None:
    environ = {"TATIN_HOME": str(tmp_path), "TATIN_SLOTS": "3", "PATH": "/a$b%c:/bin", "OPENAI_API_KEY": "sk-secret"}
    environ |= {"TATIN_REDIS_URL": "redis://user:secret@redis.example/0"}
    text = service(load_settings(environ), [], platform, environ).text.decode()
    assert "TATIN_SLOTS" in text
    assert ("/a$b%%c:/bin" if platform == "linux" else "/a$b%c:/bin") in text
    assert "secret" not in text


def test_a_setting_of_a_flag_is_the_flags(tmp_path: Path) -> None:
    environ = {"TATIN_HOME": str(tmp_path), "TATIN_SLOTS": "3"}
    settings = load_settings(environ, {"slots": 5})
    assert "TATIN_SLOTS" not in service(settings, ["--slots", "5"], "linux", environ).text.decode()


def test_installing_twice_replaces_and_uninstalling_removes(unit: Service, settings: Settings) -> None:
    manager = Manager()
    install(unit, settings, manager)
    install(unit, settings, manager)
    assert unit.path.read_bytes() == unit.text
    assert manager.called == [*unit.start, *unit.start], "systemd itself waits for the drain of the old one"
    assert uninstall(unit, manager)
    assert manager.called[6:] == [*unit.stop, *unit.after]
    assert not unit.path.exists()
    assert not uninstall(unit, manager)


def test_a_unit_whose_file_was_removed_is_uninstalled(unit: Service, settings: Settings) -> None:
    manager = Manager()
    install(unit, settings, manager)
    unit.path.unlink()
    assert uninstall(unit, manager)
    assert not manager.runs
    assert manager.called[-1:] == list(unit.after)
    assert not uninstall(unit, manager)


def test_launchd_is_given_the_new_one_when_the_old_one_is_gone(
    agent: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`launchctl bootout` answers while the worker drains, and `bootstrap` fails for as long."""
    monkeypatch.setattr("worker.service.LOOK_SECONDS", 0.01)
    install(agent, settings, Manager())
    manager = Manager(drains=3)
    install(agent, settings, manager)
    assert manager.called == [*agent.stop, *[agent.loaded] * 4, *agent.start]
    assert agent.path.stat().st_mode & 0o777 == 0o644


def test_one_that_does_not_end_is_told_and_stays(
    agent: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.service.LOOK_SECONDS", 0.01)
    install(agent, settings, Manager())
    with pytest.raises(PartMissing, match="has not ended"):
        uninstall(replace(agent, stop_seconds=0.05), Manager(drains=10**6))
    assert agent.path.exists()


def test_a_manager_that_refuses_leaves_nothing(unit: Service, settings: Settings) -> None:
    with pytest.raises(PartMissing):
        install(unit, settings, Manager(broken=True))
    assert not unit.path.exists()


def test_an_address_that_only_this_shell_knows_is_refused(unit: Service, tmp_path: Path) -> None:
    url = "redis://user:secret@redis.example/0"
    settings = load_settings({"TATIN_HOME": str(tmp_path), "TATIN_REDIS_URL": url})
    with pytest.raises(BadInput, match="does not see TATIN_REDIS_URL") as caught:
        install(unit, settings, Manager())
    assert "secret" not in str(caught.value)
    assert not unit.path.exists()


def test_another_system_says_what_to_do() -> None:
    with pytest.raises(PartMissing):
        service(load_settings({}), [], "freebsd")
