"""run: behaviours 19 to 30."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.support.tart import Tart, ended, host_agent
from tests.support.wait import until


def test_a_headless_start_says_nothing_and_power_off_ends_it(dials: Tart) -> None:
    """19"""
    dials.dial(powers_off_after=0.6)
    code, stdout, stderr = ended(dials.run("base"))
    assert (code, stdout, stderr) == (0, "guest has stopped the virtual machine\n", "")


def test_a_second_run_is_refused(tart: Tart) -> None:
    """20"""
    tart.run("base")
    done = tart("run", "base", "--no-graphics")
    assert (done.returncode, done.stderr) == (2, 'VM "base" is already running!\n')


def test_sigint_is_a_power_cut(tart: Tart) -> None:
    """21"""
    process = tart.run("base")
    until(lambda: _interrupted(process))
    code, stdout, _ = ended(process)
    assert (code, stdout) == (0, "Stopping VM...\n")


def _interrupted(process: subprocess.Popen[str]) -> bool:
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.05)
    return process.poll() is not None


def test_sigterm_kills_it_and_its_guest(dials: Tart) -> None:
    """21"""
    dials.dial(guest={"argv": ["sleep", "300"]})
    process = dials.run("base")
    until(lambda: bool(_children(process.pid)))
    (guest,) = _children(process.pid)
    process.terminate()
    assert ended(process)[:2] == (-signal.SIGTERM, "")
    until(lambda: not os.path.exists(f"/proc/{guest}"))


def _children(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid), "sleep"], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def test_sigusr2_presses_the_power_button_and_the_guest_decides(dials: Tart) -> None:
    """21"""
    dials.dial(ignores_acpi=True)
    process = dials.run("base")
    os.kill(process.pid, signal.SIGUSR2)
    assert process.stdout
    assert process.stdout.readline() == "Requesting guest OS to stop...\n"
    assert process.poll() is None
    dials.good("stop", "base")
    dials.dial(ignores_acpi=False)
    process = dials.run("base")
    os.kill(process.pid, signal.SIGUSR2)
    code, stdout, _ = ended(process)
    assert code == 0
    assert stdout.endswith("guest has stopped the virtual machine\n")


def test_suspend_of_linux_kills_it(tart: Tart) -> None:
    """21"""
    process = tart.run("base")
    tart.good("suspend", "base")
    code, stdout, _ = ended(process)
    assert code == 1
    assert stdout.startswith("Failed to suspend the VM: ")
    assert tart.state("base") == "stopped"


def test_sigint_is_not_heard_before_the_handler_is_there(dials: Tart) -> None:
    """22"""
    dials.dial(stop_ignored=True)
    process = dials.run("base")
    os.kill(process.pid, signal.SIGINT)
    dials.good("stop", "base", "--timeout", "1")
    assert ended(process)[0] == -signal.SIGKILL


def test_a_guest_that_dies_is_printed_and_exits_with_0(dials: Tart) -> None:
    """23"""
    dials.dial(guest={"argv": ["false"]})
    code, stdout, _ = ended(dials.begin("run", "base", "--no-graphics"))
    assert code == 0
    assert "guest has stopped the virtual machine due to error: " in stdout


def test_a_mac_that_runs_already_is_replaced(tart: Tart) -> None:
    """24"""
    tart.good("clone", "base", "a")
    config = tart.home / "vms" / "a" / "config.json"
    config.write_text(config.read_text().replace(tart.config("a")["macAddress"], tart.config("base")["macAddress"]))
    tart.run("base")
    process = tart.run("a")
    assert process.stdout
    assert process.stdout.readline() == "There is already a running VM with the same MAC address!\n"
    assert process.stdout.readline() == "Resetting VM to assign a new MAC address...\n"
    assert tart.config("a")["macAddress"] != tart.config("base")["macAddress"]


def test_all_flags_are_taken(tart: Tart) -> None:
    """25 (A53: no sound, no clipboard; what Tatin's own command line is made of)"""
    flags = "--no-audio --no-clipboard --no-pointer --no-keyboard --root-disk-opts sync=none".split()
    assert tart.run("base", *flags).poll() is None


@pytest.mark.parametrize(
    "flags", [["--net-softnet", "--net-host"], ["--net-bridged", "en0", "--net-softnet-allow", "::"]]
)
def test_networks_exclude_each_other(tart: Tart, flags: list[str]) -> None:
    """25"""
    done = tart("run", "base", "--no-graphics", *flags)
    assert done.returncode == 64
    assert "--net-bridged, --net-softnet and --net-host are mutually exclusive" in done.stderr


def test_a_linux_vm_is_not_suspendable(tart: Tart) -> None:
    """25"""
    done = tart("run", "base", "--no-graphics", "--suspendable")
    assert done.returncode == 64
    assert "You can only suspend macOS VMs" in done.stderr


def test_shared_folders_are_checked(tart: Tart) -> None:
    """25"""
    two = tart("run", "base", "--no-graphics", "--dir", "/tmp", "--dir", "/var:ro")
    assert two.returncode == 64
    assert "invalid --dir syntax: for multiple directory shares each one of them should be named" in two.stderr
    missing = tart("run", "base", "--no-graphics", "--dir", "/no/such/folder:ro,tag=x")
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error Domain=VZErrorDomain Code=2 ")


def test_a_start_can_fail_after_the_lock_was_held(dials: Tart) -> None:
    """26"""
    text = 'Error Domain=VZErrorDomain Code=2 "Failed to lock auxiliary storage."'
    dials.dial(start_error=text)
    process = dials.begin("run", "base", "--no-graphics")
    until(lambda: dials.state("base") == "running" or process.poll() is not None)
    code, _, stderr = ended(process)
    assert (code, stderr) == (1, f"{text}\n")
    assert dials.state("base") == "stopped"


def test_the_control_socket_stays_behind_a_kill(tart: Tart) -> None:
    """27"""
    control = tart.home / "vms" / "base" / "control.sock"
    assert not control.exists()
    process = tart.run("base")
    until(control.exists)
    process.kill()
    process.wait()
    assert control.exists()
    assert tart.run("base").poll() is None


def test_it_outlives_its_parent_in_a_session_of_its_own(tart: Tart) -> None:
    """28"""
    parent = (
        "import subprocess, sys;"
        "p = subprocess.Popen(sys.argv[1:], stdin=-3, stdout=-3, stderr=-3, start_new_session=True);"
        "print(p.pid)"
    )
    argv = [sys.executable, "-c", parent, tart.program, "run", "base", "--no-graphics"]
    done = subprocess.run(argv, env=tart.environ, capture_output=True, text=True, check=True)
    until(lambda: tart.state("base") == "running")
    tart.good("stop", "base")
    until(lambda: tart.state("base") == "stopped")
    assert int(done.stdout)


def test_linux_guests_have_no_limit_but_one_that_is_set(dials: Tart) -> None:
    """29"""
    for name in ("a", "b", "c"):
        dials.good("clone", "base", name)
        assert dials.run(name).poll() is None
    dials.dial(vm_limit=3)
    done = dials("run", "base", "--no-graphics")
    assert done.returncode == 1
    assert done.stderr == "The number of VMs exceeds the system limit (other running VMs: a, b, c)\n"


def test_only_one_vms_own_size_is_refused(dials: Tart) -> None:
    """30"""
    dials.dial(max_cpus=8)
    dials.good("clone", "base", "a")
    for name in ("base", "a"):
        dials.good("set", name, "--cpu", "8")
        assert dials.run(name).poll() is None
    dials.good("clone", "base", "big")
    dials.good("set", "big", "--cpu", "9")
    done = dials("run", "big", "--no-graphics")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Invalid virtual machine configuration. ")


def test_the_host_is_reached_from_the_guest(dials: Tart) -> None:
    """34: every port of it, by default. (This guest is a program of the host; QEMU's user network does the same.)"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=_answer, args=(server,))
        answer.start()
        dials.dial(guest={"argv": ["sleep", "300"], "exec": host_agent()})
        dials.run("base")
        until(lambda: dials("ip", "base").returncode == 0)
        port = server.getsockname()[1]
        line = f"import socket; print(socket.create_connection(('127.0.0.1', {port})).recv(9))"
        assert "host" in dials.good("exec", "base", sys.executable, "-c", line)
        answer.join()


def _answer(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(b"host\n")
