"""clone, set, rename, delete: behaviours 11 to 18."""

from __future__ import annotations

import os
import signal

from tests.support.tart import Tart, ended
from tests.support.wait import until


def test_a_clone_is_silent_small_and_leaves_its_source(tart: Tart) -> None:
    """11"""
    disk = tart.home / "vms" / "base" / "disk.img"
    with disk.open("r+b") as file:
        file.write(b"system")
    before = disk.stat().st_mtime_ns
    done = tart("clone", "base", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    clone = tart.home / "vms" / "a" / "disk.img"
    assert clone.stat().st_size == disk.stat().st_size
    assert clone.stat().st_blocks * 512 < 2**20
    clone.write_bytes(b"other")
    assert disk.stat().st_mtime_ns == before


def test_a_running_source_is_accepted(tart: Tart) -> None:
    """11"""
    tart.run("base")
    tart.good("clone", "base", "a")
    assert tart.state("a") == "stopped"


def test_a_name_that_is_taken_is_replaced_even_while_it_runs(tart: Tart) -> None:
    """12"""
    tart.good("clone", "base", "a")
    process = tart.run("a")
    done = tart("clone", "base", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert tart.state("a") == "stopped"
    assert process.poll() is None
    assert tart("stop", "a").returncode == 2


def test_a_later_tart_may_refuse_a_name_that_is_taken(dials: Tart) -> None:
    """12"""
    dials.dial(refuse_existing=True)
    done = dials("clone", "base", "base")
    assert done.returncode == 1
    assert "already exists" in done.stderr


def test_a_mac_is_kept_unless_a_local_vm_has_it(tart: Tart) -> None:
    """13"""
    tart.good("clone", "base", "a")
    assert tart.config("a")["macAddress"] != tart.config("base")["macAddress"]
    before = tart.config("a")["macAddress"]
    tart.good("set", "a", "--random-mac")
    after = tart.config("a")["macAddress"]
    assert after != before
    assert int(after[:2], 16) & 0b11 == 0b10


def test_a_clone_of_an_image_keeps_the_images_mac(dials: Tart) -> None:
    """13"""
    dials.dial(registry={"example.test/debian:1": {"from": str(dials.home / "vms" / "base")}})
    dials.good("pull", "example.test/debian:1")
    mac = dials.config("base")["macAddress"]
    dials.good("delete", "base")
    dials.good("clone", "example.test/debian:1", "first")
    dials.good("clone", "example.test/debian:1", "second")
    assert dials.config("first")["macAddress"] == mac
    assert dials.config("second")["macAddress"] != mac


def test_clone_of_a_missing_image_fails_slowly(dials: Tart) -> None:
    """14"""
    done = dials("clone", "example.test/none:1", "a")
    assert done.returncode == 1
    assert "UnexpectedHTTPStatusCode" in done.stderr
    assert dials.state("a") is None


def test_names_are_hardly_checked(tart: Tart) -> None:
    """14"""
    assert tart("clone", "base", "a/b").returncode == 64
    tart.good("clone", "base", "with space")
    assert tart.state("with space") == "stopped"


def test_a_killed_clone_leaves_a_folder_that_the_next_command_removes(dials: Tart) -> None:
    """15"""
    dials.dial(clone_hangs=60)
    tmp = dials.home / "tmp"
    process = dials.begin("clone", "base", "a")
    until(lambda: any(tmp.iterdir()))
    process.kill()
    process.wait()
    assert any(tmp.iterdir())
    dials.good("list")
    assert not any(tmp.iterdir())


def test_an_interrupted_clone_removes_its_folder(dials: Tart) -> None:
    """15"""
    dials.dial(clone_hangs=60)
    tmp = dials.home / "tmp"
    process = dials.begin("clone", "base", "a")
    until(lambda: any(tmp.iterdir()))
    os.kill(process.pid, signal.SIGINT)
    assert ended(process)[0] != 0
    assert not any(tmp.iterdir())


def test_set_is_partly_done_on_a_wrong_disk_size(tart: Tart) -> None:
    """16"""
    done = tart("set", "base", "--cpu", "7", "--disk-size", "1")
    assert done.returncode == 1
    assert "new disk size of 1 GB should be larger than the current disk size of 2 GB" in done.stderr
    assert tart.config("base")["cpuCount"] == 7
    assert tart("set", "base", "--disk-size", "2").stdout == ""
    tart.good("set", "base", "--disk-size", "3")
    assert (tart.home / "vms" / "base" / "disk.img").stat().st_size == 3 * 10**9


def test_set_knows_minima_and_no_maxima(tart: Tart) -> None:
    """16"""
    done = tart("set", "base", "--cpu", "0")
    assert done.returncode == 1
    assert "LessThanMinimalResourcesError" in done.stderr
    tart.good("set", "base", "--cpu", "9999")


def test_set_of_a_running_vm_counts_from_the_next_start(tart: Tart) -> None:
    """16"""
    process = tart.run("base")
    tart.good("set", "base", "--cpu", "3")
    assert process.poll() is None
    assert tart.config("base")["cpuCount"] == 3


def test_delete_stops_at_the_first_error(tart: Tart) -> None:
    """17"""
    for name in "abc":
        tart.good("clone", "base", name)
    tart.run("b")
    done = tart("delete", "a", "b", "c")
    assert (done.returncode, done.stderr) == (1, 'VM "b" is running\n')
    assert (tart.state("a"), tart.state("b"), tart.state("c")) == (None, "running", "stopped")


def test_a_folder_without_a_configuration_stays_lying(tart: Tart) -> None:
    """17"""
    folder = tart.home / "vms" / "half"
    folder.mkdir()
    (folder / "disk.img").write_bytes(b"")
    assert tart("delete", "half").returncode == 2
    assert folder.exists()


def test_a_running_vm_can_be_renamed(tart: Tart) -> None:
    """18"""
    process = tart.run("base")
    tart.good("rename", "base", "other")
    assert tart.state("other") == "running"
    assert process.poll() is None
    tart.good("clone", "other", "third")
    assert tart("rename", "other", "third").returncode == 64
