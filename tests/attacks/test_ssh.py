"""A56: what a hostile SSH server, which a guest is, can do to the worker: nothing but fail its own attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncssh
import pytest

from tatin_jobs.errors import CommandTimeout, SandboxError
from worker.sandboxes.base import Capabilities
from worker.sandboxes.remote import RemoteSandbox
from worker.ssh import Endpoint, Link, new_key

CAPABILITIES = Capabilities(separate_kernel=True, egress_control=True, survives_worker=True, snapshot=False, sudo=True)
Handler = Callable[["asyncssh.SSHServerProcess[bytes]"], Awaitable[None]]


class _LetIn(asyncssh.SSHServer):
    """Takes any key, and remembers the connection."""

    def __init__(self) -> None:
        self.connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


@asynccontextmanager
async def _sandbox_on(handler: Handler, servers: list[_LetIn] | None = None) -> AsyncIterator[RemoteSandbox]:
    host = new_key("host")

    def made() -> _LetIn:
        server = _LetIn()
        if servers is not None:
            servers.append(server)
        return server

    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=made,
        server_host_keys=[asyncssh.import_private_key(host.private)],
        process_factory=handler,
        encoding=None,
    )
    link = Link("tatin-test", Endpoint("127.0.0.1", listener.get_port(), "agent", host.public), new_key("w"), _alive)
    sandbox = RemoteSandbox("tatin-test", link, CAPABILITIES)
    try:
        yield sandbox
    finally:
        await sandbox.close()
        listener.close()


def _alive() -> None:
    return None


async def test_a56_an_endless_banner_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.ssh.CONNECT_SECONDS", 0.5)

    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"hello there\r\n" * 100)
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = Link("tatin-test", Endpoint("127.0.0.1", port, "agent", new_key("h").public), new_key("w"), _alive)
    with pytest.raises(SandboxError, match="cannot be reached"):
        await link.connect(1.0)
    server.close()


async def test_a56_an_exit_status_before_the_output_hides_none_of_it() -> None:
    async def early(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.channel.set_write_buffer_limits(high=2**22)
        process.stdout.write(b"x" * 100_000)
        process.exit(0)

    async with _sandbox_on(early) as sandbox:
        result = await sandbox.run(["anything"])
        assert (result.exit_status, len(result.stdout)) == (0, 100_000)


async def test_a56_a_channel_that_ends_without_a_status_is_no_success() -> None:
    async def vanish(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.close()

    async with _sandbox_on(vanish) as sandbox:
        with pytest.raises(SandboxError, match="broke"):
            await sandbox.run(["anything"])


async def test_a56_a_flood_is_kept_to_its_limit() -> None:
    async def flood(process: asyncssh.SSHServerProcess[bytes]) -> None:
        try:
            while True:
                process.stdout.write(b"y" * 2**16)
                await process.stdout.drain()
        except (OSError, asyncssh.Error):
            return

    async with _sandbox_on(flood) as sandbox:
        with pytest.raises(CommandTimeout):
            await sandbox.run(["yes"], timeout_seconds=0.5, max_output_bytes=1000)


async def test_a56_silence_is_ended_by_the_callers_limit() -> None:
    async def silent(_: asyncssh.SSHServerProcess[bytes]) -> None:
        await asyncio.sleep(60)

    async with _sandbox_on(silent) as sandbox:
        with pytest.raises(CommandTimeout):
            await sandbox.run(["anything"], timeout_seconds=0.3)


async def test_a56_the_server_can_open_no_channel_to_us() -> None:
    servers: list[_LetIn] = []

    async def fine(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.exit(0)

    async with _sandbox_on(fine, servers) as sandbox:
        assert (await sandbox.run(["true"])).exit_status == 0
        connection = servers[0].connection
        assert connection is not None
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_connection(asyncssh.SSHTCPSession, "127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_agent_connection()
        assert (await sandbox.run(["true"])).exit_status == 0


async def test_a56_signal_names_and_error_texts_of_a_guest_stay_harmless() -> None:
    async def odd(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.exit_with_signal("\x1b[31mNO-SUCH", False, "\x1b]52;c;aGk=\x07")

    async with _sandbox_on(odd) as sandbox:
        assert (await sandbox.run(["anything"])).exit_status == 137
