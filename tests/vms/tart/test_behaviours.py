"""What a stand-in for Tart must do (tests/contract/tart has all of it) where that is about what happens in a guest.

Each test's docstring begins with its number in the contract. On a Mac, ``TATIN_TEST_TART=tart`` runs the same tests
against the real one.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tatin_jobs.models import DEFAULT_IMAGE
from tests.support.tart import Tart, ended
from tests.support.wait import until

BOOT_SECONDS = 240.0


@dataclass(frozen=True)
class Guest:
    """A clone that runs; nobody has been let in."""

    tart: Tart
    name: str
    process: subprocess.Popen[str]

    def __call__(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.tart("exec", *(["-i"] if stdin is not None else []), self.name, *command, stdin=stdin)


@pytest.fixture(scope="module")
def guest(whole_tart: Tart) -> Iterator[Guest]:
    name = f"guest-{secrets.token_hex(4)}"
    whole_tart.good("clone", DEFAULT_IMAGE, name)
    process = whole_tart.run(name)
    made = Guest(whole_tart, name, process)
    until(lambda: made("true").returncode == 0, BOOT_SECONDS)
    yield made
    process.kill()
    process.communicate()
    until(lambda: whole_tart("delete", name).returncode != 1)


def test_port_22_answers_only_when_the_guest_has_a_key(guest: Guest) -> None:
    """33: it has an address before"""
    address = guest.tart.good("ip", guest.name, "--wait", "30").strip()
    assert _banner(address) == b""
    make = "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh"
    done = guest("sudo", "-n", "sh", "-c", make)
    assert done.returncode == 0, done
    assert until(lambda: _banner(address), 60).startswith(b"SSH-2.0")


def _banner(address: str) -> bytes:
    try:
        with socket.create_connection((address, 22), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_exec_is_the_guests(guest: Guest) -> None:
    """35: exit code, streams, the user that the image's agent runs as, no shell, stdin only when it is asked for"""
    done = guest("sh", "-c", "id -un; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "agent\n", "err\n")
    assert guest("sh", "-c", "kill -9 $$").returncode == 255
    assert guest("echo", "-i", "--", "$HOME", "a  b").stdout == "-i -- $HOME a  b\n"
    assert guest("cat", stdin="hello").stdout == "hello"
    assert guest.tart("exec", guest.name, "cat", stdin="hello").stdout == ""


_CALL = """
import socket, subprocess, sys
gateway = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True).stdout.split()[2]
print(socket.create_connection((gateway, int(sys.argv[1])), 10).recv(9).decode())
"""


def test_the_host_is_the_default_gateway_and_its_ports_are_open(guest: Guest) -> None:
    """34"""
    with socket.create_server(("0.0.0.0", 0)) as server:
        answer = threading.Thread(target=_answer, args=(server,))
        answer.start()
        done = guest("python3", "-c", _CALL, str(server.getsockname()[1]))
        assert done.stdout == "host\n\n", done.stderr
        answer.join()


def _answer(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(b"host\n")


def test_the_power_button_is_the_guests_to_heed(guest: Guest) -> None:
    """21: what it does then is its system's business"""
    if not guest.tart.is_stand_in:
        pytest.skip("a Mac's guest has a system that switches itself off then")
    looking = guest.tart.begin("exec", guest.name, "sudo", "-n", "sh", "-c", _LOOK)
    until(lambda: _pressed(guest, looking), 60)
    assert looking.stdout
    assert looking.stdout.read() == "pressed\n"
    assert guest("true").returncode == 0
    assert guest.process.stdout
    assert guest.process.stdout.readline() == "Requesting guest OS to stop...\n"


_LOOK = """
for device in /dev/input/event*; do timeout 60 cat $device >/dev/shm/${device##*/} 2>/dev/null </dev/null & done
until find /dev/shm -size +0 | grep -q event; do sleep 0.1; done
echo pressed
pkill -x cat
"""


def _pressed(guest: Guest, looking: subprocess.Popen[str]) -> bool:
    guest.process.send_signal(signal.SIGUSR2)
    time.sleep(0.3)
    return looking.poll() is not None


def test_a_guest_that_switches_itself_off_ends_run(guest: Guest) -> None:
    """19, 36: and what it had not synced is a matter of its own"""
    guest("sudo", "-n", "systemctl", "poweroff", "--force", "--force")
    code, stdout, stderr = ended(guest.process)
    assert (code, stdout.splitlines()[-1], stderr) == (0, "guest has stopped the virtual machine", "")
    assert guest.tart.state(guest.name) == "stopped"
    done = guest("true")
    assert (done.returncode, done.stderr) == (2, f'VM "{guest.name}" is not running\n')
