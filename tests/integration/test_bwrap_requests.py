"""Requests to a warden, and what they leave open: also when it is busy meanwhile, or nobody waits for the answer."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from worker.sandboxes.base import GUEST_HOME, SandboxSpec, StartSpec
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.bwrap.sandbox import BwrapSandbox
from worker.sandboxes.transfer import push_files

pytestmark = pytest.mark.needs("bwrap")
LARGE = ("x" * 80_000,) * 2
"""Arguments of one request, of which the socket holds two."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def provider(home: Home) -> BwrapProvider:
    return BwrapProvider(home, home.id())


@pytest.fixture
async def guest(home: Home, provider: BwrapProvider) -> AsyncIterator[BwrapSandbox]:
    sandbox = await provider.create(
        SandboxSpec(name=f"tatin-{home.id()}-requests-1", cpus=1, memory_mib=512, disk_mib=1000)
    )
    yield sandbox
    await provider.destroy(sandbox.name)


@contextmanager
def busy(guest: BwrapSandbox) -> Iterator[None]:
    """Its warden reads nothing meanwhile."""
    os.kill(guest.warden, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(guest.warden, signal.SIGCONT)


async def test_large_requests_at_once_wait_for_room(guest: BwrapSandbox) -> None:
    with busy(guest):
        short = [asyncio.create_task(guest.run_short(["echo", "short", *LARGE], most=2**18)) for _ in range(4)]
        piped = [asyncio.create_task(guest.run(["cat"], stdin=b"piped")) for _ in range(4)]
        await asyncio.sleep(0.1)
    done = await asyncio.gather(*short, *piped)
    assert [(one.exit_status, one.stdout[:5]) for one in done] == [(0, b"short")] * 4 + [(0, b"piped")] * 4


async def test_what_waits_for_room_is_killed_all_the_same(guest: BwrapSandbox) -> None:
    sleeping = asyncio.create_task(guest.run_short(["sleep", "1000"]))
    await guest.run(["true"])
    with busy(guest):
        large = [asyncio.create_task(guest.run_short(["true", *LARGE])) for _ in range(4)]
        await asyncio.sleep(0.1)
        sleeping.cancel()
        await asyncio.wait({sleeping})
    await asyncio.gather(*large)
    async with asyncio.timeout(20):
        while (await guest.run(["pgrep", "-x", "sleep"])).exit_status == 0:
            pass


async def test_what_waits_for_room_in_a_guest_that_dies_is_told_and_leaves_nothing_open(guest: BwrapSandbox) -> None:
    before = _open_files()
    with busy(guest):
        large = [asyncio.create_task(guest.run_short(["true", *LARGE])) for _ in range(4)]
        await asyncio.sleep(0.1)
        os.kill(guest.warden, signal.SIGKILL)
        done = await asyncio.gather(*large, return_exceptions=True)
    assert {type(one) for one in done} == {SandboxError}
    assert _open_files() <= before


async def test_a_pipe_that_cannot_be_made_is_told_and_leaves_none_open(
    guest: BwrapSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _open_files()
    pipes = iter([os.pipe, os.pipe, _no_pipe])
    monkeypatch.setattr(os, "pipe", lambda: next(pipes)())
    with pytest.raises(SandboxError, match="cannot be reached"):
        await guest.run(["true"])
    assert _open_files() == before


async def test_what_a_run_prints_before_anybody_follows_it_is_not_lost(guest: BwrapSandbox) -> None:
    """More than a pipe holds; and whoever follows it next has all of it too."""
    run = await guest.start(StartSpec(argv=("seq", "100000"), cwd=GUEST_HOME, label="counting"))
    await guest.run(["sh", "-c", "while pgrep -x seq; do sleep 0.01; done"])
    first, second = [[chunk.data async for chunk in run.follow()] for _ in range(2)]
    assert b"".join(first) == b"".join(second) == b"".join(b"%d\n" % number for number in range(1, 100_001))


async def test_a_run_that_nobody_reads_to_its_end_holds_nothing_up_and_leaves_nothing_open(guest: BwrapSandbox) -> None:
    before = _open_files()
    for label in ("never", "begun"):
        run = await guest.start(StartSpec(argv=("yes",), cwd=GUEST_HOME, label=label, output_limit_bytes=10**6))
    async for _ in run.follow():
        break
    assert (await guest.run(["echo", "well"])).stdout == b"well\n"
    await guest.kill_all()
    await run.stop(0)
    assert (await run.status()).exit_status == 137
    assert await guest.close()
    await guest.gone()
    assert _open_files() < before  # its own socket is closed


async def test_a_follower_that_leaves_a_quiet_run_is_noticed(guest: BwrapSandbox) -> None:
    run = await guest.start(StartSpec(argv=("sh", "-c", "echo up; exec sleep 100"), cwd=GUEST_HOME, label="quiet"))
    held = len(os.listdir(f"/proc/{guest.warden}/fd"))
    for offset in (1, 0, 0, 0):
        async with aclosing(run.follow(offset)) as follow:  # type: ignore[type-var]
            assert (await anext(follow)).data == b"up\n"[offset:]
    await guest.run(["true"])
    assert len(os.listdir(f"/proc/{guest.warden}/fd")) < held


async def test_a_start_that_is_refused_or_given_up_leaves_nothing_open(guest: BwrapSandbox) -> None:
    spec = StartSpec(argv=("echo", "well"), cwd=GUEST_HOME, label="once")
    run = await guest.start(spec)
    before = _open_files()
    with pytest.raises(SandboxError, match="cannot be started"):
        await guest.start(spec)
    with busy(guest):
        given_up = asyncio.create_task(guest.start(replace(spec, label="never")))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.wait({given_up})
    assert _open_files() == before
    assert [chunk.data async for chunk in run.follow()] == [b"well\n"]


async def test_a_port_of_a_guest_that_died_is_nobody_elses(home: Home, provider: BwrapProvider) -> None:
    """A descriptor's number is given away again at once."""
    names = [f"tatin-{home.id()}-ports-{number}" for number in (1, 2)]
    specs = [SandboxSpec(name=name, cpus=1, memory_mib=512, disk_mib=1000, ports=(4018,)) for name in names]
    one = await provider.create(specs[0])
    os.kill(one.warden, signal.SIGKILL)
    await one.wait_dead()
    two = await provider.create(specs[1])
    try:
        with pytest.raises(SandboxError, match="is dead"):
            await one.serve(4018, _Greeter)
        await provider.destroy(names[0])
        await two.serve(4018, _Greeter)
        assert await _greeted(two) == b"b'hello'\n"
    finally:
        await provider.destroy(names[1])


async def test_ports_that_come_when_nobody_waits_any_more_are_closed(
    home: Home, provider: BwrapProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SandboxSpec(name=f"tatin-{home.id()}-ports-1", cpus=1, memory_mib=512, disk_mib=1000)
    await provider.create(spec)
    await provider.destroy(spec.name)
    before, receive = _open_files(), BwrapSandbox._receive

    def receive_and_give_up(sandbox: BwrapSandbox) -> None:
        receive(sandbox)
        if sandbox.warden and not sandbox._answers:
            making.cancel()

    monkeypatch.setattr(BwrapSandbox, "_receive", receive_and_give_up)
    making = asyncio.create_task(provider.create(replace(spec, ports=(4018,))))
    with pytest.raises(asyncio.CancelledError):
        await making
    monkeypatch.undo()
    await provider.destroy(spec.name)
    assert _open_files() <= before


async def test_many_files_with_long_names_are_too_much_for_one_request(guest: BwrapSandbox) -> None:
    files = {f"{GUEST_HOME}/{number:0>180}": b"" for number in range(950)}
    assert await guest.put_and_run(files, 0o644, ["true"], (GUEST_HOME, GUEST_HOME)) is None
    await push_files(guest, files)
    assert len((await guest.run(["ls"])).stdout.split()) > len(files)


async def test_a_long_file_is_copied_whole(guest: BwrapSandbox) -> None:
    program = ["sh", "-c", "seq 400000 > one"]
    done = await guest.put_and_run({}, 0o600, program, (f"{GUEST_HOME}/one", f"{GUEST_HOME}/two"))
    assert done is not None
    assert done.exit_status == 0
    assert (await guest.run(["cmp", "one", "two"])).exit_status == 0


async def test_a_port_that_is_ready_from_the_start_is_served_or_closed(home: Home, provider: BwrapProvider) -> None:
    name = f"tatin-{home.id()}-ports-1"
    spec = SandboxSpec(name=name, cpus=1, memory_mib=512, disk_mib=1000)
    await provider.create(spec)
    await provider.destroy(name)
    before = _open_files()
    guest = await provider.create(replace(spec, ports=(4018, 4019)))
    try:
        async with guest.python("import socket; socket.create_connection(('127.0.0.1', 4018))") as process:
            assert await process.wait() == 0
        await guest.serve(4018, _Greeter)
        assert await _greeted(guest) == b"b'hello'\n"
        with pytest.raises(SandboxError, match="cannot be served"):
            await guest.serve(4018, _Greeter)
    finally:
        await provider.destroy(name)
    await asyncio.sleep(0)
    assert _open_files() <= before


async def _greeted(guest: BwrapSandbox) -> bytes:
    read = "import socket; print(socket.create_connection(('127.0.0.1', 4018)).recv(9))"
    async with guest.python(read) as process:
        return await process.read("stdout")


class _Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


def _no_pipe() -> tuple[int, int]:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
