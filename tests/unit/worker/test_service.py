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
from worker.service import LABEL, Service, install, service, uninstall


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"TATIN_HOME": str(tmp_path / "a home")})


@pytest.fixture
def unit(settings: Settings, tmp_path: Path) -> Service:
    made = service(settings, ["--cpus", "4"], "linux")
    return replace(made, path=tmp_path / "units" / made.path.name)


class Manager:
    """A service manager that remembers; ``broken`` refuses."""

    def __init__(self, *, broken: bool = False) -> None:
        self.called: list[Sequence[str]] = []
        self._broken = broken

    def __call__(self, argv: Sequence[str]) -> None:
        self.called.append(argv)
        if self._broken:
            raise PartMissing("no bus")


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


def test_installing_twice_replaces_and_uninstalling_removes(unit: Service, settings: Settings) -> None:
    manager = Manager()
    install(unit, settings, manager)
    install(unit, settings, manager)
    assert unit.path.read_bytes() == unit.text
    assert manager.called == [*unit.start, *unit.stop, *unit.start]
    assert uninstall(unit, manager)
    assert not unit.path.exists()
    assert not uninstall(unit, manager)


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
