"""What doctor says of a host, and that each complaint has its remedy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.home import Home
from tatin_jobs.settings import ModelProvider, SecretSetting, Settings
from tatin_jobs.tools import TOOLS
from worker import doctor
from worker.agents import ADAPTERS
from worker.sandboxes.base import Capabilities, Finding

FINE = Finding("part", True, "there")
BROKEN = Finding("part", False, "not there", "install part")


class Provider:
    kind = "stub"
    capabilities = Capabilities(
        separate_kernel=True, egress_control=True, survives_worker=False, snapshot=False, sudo=False
    )

    def __init__(self, *findings: Finding) -> None:
        self._findings = findings

    def __call__(self, home: Home, home_id: str) -> Provider:
        return self

    def configure(self, settings: Settings) -> None:
        pass

    def check(self) -> Sequence[Finding]:
        return self._findings


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Provider]:
    made = {"strong": Provider(BROKEN), "weak": Provider(FINE, FINE)}
    monkeypatch.setattr(doctor, "KINDS", made)
    return made


def settings(tmp_path: Path, floor_mib: int = 0, **more: Any) -> Settings:
    return Settings(home=tmp_path / "home", worker_name="here", disk_floor_mib=floor_mib, **more)


def found(tmp_path: Path, name: str, **more: Any) -> Finding:
    [one] = [finding for finding in doctor.checks(settings(tmp_path, **more)) if finding.name == name]
    return one


def test_a_host_without_anything_configured_lacks_only_the_agent_tools(tmp_path: Path) -> None:
    findings = doctor.checks(settings(tmp_path))
    assert {finding.name for finding in findings if not finding.ok} == {
        f"agent tool {name}"
        for adapter in ADAPTERS.values()
        for name in adapter.tool_packages
        if not TOOLS[name].by_hand
    }
    assert not (tmp_path / "home").exists()


def test_auto_is_content_with_one_kind_that_works(tmp_path: Path) -> None:
    findings = doctor.checks(settings(tmp_path))
    assert [finding for finding in findings if finding.name == "part"] == [FINE, FINE]


def test_a_named_kind_that_does_not_work_is_told_with_its_remedy(tmp_path: Path) -> None:
    assert found(tmp_path, "part", sandbox="strong") == BROKEN


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, "only what their jobs allow"),
        ({"egress_gap": "every port of this host"}, "its guests also reach every port of this host"),
        ({"egress_control": False}, "its guests also reach every network that their host reaches"),
    ],
)
def test_a_kind_whose_guests_reach_more_is_told(
    tmp_path: Path, kinds: Mapping[str, Provider], changes: dict[str, Any], seen: str
) -> None:
    kinds["weak"].capabilities = dataclasses.replace(Provider.capabilities, **changes)
    finding = found(tmp_path, "network of guests")
    assert (finding.seen, finding.ok, bool(finding.fix)) == (seen, not changes, bool(changes))


@pytest.mark.parametrize(
    "text", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
)
def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    finding = found(tmp_path, "ca_certificate", gateway={"ca_certificate": path})
    assert not finding.ok
    assert "tatin.toml" in finding.fix


def test_an_unknown_kind_is_told(tmp_path: Path) -> None:
    finding = found(tmp_path, "sandbox", sandbox="docker")
    assert not finding.ok
    assert finding.fix == "one of: auto, strong, weak"


def test_a_missing_agent_tool_comes_with_the_command_that_installs_it(tmp_path: Path) -> None:
    assert found(tmp_path, "agent tool opencode").fix.endswith("-m tatin_jobs.tools install opencode")


def test_secrets_and_prices_are_looked_at_without_showing_them(tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("hunter2hunter2")
    given = {
        "GOOD": SecretSetting(file=tmp_path / "token"),
        "GONE": SecretSetting(env="TATIN_TEST_NOT_SET"),
    }
    assert found(tmp_path, "secret GOOD", secrets=given).ok
    gone = found(tmp_path, "secret GONE", secrets=given)
    assert not gone.ok
    assert "TATIN_TEST_NOT_SET" in gone.seen
    home = settings(tmp_path).home
    home.mkdir(exist_ok=True)
    (home / "prices.toml").write_text('[ollama]\n"*" = {input = 0, output = 0}\n')
    assert found(tmp_path, "prices").seen == "1 of your own"
    (home / "prices.toml").write_text("ollama = 1\n")
    assert not found(tmp_path, "prices").ok
    assert "hunter2" not in str(doctor.checks(settings(tmp_path, secrets=given)))


@pytest.mark.parametrize(("mode", "ok"), [(0o700, True), (0o750, False), (0o701, False)])
def test_a_home_that_others_can_enter_is_told(tmp_path: Path, mode: int, ok: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)
    finding = found(tmp_path, "home")
    assert finding.ok is ok
    assert finding.fix == ("" if ok else f"chmod 700 {tmp_path / 'home'}")


def test_a_disk_below_the_floor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk_mib", lambda place: 100)
    assert found(tmp_path, "disk").ok
    finding = next(one for one in doctor.checks(settings(tmp_path, 200)) if one.name == "disk")
    assert not finding.ok
    assert "tatin prune" in finding.fix


@pytest.mark.parametrize(("beat", "ok"), [(10, True), (20, True), (21, False)])
def test_a_lease_of_fewer_than_three_beats_is_told(tmp_path: Path, beat: float, ok: bool) -> None:
    finding = found(tmp_path, "lease", lease_seconds=60, beat_seconds=beat)
    assert finding.ok is ok
    assert ok or finding.fix == "set TATIN_LEASE_SECONDS to 63 or more"


def test_a_clock_from_before_the_installation_is_told() -> None:
    now = datetime.now(UTC)
    assert doctor._clock(now).ok
    assert not doctor._clock(now - timedelta(days=36_500)).ok


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)])
def test_only_supported_pythons_will_do(version: tuple[int, int], ok: bool) -> None:
    assert doctor._python(version).ok is ok


@pytest.mark.parametrize(
    ("said", "ok"), [("git version 2.30.0", True), ("git version 2.29.9 (Apple Git-1)", False), ("nonsense", False)]
)
def test_an_old_git_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, ok: bool) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found(tmp_path, "git").ok is ok


def test_a_missing_git_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not found(tmp_path, "git").ok


def test_a_key_that_is_there_is_said_to_be_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    provider = ModelProvider(base_url="https://models.example.com", key_env="SOME_KEY")
    finding = found(tmp_path, "model server paid", models={"paid": provider})
    assert finding.ok
    assert "sk-very" not in repr(finding)


@pytest.mark.parametrize(
    ("provider", "seen"),
    [
        (ModelProvider(base_url="https://models.example.com", key_env="NOT_SET_KEY"), "NOT_SET_KEY"),
        (ModelProvider(base_url="https://models.example.com", key_file=Path("/nonexistent/key")), "cannot be read"),
        (ModelProvider(base_url="ftp://models.example.com"), "cannot be used"),
    ],
)
def test_a_model_server_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: ModelProvider, seen: str
) -> None:
    monkeypatch.delenv("NOT_SET_KEY", raising=False)
    finding = found(tmp_path, "model server paid", models={"paid": provider})
    assert not finding.ok
    assert seen in finding.seen
    assert finding.fix


@pytest.mark.parametrize(("program", "ok"), [("sh", True), ("no-such-program-here", False)])
def test_a_notify_command_that_is_not_there_is_told(tmp_path: Path, program: str, ok: bool) -> None:
    assert found(tmp_path, "notify", notify=(program, "-c", "true")).ok is ok
