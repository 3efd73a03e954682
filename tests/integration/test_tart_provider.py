"""The Tart provider against the stand-in, where no guest is needed: what goes wrong, and what is left behind then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tatin_jobs.errors import DiskFull, HostBusy, SandboxError
from tatin_jobs.home import Home
from tests.support.tart import STAND_IN, Tart
from tests.support.wait import until
from worker.sandboxes.base import SandboxSpec
from worker.sandboxes.tart import machine as tart_machine
from worker.sandboxes.tart import provider as tart_provider
from worker.sandboxes.tart.machine import TartMachine
from worker.sandboxes.tart.provider import TartProvider

HOME_ID = "0123abcd"
NAME = f"tatin-{HOME_ID}-abc-1"
SPEC = SandboxSpec(name=NAME, cpus=2, memory_mib=1024, disk_mib=1900)


@pytest.fixture
def tart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tart]:
    """A Tart with the image ``tatin``; the worker finds it first on its PATH."""
    made = Tart(tmp_path / "tart")
    made.good("create", "tatin", "--linux", "--disk-size", "2")
    made.good("create", "of-somebody", "--linux", "--disk-size", "2")
    made.dial(agent_seconds=0.2)
    monkeypatch.setenv("TART_HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{STAND_IN.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(tart_provider, "BOOT_SECONDS", 3.0)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def provider(tart: Tart, home: Home) -> TartProvider:
    return TartProvider(home, HOME_ID)


def names(tart: Tart) -> set[str]:
    return {row["Name"] for row in tart.rows()}


def nothing_is_left(tart: Tart, home: Home) -> None:
    assert names(tart) == {"tatin", "of-somebody"}
    assert {path.name for path in (tart.home / "vms").iterdir()} == {"tatin", "of-somebody"}
    assert not [path for path in home.sandboxes.iterdir() if path.name.startswith("tatin-")]


def failure(provider: TartProvider, spec: SandboxSpec = SPEC) -> SandboxError | DiskFull:
    with pytest.raises((SandboxError, DiskFull)) as caught:
        asyncio.run(provider.create(spec))
    assert isinstance(caught.value, (SandboxError, DiskFull))
    return caught.value


def test_an_image_that_is_missing_is_told_at_once(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F59"""
    error = failure(provider, SandboxSpec(name=NAME, cpus=1, memory_mib=1024, disk_mib=1900, image="gone"))
    assert "Image 'gone' is not on this host" in error.what
    assert error.try_ == "tatin image build --sandbox tart"
    nothing_is_left(tart, home)


@pytest.mark.parametrize("whose", [f"tatin-{HOME_ID}-other-1", f"tatin-{HOME_ID}-memine-1"], ids=["job", "person"])
def test_a33_a_machine_that_was_kept_is_no_image_for_another_job(
    provider: TartProvider, tart: Tart, whose: str
) -> None:
    """A33: its name has the form of an image's."""
    tart.good("clone", "tatin", whose)
    error = failure(provider, SandboxSpec(name=NAME, cpus=1, memory_mib=1024, disk_mib=1900, image=whose))
    assert f"Image '{whose}' is not on this host" in error.what
    assert NAME not in names(tart)


def test_a_machine_that_is_there_is_not_replaced(provider: TartProvider, tart: Tart) -> None:
    tart.good("clone", "tatin", NAME)
    mac = tart.config(NAME)["macAddress"]
    assert "is there already" in failure(provider).what
    assert tart.config(NAME)["macAddress"] == mac


def test_a_full_disk_is_the_hosts_fault(provider: TartProvider, tart: Tart, home: Home) -> None:
    tart.dial(clone_fails='Error: The file couldn\'t be saved because "No space left on device".')
    assert isinstance(failure(provider), DiskFull)
    nothing_is_left(tart, home)


def test_half_a_clone_is_removed(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F50"""
    tart.dial(clone_fails="Error: input/output error")
    assert "input/output error" in (failure(provider).seen or "")
    nothing_is_left(tart, home)


def test_a_machine_that_does_not_boot_is_tried_once_more_with_a_new_clone(
    provider: TartProvider, tart: Tart, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50"""
    tart.dial(start_error='Error Domain=VZErrorDomain Code=2 "Failed to lock auxiliary storage."')
    booted = []
    boot = TartMachine.boot

    async def counted(name: str, folder: Path, network: tuple[str, ...]) -> TartMachine:
        booted.append(tart.config(name)["macAddress"])
        return await boot(name, folder, network)

    monkeypatch.setattr(TartMachine, "boot", counted)
    error = failure(provider)
    assert "Failed to lock auxiliary storage" in (error.seen or "")
    assert len(set(booted)) == 2
    nothing_is_left(tart, home)


def test_a_guest_that_is_never_reached_ends_in_time(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F51"""
    assert "could not be reached within 3 s" in failure(provider).what
    nothing_is_left(tart, home)


def test_a_guest_that_dies_while_it_boots_is_seen_at_once(
    provider: TartProvider, tart: Tart, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F53: and not after the whole time that a boot may take"""
    monkeypatch.setattr(tart_provider, "BOOT_SECONDS", 300.0)
    tart.dial(dies_after=0.5)
    assert "due to error" in (failure(provider).seen or "")
    nothing_is_left(tart, home)


@pytest.mark.parametrize(
    "dials", [{"list_prints": "[{"}, {"list_prints": '{"error": 1}'}, {"list_fails": 99}, {"list_hangs": 60}]
)
def test_an_unreadable_list_destroys_and_forgets_nothing(
    provider: TartProvider, tart: Tart, dials: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F11"""
    monkeypatch.setattr("worker.sandboxes.tart.cli.LIST_SECONDS", 2.0)
    tart.good("clone", "tatin", NAME)
    tart.dial(**dials)
    with pytest.raises(SandboxError):
        asyncio.run(provider.list())
    with pytest.raises(SandboxError):
        asyncio.run(provider.destroy(NAME))
    tart.dial(list_prints=None, list_fails=0, list_hangs=0)
    assert tart.state(NAME) == "stopped"


def test_only_ours_are_listed_and_destroyed(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F10"""
    foreign = "tatin-ffffffff-abc-1"
    tart.good("clone", "tatin", NAME)
    tart.good("clone", "tatin", foreign)
    (tart.home / "vms" / f"tatin-{HOME_ID}-half-1").mkdir()
    listed = asyncio.run(provider.list())
    assert listed == [NAME, f"tatin-{HOME_ID}-half-1"]
    for name in ("of-somebody", foreign, "tatin"):
        with pytest.raises(SandboxError, match="left alone"):
            asyncio.run(provider.destroy(name))
    for name in listed:
        asyncio.run(provider.destroy(name))
    assert names(tart) == {"tatin", "of-somebody", foreign}
    assert not (tart.home / "vms" / f"tatin-{HOME_ID}-half-1").exists()


def test_what_a_dead_worker_left_running_is_ended_by_its_note(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F16"""
    tart.good("clone", "tatin", NAME)
    folder = home.sandboxes / NAME
    folder.mkdir()

    program = (
        "import asyncio, os, sys; from pathlib import Path; from worker.sandboxes.tart.machine import TartMachine;"
        "machine = asyncio.get_event_loop_policy().new_event_loop().run_until_complete("
        "TartMachine.boot(sys.argv[1], Path(sys.argv[2]), ())); print(machine._process.pid, flush=True); os._exit(0)"
    )
    argv = [sys.executable, "-c", program, NAME, str(folder)]
    pid = int(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout)
    until(lambda: tart.state(NAME) == "running")
    asyncio.run(TartProvider(home, HOME_ID).destroy(NAME))
    until(lambda: not _lives(pid))
    nothing_is_left(tart, home)


def test_what_was_not_even_noted_is_ended_by_its_name(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F16: the worker died between the start and the note"""
    tart.good("clone", "tatin", NAME)
    process = tart.run(NAME)
    asyncio.run(provider.destroy(NAME))
    assert process.wait() == -signal.SIGKILL
    nothing_is_left(tart, home)


def _lives(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def test_a_delete_that_fails_for_a_moment_is_tried_again(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F54"""
    tart.good("clone", "tatin", NAME)
    tart.dial(delete_fails=2)
    asyncio.run(provider.destroy(NAME))
    nothing_is_left(tart, home)


def test_a_machine_whose_disk_is_still_held_is_not_gone(
    provider: TartProvider, tart: Tart, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F54: its memory is in use, so its capacity must stay booked"""
    monkeypatch.setattr(tart_machine, "GONE_SECONDS", 0.5)
    tart.good("clone", "tatin", NAME)
    tart.dial(helper_survives=True)
    process = tart.run(NAME)
    helpers = tart.home / "standin-helpers"
    until(helpers.exists)
    process.kill()
    process.wait()
    with pytest.raises(SandboxError, match="still held"):
        asyncio.run(provider.destroy(NAME))
    assert tart.state(NAME) == "stopped"
    os.kill(int(helpers.read_text()), signal.SIGKILL)
    helpers.unlink()
    asyncio.run(provider.destroy(NAME))
    nothing_is_left(tart, home)


def test_a_stop_that_is_not_heard_is_followed_by_signals(provider: TartProvider, tart: Tart, home: Home) -> None:
    """F54"""
    tart.good("clone", "tatin", NAME)
    tart.dial(stop_ignored=True)
    folder = home.sandboxes / NAME
    folder.mkdir()

    async def boot_and_destroy() -> None:
        await TartMachine.boot(NAME, folder, ())
        await asyncio.to_thread(until, lambda: tart.state(NAME) == "running")
        await provider.destroy(NAME)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tart_machine, "STOP_SECONDS", 1)
        asyncio.run(boot_and_destroy())
    nothing_is_left(tart, home)


def mac(tart: Tart, name: str) -> None:
    """A stopped macOS guest, or an image: the stand-in has no installer, and what it is stands in its config."""
    tart.good("create", name, "--linux", "--disk-size", "2")
    path = tart.home / "vms" / name / "config.json"
    path.write_text(json.dumps(tart.config(name) | {"os": "darwin"}))


def test_a_third_macos_guest_waits_and_linux_guests_do_not_count(
    provider: TartProvider, tart: Tart, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tart_provider, "BOOT_SECONDS", 0.5)
    mac(tart, "macos")
    for name in ("mac-1", "of-somebody"):
        tart.good("clone", "macos" if name != "of-somebody" else "tatin", f"{name}-runs")
        tart.run(f"{name}-runs")
    spec = replace(SPEC, image="macos")
    assert "could not be reached" in failure(provider, spec).what, (
        "one macOS guest runs, and a Linux one: there is room"
    )
    tart.good("clone", "macos", "mac-2-runs")
    tart.run("mac-2-runs")
    error = failure(provider, spec)
    assert isinstance(error, HostBusy)
    assert error.seen == "mac-1-runs, mac-2-runs"
    assert NAME not in names(tart)
    assert "could not be reached" in failure(provider).what, "a Linux guest is not kept waiting"


async def test_what_this_worker_is_making_counts_before_it_runs(provider: TartProvider, tart: Tart) -> None:
    mac(tart, "macos")
    specs = [replace(SPEC, name=f"tatin-{HOME_ID}-job{number}-1", image="macos") for number in range(3)]
    made = await asyncio.gather(*(provider._look_before(spec) for spec in specs), return_exceptions=True)
    assert [type(one) for one in made].count(HostBusy) == 1


def test_one_that_tart_itself_refuses_waits_too(provider: TartProvider, tart: Tart, home: Home) -> None:
    """Somebody else was faster."""
    tart.dial(start_error="The number of VMs exceeds the system limit (other running VMs: a, b)")
    assert isinstance(failure(provider), HostBusy)
    nothing_is_left(tart, home)


def test_doctor_says_what_is_missing(provider: TartProvider, tart: Tart, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {finding.name: finding.ok for finding in provider.check()} == {
        "tart": True,
        "tart image": True,
        "tart network": True,
    }
    tart.good("delete", "tatin")
    (image,) = (finding for finding in provider.check() if not finding.ok)
    assert image.fix == "tatin image build --sandbox tart"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (missing,) = provider.check()
    assert not missing.ok
    assert "brew install" in missing.fix


def test_a_host_without_softnet_says_what_its_guests_reach(provider: TartProvider) -> None:
    assert not provider.capabilities.egress_control
    assert "every network" in provider.capabilities.egress_warning
