"""The SSH link and what is built on it, against a real OpenSSH server: over loopback, and through ``tart exec`` of the
stand-in, whose guest is this host."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import asyncssh
import psutil
import pytest

from tatin_jobs.errors import SandboxError
from tests.support.sshd import Sshd, running_sshd
from tests.support.tart import STAND_IN, Tart, host_agent
from tests.support.wait import until
from worker import ssh
from worker.sandboxes.base import Capabilities, Sandbox, StartSpec
from worker.sandboxes.remote import RemoteSandbox
from worker.sandboxes.tart.cli import exec_proxy
from worker.sandboxes.transfer import feed
from worker.ssh import Endpoint, Link, command_line, new_key, worker_key

pytestmark = pytest.mark.needs("sshd")
CAPABILITIES = Capabilities(
    separate_kernel=False, egress_control=False, survives_worker=True, snapshot=False, sudo=False
)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    # As root its sshd passes no signals on (no privilege separation for root), so killing is tested in the guests.
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def tart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tart]:
    """With a machine called ``guest`` that runs."""
    made = Tart(tmp_path / "tart")
    made.good("create", "guest", "--linux", "--disk-size", "1")
    made.dial(guest={"exec": host_agent()})
    made.run("guest")
    made.good("ip", "guest", "--wait", "20")
    monkeypatch.setenv("TART_HOME", str(made.home))
    monkeypatch.setenv("PATH", f"{STAND_IN.parent}{os.pathsep}{os.environ['PATH']}")
    yield made
    made.close()


@pytest.fixture(params=["network", "exec"])
async def endpoint(request: pytest.FixtureRequest, sshd: Sshd) -> AsyncIterator[Endpoint]:
    if request.param == "network":
        yield sshd.endpoint
        return
    request.getfixturevalue("tart")
    yield replace(sshd.endpoint, host="guest", proxy=exec_proxy("guest", sshd.endpoint.port))
    # A loop that closes before it has heard of a child's end leaves a warning for some later test.
    await asyncio.to_thread(until, lambda: not _relays())
    await asyncio.sleep(0.05)


@pytest.fixture
async def link(endpoint: Endpoint, sshd: Sshd) -> AsyncIterator[Link]:
    made = Link("tatin-test", endpoint, sshd.key, lambda: None)
    yield made
    await made.close()


@pytest.fixture
async def sandbox(link: Link, tmp_path: Path) -> AsyncIterator[Sandbox]:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    made = RemoteSandbox("tatin-test", link, CAPABILITIES, env=env, run_path=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    yield made
    await made.close()


async def test_streams_status_and_signals_come_back(sandbox: Sandbox) -> None:
    result = await sandbox.run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=bytes(range(256)) * 4000, cwd="/")
    assert (result.exit_status, result.stdout[:4], len(result.stdout), result.stderr) == (
        7,
        b"\0\1\2\3",
        1_024_000,
        b"err\n",
    )
    assert (await sandbox.run(["sh", "-c", "kill -9 $$"], cwd="/")).exit_status == 137
    assert (await sandbox.run(["no-such-program"], cwd="/")).exit_status == 127


async def test_no_shell_reads_arguments_and_nothing_of_the_servers_environment_is_there(sandbox: Sandbox) -> None:
    odd = "a b\n$(id) `id` \"'\\ \U0001f600"
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    result = await sandbox.run(["python3", "-c", script, odd, "-rf"], env={"ODD": odd}, cwd="/")
    arguments, environment = json.loads(result.stdout)
    assert arguments == [odd, "-rf"]
    assert environment["ODD"] == odd
    assert not {name for name in environment if name.startswith("SSH_")}


async def test_many_programs_share_one_connection(sandbox: Sandbox, sshd: Sshd) -> None:
    results = await asyncio.gather(*(sandbox.run(["sh", "-c", f"sleep 0.05; echo {n}"], cwd="/") for n in range(20)))
    assert [int(result.stdout) for result in results] == list(range(20))
    assert len(sshd.process.children()) == 1


async def test_nothing_is_left_of_a_closed_connection(link: Link, sshd: Sshd) -> None:
    await link.connect(20)
    assert sshd.process.children()
    await link.close()
    until(lambda: not sshd.process.children() and not _relays())


def _relays() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ends just now
            if "create_connection" in str(child.cmdline()):
                found.append(child)
    return found


async def test_a_command_that_no_shell_could_take_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="too long"):
        await sandbox.run(["echo", "x" * 200_000], cwd="/")


async def test_a_run_goes_on_when_the_connection_drops(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    """F52: the agent goes on, its output is read from where it was cut, and there is no second agent."""
    script = f"echo started >> {tmp_path}/starts; for n in 1 2 3 4 5; do echo $n; sleep 0.3; done; exit 3"
    run = await sandbox.start(StartSpec(argv=("sh", "-c", script), cwd=str(tmp_path)))
    got = b""
    async for chunk in run.follow():
        got += chunk.data
        if got == b"1\n2\n":
            assert sshd.drop_connections()
    assert got == b"1\n2\n3\n4\n5\n"
    assert (await run.status()).exit_status == 3
    assert (tmp_path / "starts").read_text() == "started\n"
    assert (await sandbox.started("agent").status()).exit_status == 3


class _Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"host got " + data)  # type: ignore[attr-defined]
        self._transport.close()


async def _ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_served_port_is_there_again_after_a_drop(sandbox: Sandbox, sshd: Sshd, unused_tcp_port: int) -> None:
    await sandbox.serve(unused_tcp_port, _Greeter)
    assert await _ask(unused_tcp_port) == b"host got hello"
    with pytest.raises(SandboxError):
        await sandbox.serve(unused_tcp_port, _Greeter)
    assert sshd.drop_connections()
    assert (await sandbox.run(["true"], cwd="/")).exit_status == 0, "the next use makes the connection again"
    assert await _ask(unused_tcp_port) == b"host got hello"


async def test_a_served_port_leaves_nothing_on_the_disk_when_its_worker_is_killed(
    sandbox: Sandbox, unused_tcp_port: int
) -> None:
    before = _named_sockets()
    await sandbox.serve(unused_tcp_port, _Greeter)
    assert await _ask(unused_tcp_port) == b"host got hello"
    assert _named_sockets() == before


class _Ending(asyncio.Protocol):
    def __init__(self) -> None:
        self.over = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


async def test_a_served_connection_that_cannot_be_made_leaves_neither_end_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
    ours = _Ending()
    with pytest.raises(OSError, match="No buffer space") as caught:
        await ssh._answered(lambda: ours)
    async with asyncio.timeout(10):
        await ours.over.wait()
    assert caught.tb, "which holds what was not closed"


def _named_sockets() -> set[str]:
    """The Unix sockets of this process that are files."""
    return {str(one.laddr) for one in psutil.Process().net_connections("unix") if one.laddr}


async def test_a_tar_is_pushed_and_pulled(sandbox: Sandbox, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "file").write_bytes(data)
    packed = await sandbox.run(["tar", "-cf", "-", "file"], cwd=str(tmp_path), max_output_bytes=2**23)
    async with sandbox.exec(["tar", "-xof", "-", "-C", "in"], cwd=str(tmp_path)) as process:
        assert await feed(process, [packed.stdout]) == (0, "")
    assert (tmp_path / "in" / "file").read_bytes() == data


async def test_a_dead_guest_is_told_at_once(sshd: Sshd) -> None:
    link = Link("tatin-test", sshd.endpoint, sshd.key, lambda: "qemu ended with 1")
    with pytest.raises(SandboxError, match="dead"):
        await link.connect(30)


async def test_another_host_key_is_never_accepted(endpoint: Endpoint, sshd: Sshd) -> None:
    """A55, F51: at once, and with no command sent."""
    link = Link("tatin-test", replace(endpoint, host_key=new_key("other").public), sshd.key, lambda: None)
    async with asyncio.timeout(10):
        with pytest.raises(SandboxError, match="host key"):
            await link.connect(60)


async def test_another_key_is_refused_at_once(endpoint: Endpoint) -> None:
    link = Link("tatin-test", endpoint, new_key("stranger"), lambda: None)
    async with asyncio.timeout(10):
        with pytest.raises(SandboxError, match="refuses"):
            await link.connect(60)


async def test_nobody_there_is_told_after_the_limit(sshd: Sshd, unused_tcp_port: int) -> None:
    link = Link("tatin-test", replace(sshd.endpoint, port=unused_tcp_port), sshd.key, lambda: None)
    with pytest.raises(SandboxError, match=r"within 0\.5 s"):
        await link.connect(0.5)


async def test_a_machine_that_is_gone_is_told_after_the_limit(tart: Tart, sshd: Sshd) -> None:
    """Through ``tart exec``, which then ends at once."""
    endpoint = replace(sshd.endpoint, host="gone", proxy=exec_proxy("gone", sshd.endpoint.port))
    with pytest.raises(SandboxError, match=r"within 2 s"):
        await Link("tatin-test", endpoint, sshd.key, lambda: None).connect(2)


async def test_nothing_of_the_user_is_read(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A55: a configuration that leads elsewhere and an agent that is not there change nothing."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host *\n  Port {unused_tcp_port}\n  User nobody\n  ForwardAgent yes\n")
    (tmp_path / ".ssh" / "known_hosts").write_text(f"* {new_key('planted').public}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    link = Link("tatin-test", sshd.endpoint, sshd.key, lambda: None)
    try:
        await link.connect(10)
    finally:
        await link.close()


def test_what_an_errno_means_is_said() -> None:
    """asyncio's own words for a connection that fails later do not say it."""
    said = ssh._words(OSError(errno.EHOSTUNREACH, "Connect call failed ('192.168.64.2', 22)"))
    assert said.startswith("No route to host: ")
    assert ssh._words(OSError(errno.EHOSTUNREACH, "No route to host")).count("No route to host") == 1


def test_the_workers_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker"
    first = worker_key(path)
    assert worker_key(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["worker"]
    path.write_text("rubbish")
    with pytest.raises(SandboxError, match="cannot be used"):
        worker_key(path)


def test_a_command_line_quotes_everything() -> None:
    line = command_line(["a b", "$x"], {"N": "'"}, "/tmp/it's")
    assert line == """cd -- '/tmp/it'"'"'s' && exec env -i 'N='"'"'' 'a b' '$x'"""


class _Careless(asyncssh.SSHServer):
    """Lets its user in with a password."""

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("admin", "admin")


async def test_a_server_that_takes_a_password_is_found(link: Link) -> None:
    """A54: a smoke test of an image asks this; OpenSSH with keys only takes none."""
    assert not await link.lets_in("admin", "admin")
    host = new_key("careless")
    key = asyncssh.import_private_key(host.private)
    async with await asyncssh.listen("127.0.0.1", 0, server_factory=_Careless, server_host_keys=[key]) as server:
        endpoint = Endpoint("127.0.0.1", server.get_port(), "agent", host.public)
        careless = Link("tatin-careless", endpoint, new_key("client"), lambda: None)
        assert await careless.lets_in("admin", "admin")
        assert not await careless.lets_in("admin", "other")
