"""What every provider promises (``worker/sandboxes/base.py``). A deviation is a declared capability, nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tatin_jobs.errors import CommandTimeout, SandboxError
from tests.contract.conftest import HOME_ID, Make, spec_of
from tests.support.wait import until
from worker.sandboxes.base import (
    GUEST_HOME,
    GUEST_RUN,
    GUEST_WORK,
    SHORT_ERROR_BYTES,
    CommandResult,
    RunChunk,
    Sandbox,
    SandboxProvider,
    StartSpec,
)
from worker.sandboxes.transfer import push_files, push_tar

LONG = f"9{os.getpid()}"
"""Seconds that nobody else sleeps: guests of the fake provider see everybody's processes on this machine."""


def _start(*argv: str, **changes: object) -> StartSpec:
    return StartSpec(argv=argv, **{"cwd": GUEST_HOME, "timeout_seconds": 20, **changes})  # type: ignore[arg-type]


async def _output(follow: AsyncIterator[RunChunk], stream: str = "stdout") -> bytes:
    return b"".join([chunk.data async for chunk in follow if chunk.stream == stream])


async def _nobody_sleeps(sandbox: Sandbox) -> None:
    """A moment after it was killed."""
    until_gone = f"while ps ax 2>/dev/null | grep '[s]leep {LONG}'; do sleep 0.05; done"
    assert (await sandbox.run(["sh", "-c", until_gone], timeout_seconds=20)).exit_status == 0


# exec


async def test_both_streams_and_the_exit_status_come_back(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.exit_status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


async def test_stdin_arrives_byte_for_byte(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 5000
    result = await sandbox.run(["cat"], stdin=data, max_output_bytes=2**22)
    assert result.stdout == data


async def test_arguments_and_environment_pass_no_shell(sandbox: Sandbox) -> None:
    odd = "a b\n$(id) `id` \"'\\ \U0001f600"
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['ODD']]))"
    result = await sandbox.run(["python3", "-c", script, odd, "-rf"], env={"ODD": odd})
    assert json.loads(result.stdout) == [[odd, "-rf"], odd]


async def test_a_missing_program_is_a_result(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["no-such-program"])).exit_status == 127


async def test_programs_are_looked_for_in_the_path_that_they_are_given(sandbox: Sandbox) -> None:
    await sandbox.run(["sh", "-c", f"mkdir {GUEST_HOME}/own && ln -s /bin/echo {GUEST_HOME}/own/own-echo"])
    path = {"PATH": f"{GUEST_HOME}/own:/usr/bin:/bin"}
    assert (await sandbox.run(["own-echo", "found"], env=path)).stdout == b"found\n"
    run = await sandbox.start(_start("own-echo", "found", env=path))
    assert await _output(run.follow()) == b"found\n"


async def test_a_signal_is_told_by_the_exit_status(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["sh", "-c", "kill -9 $$"])).exit_status == 137


async def test_output_over_the_limit_is_cut_and_said_so(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "head -c 200000 /dev/zero"], max_output_bytes=1000)
    assert len(result.stdout) == 1000
    assert result.truncated


async def test_a_program_that_prints_little_has_a_shorter_way(sandbox: Sandbox) -> None:
    script = "cat; echo out; echo err >&2; echo $IT; exit 3"
    done = await sandbox.run_short(["sh", "-c", script], env={"IT": "is"})
    assert done == CommandResult(3, b"out\nis\n", b"err\n")
    assert (await sandbox.run_short(["no-such-program"])).exit_status == 127


@pytest.mark.parametrize(("count", "refused"), [(999, False), (1000, False), (1001, True), (200_000, True)])
async def test_what_it_prints_beyond_its_limit_is_refused(sandbox: Sandbox, count: int, refused: bool) -> None:
    done = await sandbox.run_short(["head", "-c", str(count), "/dev/zero"], most=1000)
    assert (done.truncated or done.exit_status != 0) == refused
    assert len(done.stdout) <= 1000
    assert refused or done == CommandResult(0, bytes(count), b"")


async def test_its_errors_hold_up_nothing(sandbox: Sandbox) -> None:
    done = await sandbox.run_short(["sh", "-c", "head -c 200000 /dev/zero >&2; echo done"])
    assert (done.stdout, done.stderr) == (b"done\n", bytes(SHORT_ERROR_BYTES))


async def test_it_is_killed_with_its_caller(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await sandbox.run_short(["sleep", LONG])
    await _nobody_sleeps(sandbox)


async def test_a_command_over_its_time_is_killed(sandbox: Sandbox) -> None:
    """Whenever that is: a slow guest may have begun it and not said so yet."""
    for seconds in (0.01, 0.05, 0.1, 0.15, 0.2, 0.3):
        with pytest.raises(CommandTimeout):
            await sandbox.run(["sleep", LONG], timeout_seconds=seconds)
    await _nobody_sleeps(sandbox)


async def test_a_program_that_closes_its_stdin_is_no_error(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "exec <&-; sleep 0.1; echo done"], stdin=b"x" * 2**20)
    assert result.stdout == b"done\n"


async def test_many_commands_run_at_once(sandbox: Sandbox) -> None:
    results = await asyncio.gather(*(sandbox.run(["sh", "-c", f"sleep 0.05; echo {n}"]) for n in range(20)))
    assert [int(result.stdout) for result in results] == list(range(20))


async def test_python_runs_source_with_arguments(sandbox: Sandbox) -> None:
    async with sandbox.python("import sys; print(sys.argv[1:], sys.stdin.read())", ["a", "b"]) as process:
        await process.write(b"in")
        await process.close_stdin()
        assert await process.read("stdout") == b"['a', 'b'] in\n"
        assert await process.wait() == 0


# files


async def test_files_a_program_over_them_and_a_copy_go_at_once_or_not_at_all(sandbox: Sandbox) -> None:
    one, two = f"{GUEST_HOME}/one", f"{GUEST_RUN}/two"
    await push_files(sandbox, {two: b"something longer that is replaced"}, 0o640)
    program = ["sh", "-c", "tr a-z A-Z < in > one && touch -t 200102030405 one && echo done"]
    done = await sandbox.put_and_run(
        {f"{GUEST_HOME}/in": b"\0text", f"{GUEST_HOME}/in.d/": b""}, 0o640, program, (one, two)
    )
    if done is None:  # this kind has no way for it
        assert (await sandbox.run(["ls", f"{GUEST_HOME}/in"])).exit_status != 0
        return
    assert (done.exit_status, done.stdout) == (0, b"done\n")
    seen = await sandbox.run(
        ["sh", "-c", f"cat {two}; cmp {one} {two} && ! [ {one} -nt {two} ] && ! [ {one} -ot {two} ]"]
    )
    assert (seen.exit_status, seen.stdout) == (0, b"\0TEXT"), seen
    failed = await sandbox.put_and_run({f"{GUEST_HOME}/in": b""}, 0o640, ["sh", "-c", "exit 3"], (one, f"{one}/two"))
    assert failed is not None
    assert failed.exit_status == 3
    for files, command, source in (
        ({f"{one}/in": b""}, "true", one),
        ({}, "true", f"{GUEST_HOME}/none"),
        ({}, "true", GUEST_HOME),
        ({}, "mkfifo pipe", f"{GUEST_HOME}/pipe"),
        ({}, "truncate -s 100M long", f"{GUEST_HOME}/long"),
    ):
        with pytest.raises(SandboxError, match="could not be written"):
            await sandbox.put_and_run(files, 0o640, command.split(), (source, two))


async def test_files_are_pushed_with_their_folders(sandbox: Sandbox) -> None:
    await push_files(sandbox, {f"{GUEST_WORK}/deep/er/file": b"one", f"{GUEST_RUN}/prompt.txt": b"\0two"})
    result = await sandbox.run(["cat", f"{GUEST_WORK}/deep/er/file", f"{GUEST_RUN}/prompt.txt"])
    assert result.stdout == b"one\0two"


async def test_files_in_the_way_are_a_sandbox_error(sandbox: Sandbox) -> None:
    await sandbox.run(["sh", "-c", f"echo > {GUEST_WORK}/file"])
    with pytest.raises(SandboxError):
        await push_files(sandbox, {f"{GUEST_WORK}/file/below": b"x"})


async def test_ten_thousand_files_go_in_and_come_back(sandbox: Sandbox) -> None:
    files = {f"{GUEST_WORK}/many/{number // 100}/{number}": str(number).encode() for number in range(10_000)}
    await push_files(sandbox, files)
    counted = await sandbox.run(["sh", "-c", "find many -type f | wc -l; cat many/99/9999"], cwd=GUEST_WORK)
    assert counted.stdout.split() == [b"10000", b"9999"]
    packed = await sandbox.run(["tar", "-cf", "-", "many"], cwd=GUEST_WORK, max_output_bytes=2**25, timeout_seconds=120)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        back = {f"{GUEST_WORK}/{one.name}": archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]
    assert back == files


async def test_a_large_file_streams_in_and_out(sandbox: Sandbox, tmp_path: Path) -> None:
    """A GB, or a tenth of it where a machine may be emulated: whole, and this process does not grow by it. The longer
    run: ``TATIN_TEST_MEGABYTES=1000 scripts/test vms -k large``."""
    megabytes = int(os.environ.get("TATIN_TEST_MEGABYTES") or (100 if sandbox.capabilities.separate_kernel else 1000))
    piece = tmp_path / "piece"
    piece.write_bytes(os.urandom(10 * 2**20))
    size = megabytes // 10 * piece.stat().st_size
    head = tarfile.TarInfo("large")
    head.size = size
    sent = hashlib.sha256()
    for _ in range(megabytes // 10):
        sent.update(piece.read_bytes())
    async with memory_watched() as grown:
        await push_tar(sandbox, [head.tobuf(), *[piece] * (megabytes // 10), bytes(1024)], GUEST_WORK)
        back = hashlib.sha256()
        async with sandbox.exec(["cat", f"{GUEST_WORK}/large"]) as process:
            await process.close_stdin()
            while data := await process.read("stdout", 2**18):
                back.update(data)
            assert await process.wait() == 0
    assert back.digest() == sent.digest()
    assert grown() < 50


@asynccontextmanager
async def memory_watched() -> AsyncIterator[Callable[[], float]]:
    """Looks all the while how large this process is: by how many MiB it had grown at most."""
    me = psutil.Process()
    before = most = me.memory_info().rss

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, me.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield lambda: (most - before) / 2**20
    finally:
        watching.cancel()


# start


async def test_a_program_whose_name_no_pipe_could_hold_is_told_and_holds_up_nothing(sandbox: Sandbox) -> None:
    run = await sandbox.start(_start("x" * 70_000))
    told = b"".join([chunk.data async for chunk in run.follow()])
    assert told.startswith(b"xxx")
    assert told.endswith(b"name too long\n")
    assert (await run.status()).exit_status == 126


async def test_a_run_is_followed_live_and_in_order(sandbox: Sandbox) -> None:
    script = f"echo 1; until [ -e {GUEST_HOME}/go ]; do sleep 0.05; done; echo 2; echo 3; echo err >&2; exit 3"
    run = await sandbox.start(_start("sh", "-c", script))
    chunks = []
    async for chunk in run.follow():
        chunks.append(chunk)
        if len(chunks) == 1:
            assert chunk.data == b"1\n", "it is told while the program runs"
            await sandbox.run(["touch", f"{GUEST_HOME}/go"])
    assert b"".join(chunk.data for chunk in chunks if chunk.stream == "stdout") == b"1\n2\n3\n"
    assert b"".join(chunk.data for chunk in chunks if chunk.stream == "stderr") == b"err\n"
    status = await run.status()
    assert (status.exit_status, status.timed_out, status.stdout_bytes, status.cut) == (3, False, 6, False)


async def test_a_run_is_read_again_from_any_offset(sandbox: Sandbox) -> None:
    run = await sandbox.start(_start("printf", "0123456789"))
    assert await _output(run.follow()) == b"0123456789"
    assert await _output(run.follow(4)) == b"456789"


async def test_a_run_reads_its_stdin_from_a_file(sandbox: Sandbox) -> None:
    await push_files(sandbox, {f"{GUEST_RUN}/prompt.txt": b"the prompt"})
    run = await sandbox.start(_start("cat", stdin_path=f"{GUEST_RUN}/prompt.txt"))
    assert await _output(run.follow()) == b"the prompt"


async def test_a_run_is_ended_at_its_limit_though_it_ignores_sigterm(sandbox: Sandbox) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 1; done"
    run = await sandbox.start(_start("sh", "-c", script, timeout_seconds=0.3, grace_seconds=0.3))
    assert await _output(run.follow()) == b"up\n"
    status = await run.status()
    assert status.timed_out
    assert status.exit_status == 137


async def test_stop_is_polite_first(sandbox: Sandbox) -> None:
    run = await sandbox.start(_start("sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    follow = run.follow()
    assert (await anext(follow)).data == b"up\n"
    await run.stop(5)
    await run.stop(5)
    assert b"bye\n" in await _output(follow)
    assert (await run.status()).exit_status == 0


async def test_output_over_the_limit_never_blocks_the_program(sandbox: Sandbox) -> None:
    """A62: what is over the limit is counted and dropped."""
    run = await sandbox.start(_start("head", "-c", "30000000", "/dev/zero", output_limit_bytes=1_000_000))
    assert len(await _output(run.follow())) == 1_000_000
    status = await run.status()
    assert (status.exit_status, status.stdout_bytes, status.cut) == (0, 30_000_000, True)


async def test_a_daemon_left_behind_does_not_keep_a_run_open(sandbox: Sandbox) -> None:
    """A63: the run ends with its program, and kill_all ends what it left."""
    run = await sandbox.start(_start("sh", "-c", f"(setsid sleep {LONG} &) ; echo done"))
    async with asyncio.timeout(15):
        assert await _output(run.follow()) == b"done\n"
    await sandbox.kill_all()
    left = await sandbox.run(["sh", "-c", f"ps ax 2>/dev/null | grep -c '[s]leep {LONG}'"])
    assert left.stdout.strip() == b"0"


async def test_a_run_whose_watcher_was_killed_has_ended(sandbox: Sandbox) -> None:
    """A64: at once, and as one that was killed; what it had printed is there. Where the watcher is in nobody's reach,
    that is so of the program."""
    run = await sandbox.start(_start("sh", "-c", f"echo $$ > {GUEST_HOME}/program; echo up; sleep 300"))
    follow = run.follow()
    assert (await anext(follow)).data == b"up\n"
    await sandbox.run(["sh", "-c", f"kill -9 $(cat {GUEST_RUN}/agent/watcher || cat {GUEST_HOME}/program)"])
    async with asyncio.timeout(60):
        assert await _output(follow) == b""
    assert (await run.status()).exit_status == 137


async def test_a_follower_that_reads_nothing_holds_up_nobody(sandbox: Sandbox) -> None:
    """Not the program, not another follower, not another command; and it has missed nothing when it reads on."""
    run = await sandbox.start(_start("sh", "-c", "echo first; head -c 3000000 /dev/zero; echo last"))
    slow = run.follow()
    assert (await anext(slow)).offset == 0
    quick = await _output(run.follow())
    assert quick == b"first\n" + bytes(3_000_000) + b"last\n"
    assert (await sandbox.run(["echo", "here"])).stdout == b"here\n"
    assert (await _output(slow)).endswith(quick[-2_000_000:])


async def test_a_stdin_that_nobody_writes_to_holds_up_nobody(sandbox: Sandbox) -> None:
    """What runs in the guest may put a pipe in the place of the file."""
    pipe = f"{GUEST_RUN}/pipe"
    assert (await sandbox.run(["mkfifo", pipe])).exit_status == 0
    run = await sandbox.start(_start("sh", "-c", "echo started", stdin_path=pipe))
    async with asyncio.timeout(60):
        assert await _output(run.follow()) == b"started\n"
        assert (await sandbox.run(["echo", "here"])).stdout == b"here\n"


async def test_a_run_that_cannot_be_described_to_the_system_is_told_as_one_that_cannot_start(sandbox: Sandbox) -> None:
    """A zero byte in an argument: the guest goes on."""
    run = await sandbox.start(_start("echo", "a\0b"))
    await _output(run.follow())
    assert (await run.status()).exit_status == 126
    assert (await sandbox.run(["echo", "here"])).stdout == b"here\n"


async def test_a_missing_agent_is_exit_status_127(sandbox: Sandbox) -> None:
    run = await sandbox.start(_start("no-such-agent"))
    assert b"no-such-agent: not found" in await _output(run.follow(), "stderr")
    assert (await run.status()).exit_status == 127


# serve


class _Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"host got " + data)  # type: ignore[attr-defined]
        self._transport.close()


_CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as link:
    link.sendall(b"hello")
    print(link.recv(100).decode())
"""


async def test_a_served_port_reaches_the_host_once_per_connection(sandbox: Sandbox, unused_tcp_port: int) -> None:
    await sandbox.serve(unused_tcp_port, _Greeter)
    for _ in range(3):
        result = await sandbox.run(["python3", "-c", _CLIENT, str(unused_tcp_port)])
        assert result.stdout == b"host got hello\n", result.stderr
    with pytest.raises(SandboxError):
        await sandbox.serve(unused_tcp_port, _Greeter)


_PROBE = """
import json, socket, sys, threading
reached = []
def probe(host, port):
    try:
        socket.create_connection((host, port), 3).close()
        reached.append(host)
    except OSError:
        pass
threads = [threading.Thread(target=probe, args=place) for place in json.load(sys.stdin)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(reached))
"""


async def test_nothing_else_of_the_host_is_reached_where_that_is_promised(sandbox: Sandbox) -> None:
    """A50: the host's loopback, as a guest sees it and as QEMU's user network does, its own addresses, metadata."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    own = {item[4][0] for item in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)}
    hosts = {"127.0.0.1", "::1", "localhost", "10.0.2.2", "10.0.2.3", "169.254.169.254", "192.168.64.1", *own}
    places = json.dumps([(str(host), port) for host in hosts]).encode()
    result = await sandbox.run(["python3", "-c", _PROBE], stdin=places)
    server.close()
    assert bool(json.loads(result.stdout)) is not sandbox.capabilities.egress_control, result.stdout


# life and death


async def test_kill_all_kills_execs_too(sandbox: Sandbox) -> None:
    async with sandbox.exec(["sleep", "300"]) as process:
        await sandbox.kill_all()
        assert await process.wait() == 137
    assert (await sandbox.run(["true"])).exit_status == 0, "the sandbox itself lives on"


async def test_destroy_ends_everything_and_may_be_called_again(provider: SandboxProvider) -> None:
    sandbox = await provider.create(spec_of(1))
    await sandbox.start(_start("sleep", "300"))
    assert list(await provider.list()) == [sandbox.name]
    await provider.destroy(sandbox.name)
    await provider.destroy(sandbox.name)
    assert list(await provider.list()) == []
    with pytest.raises(SandboxError):
        await sandbox.run(["true"])
    assert await asyncio.wait_for(sandbox.wait_dead(), 5)


async def test_only_names_of_this_home_are_touched(provider: SandboxProvider) -> None:
    """I6."""
    for name in ("tatin-ffffffff-other-1", "else", f"tatin-{HOME_ID}-../x-1", ""):
        with pytest.raises(SandboxError):
            await provider.destroy(name)


async def test_sandboxes_do_not_see_each_other(provider: SandboxProvider) -> None:
    one, two = await provider.create(spec_of(1)), await provider.create(spec_of(2))
    try:
        await one.run(["sh", "-c", f"echo secret > {GUEST_HOME}/mine"])
        assert (await two.run(["cat", f"{GUEST_HOME}/mine"])).exit_status != 0
    finally:
        await provider.destroy(one.name)
        await provider.destroy(two.name)
    assert list(await provider.list()) == []


async def test_hostile_trees_are_removed_with_the_sandbox(provider: SandboxProvider) -> None:
    """A09: depth without end, modes that forbid, odd names."""
    sandbox = await provider.create(spec_of(1))
    script = """
import os
os.chdir(os.path.expanduser("~"))
open("\\n\\x1b[31m-rf", "w").close()
os.symlink("/", "link")
for _ in range(2000):
    os.mkdir("d")
    os.chdir("d")
os.chmod(os.path.expanduser("~/d"), 0)
"""
    assert (await sandbox.run(["python3", "-c", script])).exit_status == 0
    await provider.destroy(sandbox.name)
    assert list(await provider.list()) == []
    assert os.listdir("/etc"), "the link was removed, not what it led to"


async def test_descriptors_do_not_grow_with_use(provider: SandboxProvider) -> None:
    sandbox = await provider.create(spec_of(1))
    await sandbox.run(["true"])
    before = len(os.listdir("/dev/fd"))
    for number in range(10):
        run = await sandbox.start(_start("echo", label=f"run-{number}"))
        await _output(run.follow())
    # Transports close in the loop's next rounds.
    await asyncio.to_thread(until, lambda: len(os.listdir("/dev/fd")) <= before)
    await provider.destroy(sandbox.name)


# adopt


async def test_a_sandbox_that_survives_its_worker_is_adopted_with_what_runs_in_it(
    provider: SandboxProvider, sandbox: Sandbox, make_provider: Make
) -> None:
    """The agent goes on, and its output is whole from any offset; what does not survive says so."""
    await sandbox.start(_start("sh", "-c", "echo one; sleep 0.5; echo two; exit 3"))
    other = make_provider()
    if not provider.capabilities.survives_worker:
        with pytest.raises(SandboxError):
            await other.adopt(sandbox.name)
        with pytest.raises(SandboxError):
            sandbox.started("agent")
        return
    run = (await other.adopt(sandbox.name)).started("agent")
    assert await _output(run.follow()) == b"one\ntwo\n"
    assert await _output(run.follow(4)) == b"two\n"
    assert (await run.status()).exit_status == 3
    await other.destroy(sandbox.name)
    assert sandbox.name not in await provider.list()


async def test_what_is_not_there_is_not_adopted(provider: SandboxProvider) -> None:
    with pytest.raises(SandboxError):
        await provider.adopt(spec_of(9).name)
