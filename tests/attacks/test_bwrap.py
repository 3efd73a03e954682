"""What a hostile guest of bwrap tries against the host, its neighbours and its worker. Each runs inside the guest."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tatin_jobs.errors import CommandTimeout
from tatin_jobs.home import Home
from tests.support.wait import has_ended, until
from worker.sandboxes.base import GUEST_HOME, GUEST_RUN, CommandResult, Sandbox, SandboxSpec, StartSpec
from worker.sandboxes.bwrap import keyrings, limits
from worker.sandboxes.bwrap import sandbox as sandbox_module
from worker.sandboxes.bwrap.cli import GUEST_SHELL
from worker.sandboxes.bwrap.inside import inside
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.bwrap.sandbox import BwrapSandbox

pytestmark = pytest.mark.needs("bwrap")
HOME_ID = "0a1b2c3d"


@pytest.fixture
async def provider(tmp_path: Path) -> BwrapProvider:
    home = Home(tmp_path / "home")
    home.prepare()
    return BwrapProvider(home, HOME_ID)


@pytest.fixture
async def guest(provider: BwrapProvider) -> AsyncIterator[BwrapSandbox]:
    sandbox = await provider.create(_spec(1))
    yield sandbox
    await provider.destroy(sandbox.name)


def _spec(number: int, memory_mib: int = 256) -> SandboxSpec:
    return SandboxSpec(name=f"tatin-{HOME_ID}-attack-{number}", cpus=1, memory_mib=memory_mib, disk_mib=1000)


async def _python(guest: Sandbox, script: str, *args: str, seconds: float = 30) -> CommandResult:
    return await guest.run(["python3", "-c", script, *args], timeout_seconds=seconds)


@pytest.fixture
def listening_host() -> Iterator[int]:
    """A server of the host on all of its addresses; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


_PROBE = """
import json, socket, sys
reached = []
for family, address in json.loads(sys.argv[1]):
    link = socket.socket(getattr(socket, family))
    link.settimeout(1)
    try:
        link.connect(tuple(address) if isinstance(address, list) else address)
        reached.append(address)
    except OSError:
        pass
print(json.dumps(reached))
"""


async def test_a50_no_address_of_host_or_network_is_reached(guest: Sandbox, listening_host: int) -> None:
    """A50: host ports, its own addresses, the gateway, metadata, IPv6."""
    own = {item[4][0] for item in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    targets: list[tuple[str, object]] = [
        ("AF_INET", [address, listening_host])
        for address in {"127.0.0.1", "127.0.0.53", "10.0.2.2", "169.254.169.254", "192.168.1.1", "1.1.1.1", *own}
    ]
    targets += [("AF_INET6", ["::1", listening_host]), ("AF_INET6", ["fe80::1", 80])]
    with socket.create_connection(("127.0.0.1", listening_host), 2):
        pass  # the host reaches it, so the probe could
    result = await _python(guest, _PROBE, json.dumps(targets))
    assert json.loads(result.stdout) == [], result.stderr


async def test_a51_the_guest_is_on_no_network_in_which_it_could_be_another(guest: Sandbox) -> None:
    """A51: nothing but a loopback of its own: no ARP, no DHCP, no neighbour; and it may open no raw socket there."""
    interfaces = await _python(guest, "import socket; print([name for _, name in socket.if_nameindex()])")
    assert interfaces.stdout.strip() == b"['lo']"
    raw = await _python(guest, "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)")
    assert b"PermissionError" in raw.stderr


async def test_a42_a52_no_socket_of_the_host_is_reached(guest: Sandbox, tmp_path: Path) -> None:
    """A42, A52: the store's Unix socket, abstract sockets, docker, D-Bus, X11."""
    abstract = f"\0tatin-test-{os.getpid()}"
    path = tmp_path / "home" / "store" / "valkey.sock"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(abstract)
        one.listen()
        two.bind(str(path))
        two.listen()
        names = [abstract, str(path), "/run/docker.sock", "/run/dbus/system_bus_socket", "\0/tmp/.X11-unix/X0"]
        result = await _python(guest, _PROBE, json.dumps([("AF_UNIX", name) for name in names]))
    assert json.loads(result.stdout) == [], result.stderr


async def test_a52_nothing_of_the_user_or_the_host_is_seen(guest: Sandbox, tmp_path: Path) -> None:
    """A52: homes, keys, other guests, processes and devices of the host."""
    (tmp_path / "mine").write_text("secret")
    script = """
import json, os, sys
print(json.dumps({
    "seen": [path for path in sys.argv[1:] if os.path.exists(path)],
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "devices": sorted(os.listdir("/dev")),
    "homes": os.listdir("/home"),
    "environment": sorted(os.environ),
}))
"""
    hidden = [str(tmp_path / "mine"), str(Path.home()), "/root", "/etc/shadow", "/etc/ssh", "/var/lib", "/boot", "/sys"]
    seen = json.loads((await _python(guest, script, *hidden)).stdout)
    assert seen["seen"] == []
    assert max(seen["pids"]) < 50
    assert "kvm" not in seen["devices"]
    assert not [name for name in seen["devices"] if name.startswith(("sd", "vd", "nvme", "mem", "loop"))]
    assert seen["homes"] == ["agent"]
    assert not [name for name in seen["environment"] if name.startswith(("TATIN", "SSH", "AWS"))]


_KEYS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
mark, add, keyctl = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])
print(libc.syscall(keyctl, 10, -3, b"user", mark, 0), ctypes.get_errno())
print(libc.syscall(add, b"user", b"mine", b"x", 1, -3), ctypes.get_errno())
print(mark in open("/proc/keys", "rb").read())
"""


async def test_a52_no_keyring_of_the_kernel_is_reached(provider: BwrapProvider) -> None:
    """A52: not the one of the session that the worker was started in, and none that another guest of its user has."""
    mark = f"tatin-key-{os.getpid()}"
    add, _, keyctl = keyrings.CALLS[keyrings.NATIVE]
    libc = ctypes.CDLL(None)
    libc.syscall(keyctl, keyrings.KEYCTL_JOIN_SESSION_KEYRING, None)
    key = libc.syscall(add, b"user", mark.encode(), b"secret", 6, -3)
    libc.syscall(keyctl, 5, key, 0x3F000000)  # to be seen only by whoever has that keyring
    guest = await provider.create(_spec(1))
    result = await _python(guest, _KEYS, mark, str(add), str(keyctl))
    await provider.destroy(guest.name)
    refused = f"-1 {errno.ENOSYS}"
    assert result.stdout.decode().splitlines() == [refused, refused, "False"], result.stderr


async def test_a58_the_guest_has_no_rights_to_gain(guest: Sandbox) -> None:
    """A58: no capability, no setuid, no further user namespace, no mount, no trace of its first process."""
    script = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
found = {
    "uid": os.getuid(),
    "groups": os.getgroups(),
    "caps": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"],
    "userns": libc.unshare(0x10000000),
    "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "ptrace": libc.ptrace(16, 1, None, None),
    "setuid": 0,
    "first_fds": None,
}
try:
    os.setuid(0)
except OSError as error:
    found["setuid"] = error.errno
try:
    found["first_fds"] = os.listdir("/proc/1/fd")
except OSError:
    pass
print(json.dumps(found))
"""
    found = json.loads((await _python(guest, script)).stdout)
    assert found["uid"] == 1000
    assert set(found["groups"]) <= {1000, 65534}
    assert set(found["caps"]) == {"0000000000000000"}
    assert found["no_new_privs"] == "1"
    assert found["userns"] == -1
    assert found["mount"] == -1
    assert found["ptrace"] == -1
    assert found["setuid"] != 0
    assert found["first_fds"] is None, "its pipes to the warden would be there"


async def test_a52_a61_the_guest_writes_nowhere_but_in_its_own_folders(guest: Sandbox) -> None:
    script = """
import json, sys
written = []
for path in sys.argv[1:]:
    try:
        open(path, "a").close()
        written.append(path)
    except OSError:
        pass
print(json.dumps(written))
"""
    paths = ["/usr/x", "/bin/x", "/etc/x", "/etc/passwd", GUEST_SHELL, "/opt/tatin/x", "/run/x", "/x"]
    assert json.loads((await _python(guest, script, *paths)).stdout) == []


async def test_a57_the_guest_has_no_terminal_and_reaches_no_process_of_the_host(guest: Sandbox) -> None:
    """A57: TIOCSTI needs a terminal; signals end at the pid namespace."""
    script = """
import os
try:
    os.open("/dev/tty", os.O_RDWR)
    print("a terminal")
except OSError:
    print("none")
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
    if pid not in (1, os.getpid(), os.getppid()):
        print("a stranger", pid)
os.kill(1, 9)
"""
    result = await _python(guest, script)
    assert result.stdout == b"none\n"
    assert (await guest.run(["echo", "alive"])).stdout == b"alive\n", "pid 1 is not killed from inside"


async def test_a57_nothing_of_tatin_is_among_the_processes_of_the_guest(guest: Sandbox) -> None:
    """A57: the warden starts this program, and is none of its parents; the first process is a shell that cannot be
    looked into, whoever its user is."""
    script = """
import json, os
def read(pid, name):
    try:
        return open(f"/proc/{pid}/{name}", "rb").read().decode()
    except OSError as error:
        return error.errno
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
found = {"pids": len(pids), "parent": os.getppid(), "environment": read(1, "environ"), "memory": read(1, "mem")}
print(json.dumps(found))
"""
    found = json.loads((await _python(guest, script)).stdout)
    assert found == {"pids": 2, "parent": 0, "environment": errno.EACCES, "memory": errno.EACCES}


async def test_a63_what_kills_whatever_it_can_is_killed(guest: Sandbox) -> None:
    """A63: whoever would kill it from inside, as one process among others, would be killed first."""
    script = "import os\nwhile True:\n try: os.kill(-1, 9)\n except ProcessLookupError: pass"
    for number in range(3):
        await guest.start(StartSpec(argv=["python3", "-c", script], cwd=GUEST_HOME, label=f"killer{number}"))
    await guest.kill_all()
    assert (await guest.run(["echo", "alive"])).stdout == b"alive\n"


async def test_a60_orphans_are_reaped(guest: Sandbox) -> None:
    """A60: each would count as a process of the guest for ever."""
    await guest.run(["bash", "-c", "for i in $(seq 100); do (sleep 0.01 &); done"])

    count = "while [ $(ls -d /proc/[0-9]* | wc -l) -gt 5 ]; do sleep 0.1; done"  # two shells, ls, wc, the first process
    assert (await guest.run(["bash", "-c", count], timeout_seconds=20)).exit_status == 0


async def test_a57_programs_of_the_guest_hold_no_descriptor_of_ours(guest: BwrapSandbox) -> None:
    """A57: not the warden's socket, by which they would be the warden to the worker."""
    show = ["python3", "-c", "import os; print(sorted(fd for fd in os.listdir('/proc/self/fd') if int(fd) < 64))"]
    only = b"['0', '1', '2', '3']\n"  # and the one that lists them
    assert (await guest.run(show)).stdout == only
    run = await guest.start(StartSpec(argv=show, cwd=GUEST_HOME))
    assert b"".join([chunk.data async for chunk in run.follow()]) == only
    (bwrap,) = psutil.Process(guest.warden).children()
    first = bwrap.children() if os.geteuid() == 0 else []  # a plain user cannot look into it either
    for process in (*first, *await _held(guest)):
        assert sorted(os.listdir(f"/proc/{process.pid}/fd")) == ["0", "1", "2"]


async def _held(guest: BwrapSandbox) -> list[psutil.Process]:
    """A program that runs in the guest, as the host sees it."""
    await guest.start(StartSpec(argv=["sleep", "30"], cwd=GUEST_HOME, label="held"))
    return await asyncio.to_thread(until, lambda: inside(guest.warden))


async def test_a63_what_stops_every_program_before_it_begins_is_killed(
    provider: BwrapProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A63: a child that is stopped before it has become its program holds up who starts it."""
    monkeypatch.setattr(sandbox_module, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(sandbox_module, "CLOSE_SECONDS", 1.0)
    script = "import os\nwhile True:\n try: os.kill(-1, 19)\n except OSError: pass"
    guest = await provider.create(_spec(1))
    await guest.start(StartSpec(argv=["python3", "-c", script], cwd=GUEST_HOME))
    for _ in range(5):
        with suppress(CommandTimeout):
            await guest.run(["true"], timeout_seconds=0.3)
    await guest.kill_all()
    assert (await guest.run(["echo", "alive"])).stdout == b"alive\n"
    await guest.start(StartSpec(argv=["python3", "-c", script], cwd=GUEST_HOME, label="again"))
    for _ in range(5):
        with suppress(CommandTimeout):
            await guest.run(["true"], timeout_seconds=0.3)
    warden = guest.warden
    await provider.destroy(guest.name)
    await asyncio.to_thread(until, lambda: has_ended(warden))


async def test_a60_the_watcher_is_not_deceived_by_names(guest: BwrapSandbox) -> None:
    """A60: where no cgroup bounds it, what a guest uses is found by its namespace, whatever its processes call
    themselves."""
    name = "import ctypes; ctypes.CDLL(None).prctl(15, b'bwrap')"
    script = f"{name}\nimport os, time\nos.fork()\ntime.sleep(30)"
    await guest.start(StartSpec(argv=["python3", "-c", script], cwd=GUEST_HOME))
    await asyncio.to_thread(until, lambda: len([one for one in inside(guest.warden) if one.name() == "bwrap"]) == 2)


_HIDING = """
import ctypes, sys, threading, time
kept = bytearray(b"x" * (100 << 20))
for _ in range(int(sys.argv[1])):
    threading.Thread(target=time.sleep, args=(30,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


async def _hiding(guest: Sandbox, threads: int) -> None:
    """In the guest: a process with 100 MiB, and so many threads, but for its first, which ends."""
    await guest.start(StartSpec(argv=["python3", "-c", _HIDING, str(threads)], cwd=GUEST_HOME, label="hiding"))
    ended = "until grep -s '^State:.Z' /proc/[0-9]*/status; do sleep 0.05; done"
    await guest.run(["bash", "-c", ended], timeout_seconds=20)


async def test_a60_memory_is_seen_also_when_the_first_thread_has_ended(guest: BwrapSandbox) -> None:
    """A60: the kernel says nothing of the memory of such a process, but by its other threads."""
    await _hiding(guest, 1)
    assert not limits._kill_largest(guest.warden, 150 << 20)
    assert limits._kill_largest(guest.warden, 90 << 20)
    await asyncio.to_thread(until, lambda: not inside(guest.warden))


async def test_a60_threads_are_a_crowd_too(guest: BwrapSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A60: each takes a number of the host, and one of those that the worker's user may have."""
    await _hiding(guest, 20)
    monkeypatch.setattr(limits, "MAX_PROCESSES", 30)
    assert not limits._kill_crowd(guest.warden)
    monkeypatch.setattr(limits, "MAX_PROCESSES", 15)
    assert limits._kill_crowd(guest.warden)
    await asyncio.to_thread(until, lambda: not inside(guest.warden))


async def test_a57_the_warden_takes_no_terminal_of_the_guest(guest: BwrapSandbox) -> None:
    """A57: a session leader that opens one gets its signals."""
    script = "import os, pty, time\n_, tty = pty.openpty()\nos.symlink(os.ttyname(tty), 'in')\nprint(1, flush=True)"
    await guest.start(StartSpec(argv=["python3", "-c", f"{script}\ntime.sleep(30)"], cwd=GUEST_HOME, label="master"))
    await guest.run(["bash", "-c", "until [ -e in ]; do sleep 0.05; done"])
    await guest.start(StartSpec(argv=["true"], cwd=GUEST_HOME, stdin_path=f"{GUEST_HOME}/in"))
    assert _terminal(guest.warden) == 0


def _terminal(pid: int) -> int:
    """The number of its controlling terminal: field 7 of its ``stat``."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


async def test_a61_a_run_whose_output_cannot_be_written_ends_alone(guest: BwrapSandbox) -> None:
    """A61: the guest makes the file of its own output as long as any may be."""
    script = f"truncate -s 1000M {GUEST_RUN}/agent/stdout; echo one & echo two >&2 & sleep 0.2; echo three"
    run = await guest.start(StartSpec(argv=["bash", "-c", script], cwd=GUEST_HOME))
    while (status := await run.status()).exit_status is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert status.exit_status == 125
    assert (await guest.run(["echo", "alive"])).stdout == b"alive\n"


async def test_a57_a_program_that_there_is_not_and_nobody_waits_for_harms_nobody(guest: BwrapSandbox) -> None:
    """A57"""
    for _ in range(5):
        async with guest.exec(["no-such-program"]):
            pass
    assert (await guest.run(["echo", "alive"])).stdout == b"alive\n"


async def test_a60_a_memory_bomb_ends_in_its_own_guest(provider: BwrapProvider) -> None:
    """A60: the limit holds, is told, and the neighbour does not notice."""
    bomb, neighbour = await provider.create(_spec(1, memory_mib=128)), await provider.create(_spec(2))
    try:
        result = await _python(bomb, "x = []\nwhile True: x.append(bytearray(2**20))")
        assert result.exit_status == 137
        assert (await bomb.usage()).oom_kills
        assert (await neighbour.run(["echo", "fine"])).stdout == b"fine\n"
    finally:
        await provider.destroy(bomb.name)
        await provider.destroy(neighbour.name)


async def test_a63_daemons_are_gone_with_the_guest(provider: BwrapProvider) -> None:
    """A63: double fork, new session, ignored signals."""
    guest = await provider.create(_spec(1))
    mark = f"tatin-daemon-{os.getpid()}"
    daemon = f"setsid bash -c 'trap \"\" TERM HUP; exec -a {mark} sleep 300'"
    script = f"({daemon} &); ({daemon} &)"
    run = await guest.start(StartSpec(argv=["bash", "-c", script], cwd=GUEST_HOME, timeout_seconds=20))
    async for _ in run.follow():
        pass
    await provider.destroy(guest.name)
    assert not _processes(mark)


async def test_a63_a_worker_that_dies_takes_its_guests_along(tmp_path: Path) -> None:
    """F01: bwrap dies with its worker, and its guest with it; nothing of ours cleans up."""
    mark = f"tatin-orphan-{os.getpid()}"
    script = f"""
import asyncio, os, sys
from pathlib import Path
from tatin_jobs.home import Home
from worker.sandboxes.base import SandboxSpec, StartSpec
from worker.sandboxes.bwrap.provider import BwrapProvider

async def main():
    home = Home(Path({str(tmp_path / "home2")!r}))
    home.prepare()
    guest = await BwrapProvider(home, "{HOME_ID}").create(SandboxSpec("tatin-{HOME_ID}-orphan-1", 1, 256, 100))
    await guest.start(StartSpec(argv=["bash", "-c", "exec -a {mark} sleep 300"], cwd="/home/agent"))
    await asyncio.sleep(0.3)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == -9
    await asyncio.to_thread(until, lambda: not _processes(mark))


def _processes(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(mark.encode()):
                found.append(folder.name)
    return found
