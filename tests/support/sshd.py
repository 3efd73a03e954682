"""A real OpenSSH server on loopback, as whoever runs the tests; no account, key or file of the machine is used."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.ports import free_port
from tests.support.wait import until
from worker.ssh import Endpoint, KeyPair, new_key

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Sshd:
    """One running server."""

    endpoint: Endpoint
    key: KeyPair
    process: psutil.Process

    def drop_connections(self) -> int:
        """Kill the processes of every connection, and nothing that was started over them; how many there were."""
        dropped = 0
        for child in self.process.children():
            for member in [child, *child.children()]:
                with suppress(psutil.Error):
                    if member.name().startswith("sshd"):
                        member.kill()
                        dropped += 1
        return dropped


@contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """A server with a key of its own that lets one key in."""
    host, client = new_key("host"), new_key("client")
    _write(folder / "host_key", host.private)
    _write(folder / "authorized", client.public)
    port = free_port()
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxSessions": 200,
    }
    _write(folder / "config", "".join(f"{name} {value}\n" for name, value in options.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    assert SSHD, "the test needs sshd"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        until(lambda: _accepts(port), what="sshd")
        endpoint = Endpoint("127.0.0.1", port, getpass.getuser(), host.public)
        yield Sshd(endpoint, client, psutil.Process(process.pid))
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        process.kill()
        process.wait()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n")
    path.chmod(0o600)
