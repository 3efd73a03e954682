"""SSH to one guest: a pinned host key, the worker's own key, one connection that is made again when it drops.

The only module that knows asyncssh; its errors become ours here. Nothing of the user is read or used: no configuration,
no known_hosts, no agent, no password; and nothing is forwarded but the ports that ``serve`` was asked for. Whatever
the other side sends is from a guest, so every wait has a limit and every stream is read in pieces.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncssh

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import GuestProcess

CONNECT_SECONDS = 20.0
"""One try to connect and log in; an emulated guest takes about one."""
RECONNECT_SECONDS = 60.0
"""How long a dropped connection is tried again before the sandbox counts as failed."""
RETRY_SECONDS = 0.25
KEEPALIVE_SECONDS = 15.0
KEEPALIVES_MISSED = 4
CLOSE_SECONDS = 5.0
WRITE_BYTES = 256 * 1024
WINDOW_BYTES = 4 * 2**20
COMMAND_BYTES = 120_000
"""A command goes as one argument to the guest's shell, and Linux takes 131,071 bytes of it."""
_KEY_ALGORITHM = "ssh-ed25519"
Protocol = Callable[[], asyncio.BaseProtocol]
"""Called for each new connection, as ``loop.create_server`` does."""


@dataclass(frozen=True)
class Endpoint:
    """Where a guest's SSH server is and who it is. ``host_key`` is an OpenSSH public key line; no other is accepted.
    ``proxy``: a program whose stdin and stdout are the connection; ``host`` and ``port`` are only its name then."""

    host: str
    port: int
    user: str
    host_key: str
    proxy: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key as OpenSSH writes it."""

    private: str
    public: str


def new_key(comment: str) -> KeyPair:
    """A fresh key."""
    key = asyncssh.generate_private_key(_KEY_ALGORITHM, comment=comment)
    return KeyPair(key.export_private_key().decode(), key.export_public_key().decode().strip())


def worker_key(path: Path) -> KeyPair:
    """The key of this home's worker at ``path`` (mode 0600), made on first use; whole, or not at all.

    Raises:
        SandboxError: the file cannot be read or is no key.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key("tatin worker").private)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # the first of two processes wins
        draft.unlink()
    try:
        key = asyncssh.import_private_key(path.read_text())
        return KeyPair(path.read_text(), key.export_public_key().decode().strip())
    except (OSError, asyncssh.KeyImportError) as error:
        raise SandboxError(
            f"The worker's key '{path}' cannot be used.", seen=str(error), try_=f"rm {path}; a new one is made."
        ) from error


class Link:
    """The connection to one guest. Several programs and served ports share it; one that dropped is made again by
    whoever needs it next, and the ports with it.

    ``dead`` says that the guest itself is gone: then nothing is tried any more.
    """

    def __init__(self, name: str, endpoint: Endpoint, key: KeyPair, dead: Callable[[], str | None]) -> None:
        self.name = name
        self.endpoint = endpoint
        self._key = asyncssh.import_private_key(key.private)
        self._dead = dead
        self._lock = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._served: dict[int, Protocol] = {}
        self._closed = False

    async def connect(self, seconds: float = RECONNECT_SECONDS) -> asyncssh.SSHClientConnection:
        """The living connection, made again if need be.

        Raises:
            SandboxError: not within ``seconds``, the guest is dead, or what answers is not this guest (then at once).
        """
        async with self._lock:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            self._connection = None
            last = "nothing was tried"
            try:
                async with asyncio.timeout(seconds):
                    while True:
                        self._check_alive()
                        try:
                            connection = await self._try()
                            await self._listen_again(connection)
                        except (OSError, asyncssh.Error, TimeoutError) as error:
                            last = _words(error)
                            await asyncio.sleep(RETRY_SECONDS)
                        else:
                            self._connection = connection
                            return connection
            except TimeoutError as error:
                raise SandboxError(
                    f"Sandbox '{self.name}' cannot be reached by SSH within {seconds:g} s.", seen=last
                ) from error

    async def _try(self) -> asyncssh.SSHClientConnection:
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncssh.connect(
                    endpoint.host,
                    endpoint.port,
                    proxy_command=endpoint.proxy or None,
                    username=endpoint.user,
                    config=None,
                    known_hosts=([asyncssh.import_public_key(endpoint.host_key)], [], []),
                    server_host_key_algs=[_KEY_ALGORITHM],
                    client_keys=[self._key],
                    agent_path=None,
                    agent_forwarding=False,
                    x11_forwarding=False,
                    password=None,
                    preferred_auth="publickey",
                    password_auth=False,
                    kbdint_auth=False,
                    gss_auth=False,
                    gss_kex=False,
                    host_based_auth=False,
                    x509_trusted_certs=None,
                    compression_algs=None,
                    connect_timeout=CONNECT_SECONDS,
                    login_timeout=CONNECT_SECONDS,
                    keepalive_interval=KEEPALIVE_SECONDS,
                    keepalive_count_max=KEEPALIVES_MISSED,
                )
        except asyncssh.HostKeyNotVerifiable as error:
            raise SandboxError(
                f"Another machine answers in place of sandbox '{self.name}': its host key is not the pinned one.",
                seen=f"{endpoint.host}:{endpoint.port}",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise SandboxError(f"Sandbox '{self.name}' refuses the worker's key.", seen=_words(error)) from error

    def _check_alive(self) -> None:
        if self._closed:
            raise SandboxError(f"Sandbox '{self.name}' is closed.")
        if seen := self._dead():
            raise SandboxError(f"Sandbox '{self.name}' is dead.", seen=seen)

    # Programs

    @asynccontextmanager
    async def run(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> AsyncIterator[SshProcess]:
        """A program with this whole environment in this folder; leaving the context kills it.

        Raises:
            SandboxError: the guest could start nothing.
        """
        self._check_alive()
        command = command_line(argv, env, cwd)
        if len(command.encode()) > COMMAND_BYTES:
            raise SandboxError(f"A command of {len(command)} bytes is too long.", try_="put it into a file.")
        async with self.plain(command) as process:
            yield process

    @asynccontextmanager
    async def plain(self, command: str) -> AsyncIterator[SshProcess]:
        """What the user's shell makes of ``command``, in the environment that the guest's SSH server gives it; leaving
        the context kills it.

        Raises:
            SandboxError: the guest could start nothing.
        """
        process = await self._open(command)
        try:
            yield process
        finally:
            await process.close()

    async def _open(self, command: str) -> SshProcess:
        for last in (False, True):
            connection = await self.connect()
            try:
                return await self._begin(connection, command)
            except (asyncssh.Error, OSError, TimeoutError) as error:
                if last or not connection.is_closed():
                    raise SandboxError(
                        f"Sandbox '{self.name}' could start nothing over SSH.", seen=_words(error)
                    ) from error
        raise AssertionError  # the loop returns or raises

    async def _begin(self, connection: asyncssh.SSHClientConnection, command: str) -> SshProcess:
        beginning = asyncio.ensure_future(connection.create_process(command, encoding=None, window=WINDOW_BYTES))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return SshProcess(self.name, await asyncio.shield(beginning))
        except asyncio.CancelledError:  # the guest may be slow to say so, and has begun all the same
            with suppress(TimeoutError, OSError, asyncssh.Error):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await SshProcess(self.name, await beginning).close()
            raise
        finally:
            beginning.cancel()

    async def lets_in(self, user: str, password: str) -> bool:
        """Whether the guest's SSH server takes this password of this user. Raises SandboxError: it does not answer."""
        endpoint = self.endpoint
        try:
            connection = await asyncssh.connect(
                endpoint.host,
                endpoint.port,
                proxy_command=endpoint.proxy or None,
                username=user,
                password=password,
                config=None,
                known_hosts=([asyncssh.import_public_key(endpoint.host_key)], [], []),
                client_keys=None,
                agent_path=None,
                preferred_auth="password,keyboard-interactive",
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
            )
        except asyncssh.PermissionDenied:
            return False
        except (asyncssh.Error, OSError) as error:
            raise SandboxError(f"Sandbox '{self.name}' does not answer a login.", seen=_words(error)) from error
        connection.abort()
        return True

    # Ports

    async def serve(self, port: int, protocol: Protocol) -> None:
        """Answer whoever connects to the guest's ``127.0.0.1:port``, as long as the link lives.

        Raises:
            SandboxError: the port is taken.
        """
        if port in self._served:
            raise SandboxError(f"Port {port} of sandbox '{self.name}' is served already.")
        connection = await self.connect()
        try:
            await self._listen(connection, port, protocol)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise SandboxError(f"Port {port} of sandbox '{self.name}' cannot be served.", seen=_words(error)) from error
        self._served[port] = protocol

    async def _listen(self, connection: asyncssh.SSHClientConnection, port: int, protocol: Protocol) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.create_server(lambda host, port: _answered(protocol), "127.0.0.1", port)
        except asyncssh.ChannelListenError as error:  # which is no asyncssh.Error
            raise ConnectionError(str(error)) from error

    async def _listen_again(self, connection: asyncssh.SSHClientConnection) -> None:
        for port, protocol in self._served.items():
            try:
                await self._listen(connection, port, protocol)
            except (asyncssh.Error, OSError, TimeoutError):
                connection.abort()  # the old connection's server may still hold the port for a moment
                raise

    @property
    def is_open(self) -> bool:
        """Whether the connection lives, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    def drop(self) -> None:
        """Cut the connection off; the next use makes another."""
        if self._connection is not None:
            self._connection.abort()

    async def renew(self, endpoint: Endpoint) -> None:
        """From now on the guest is known by another host key; the connection is made again with it."""
        self.endpoint = endpoint
        self.drop()
        self._connection = None
        await self.connect()

    async def close(self) -> None:
        """End it for good; safe to call twice."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            with suppress(TimeoutError, asyncssh.Error, OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await connection.wait_closed()


async def _answered(protocol: Protocol) -> asyncssh.SSHForwarder:
    """The guest's end of a connection that ``protocol`` answers: a pair of sockets, which no path names and which a
    worker that is killed does not leave behind."""
    loop = asyncio.get_running_loop()
    try:
        host, guest = socket.socketpair()
    except OSError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, _words(error)) from error
    try:
        await loop.connect_accepted_socket(protocol, host)
    except BaseException:
        host.close()
        guest.close()
        raise
    try:
        _, end = await loop.create_connection(asyncssh.SSHForwarder, sock=guest)
    except BaseException:
        guest.close()  # with which the other ends
        raise
    return asyncssh.SSHForwarder(end)


class SshProcess(GuestProcess):
    """A program in the guest, over one channel of the connection."""

    def __init__(self, name: str, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._name = name
        self._process = process

    async def write(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionError, asyncssh.Error):
            for start in range(0, len(data), WRITE_BYTES):
                self._process.stdin.write(data[start : start + WRITE_BYTES])
                await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        with suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()

    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        reader = self._process.stdout if stream == "stdout" else self._process.stderr
        try:
            return await reader.read(limit)
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error

    async def wait(self) -> int:
        await self._process.wait_closed()
        if self._process.exit_signal is not None:
            return 128 + _number(self._process.exit_signal[0])
        if self._process.exit_status is None:
            raise self._broken(None)
        return self._process.exit_status

    async def kill(self) -> None:
        with suppress(OSError, asyncssh.Error):
            self._process.send_signal("KILL")

    async def close(self) -> None:
        """Kill it if it still runs, and let go of its channel."""
        if self._process.is_closing() or (self._process.exit_status is None and self._process.exit_signal is None):
            await self.kill()
        self._process.close()
        with suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._process.wait_closed()

    def _broken(self, error: BaseException | None) -> SandboxError:
        seen = _words(error) if error else "the channel was closed without an exit status"
        return SandboxError(f"The connection to sandbox '{self._name}' broke.", seen=seen)


def command_line(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """One line for a POSIX shell that becomes ``argv`` with exactly this environment; nothing of it is expanded.

    ``env`` answers 127 for a program that is missing, as we promise.
    """
    variables = [f"{name}={value}" for name, value in env.items()]
    return f"cd -- {shlex.quote(cwd)} && exec env -i {shlex.join([*variables, *argv])}"


def _number(name: str) -> int:
    """A signal's number by its SSH name; one that nobody knows counts as SIGKILL."""
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        return int(signal.SIGKILL)


def _words(error: BaseException) -> str:
    """What a foreign error says, in one line; a guest may have written it. asyncio leaves out what an errno means."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno and os.strerror(error.errno) not in text:
        text = f"{os.strerror(error.errno)}: {text}"
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
