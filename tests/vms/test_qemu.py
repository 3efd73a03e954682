"""What a virtual machine promises beyond the contract: a guest that reaches nothing, copies that share nothing, and an
end that is seen, whatever ends it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from tests.contract.conftest import HOME_ID, spec_of
from tests.support.parts import CI_IMAGE
from tests.vms.guests import CiProvider, make_and_die
from worker.sandboxes import host_process
from worker.sandboxes.base import GUEST_HOME, Sandbox, SandboxProvider, StartSpec
from worker.sandboxes.qemu import process
from worker.sandboxes.qemu.sandbox import QemuSandbox

_REACH = """
import json, socket, sys
reached = []
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 2).close()
        reached.append([host, port])
    except OSError:
        pass
print(json.dumps(reached))
"""


async def test_the_guest_reaches_nothing_of_the_host_or_its_networks(sandbox: Sandbox) -> None:
    """A42, A50: by no name that QEMU's network has for the host, by none that the host has for itself."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        own = socket.gethostbyname(socket.gethostname())
        targets = [(host, port) for host in ("10.0.2.2", "10.0.2.3", own, "192.168.0.1", "10.0.0.1")]
        targets += [("10.0.2.2", 22), ("10.0.2.2", 6379), ("10.0.2.3", 53), ("10.0.2.4", 445), ("169.254.169.254", 80)]
        result = await sandbox.run(["python3", "-c", _REACH, json.dumps(targets)], timeout_seconds=60)
        assert json.loads(result.stdout) == []
        names = await sandbox.run(["getent", "ahosts", "example.com"], timeout_seconds=60)
        assert names.stdout == b""
        addresses = await sandbox.run(["ip", "-6", "-o", "address", "show", "scope", "global"])
        assert addresses.stdout == b""


async def test_a_forward_of_the_guests_own_asking_is_refused(sandbox: Sandbox) -> None:
    """A55: sshd in the guest lets our key in for programs and our ports, and nothing else."""
    assert isinstance(sandbox, QemuSandbox)
    connection = await sandbox.link.connect()
    with pytest.raises(Exception, match=r"(?i)prohibited|refused|open"):
        await connection.open_connection("127.0.0.1", 22)


async def test_two_copies_of_one_state_share_nothing(provider: SandboxProvider) -> None:
    """F60: and the clock is right."""
    key = "/etc/ssh/ssh_host_ed25519_key"
    script = f"cat /etc/machine-id; sudo -n ssh-keygen -y -f {key}; head -c 16 /dev/urandom | od -An -tx1"
    seen: list[list[str]] = []
    for _ in range(2):
        made = await provider.create(spec_of(1))
        try:
            assert isinstance(made, QemuSandbox)
            before, guest = time.time(), int((await made.run(["date", "+%s"])).stdout)
            assert before - 2 <= guest <= time.time() + 2
            said = (await made.run(["sh", "-c", script])).stdout.decode().splitlines()
            assert made.link.endpoint.host_key.split()[:2] == said[1].split()[:2], "the key that is pinned is its own"
            seen.append(said)
        finally:
            await provider.destroy(made.name)
    assert not set(seen[0]) & set(seen[1])


async def test_no_password_opens_anything_and_no_known_user_is_there(sandbox: Sandbox) -> None:
    """A54, on the built image."""
    result = await sandbox.run(["sudo", "-n", "cat", "/etc/shadow"])
    fields = [line.split(":") for line in result.stdout.decode().splitlines()]
    assert {name: secret for name, secret, *_ in fields if secret not in ("*", "!", "!*")} in ({}, {"agent": "!"})
    assert "admin" not in {name for name, *_ in fields}
    config = (await sandbox.run(["sudo", "-n", "/usr/sbin/sshd", "-T"])).stdout.decode().lower().splitlines()
    for line in ("passwordauthentication no", "permitrootlogin no", "kbdinteractiveauthentication no"):
        assert line in config


async def test_what_root_started_dies_with_the_rest(sandbox: Sandbox) -> None:
    """A63: a daemon, and a unit of systemd's."""
    quietly = "sudo -n setsid sleep 654321 < /dev/null > /dev/null 2>&1 &"  # holding no pipe of ours
    await sandbox.run(["sh", "-c", quietly])
    await sandbox.run(["sudo", "-n", "systemd-run", "--quiet", "sleep", "654322"])
    await sandbox.kill_all()
    left = await sandbox.run(["sh", "-c", "ps ax | grep -c '[s]leep 65432'"])
    assert left.stdout.strip() == b"0"
    assert (await sandbox.run(["true"])).exit_status == 0


async def test_a_guest_out_of_memory_says_so_and_lives(sandbox: Sandbox) -> None:
    """F14: the neighbour and the way in live on."""
    fill = "kept = []\nwhile True:\n    kept.append(b'x' * 2**25)"
    result = await sandbox.run(["python3", "-c", fill], timeout_seconds=300)
    assert result.exit_status == 137
    assert (await sandbox.usage()).oom_kills


async def test_a_run_outlives_the_ssh_server(sandbox: Sandbox) -> None:
    """F52, A64: the guest's root kills every connection; the agent goes on and is read to its end."""
    assert isinstance(sandbox, QemuSandbox)
    script = "for n in 1 2 3 4 5 6; do echo $n; sleep 1; done"
    run = await sandbox.start(StartSpec(argv=("sh", "-c", script), cwd=GUEST_HOME))
    got = b""
    async for chunk in run.follow():
        if not got:
            sandbox.link.drop()
        got += chunk.data
    assert got == b"1\n2\n3\n4\n5\n6\n"


@pytest.mark.parametrize("how", ["kill", "poweroff"])
async def test_the_end_of_a_machine_is_seen(provider: SandboxProvider, how: str) -> None:
    """F53: its process killed, or the guest switching itself off."""
    made = await provider.create(spec_of(1))
    assert isinstance(made, QemuSandbox)
    try:
        run = await made.start(StartSpec(argv=("sleep", "600"), cwd=GUEST_HOME))
        if how == "kill":
            machine, _ = process.Machine.find(made.name, made.machine.folder)
            assert machine is not None
            await machine.kill()
        else:
            await made.run(["sudo", "-n", "systemctl", "poweroff", "--force", "--force"], timeout_seconds=60)
        async with asyncio.timeout(60):
            assert "QEMU ended" in await made.wait_dead()
        with pytest.raises(SandboxError):
            await anext(run.follow())
    except SandboxError:  # the connection may break before the command that switches off has answered
        assert how == "poweroff"
        assert "QEMU ended" in await asyncio.wait_for(made.wait_dead(), 60)
    finally:
        await provider.destroy(made.name)
    assert list(await provider.list()) == []


async def test_a_killed_workers_machine_is_found_and_a_foreign_one_left_alone(
    vm_homes: tuple[Home, Home],
) -> None:
    """F10: adopted, also when its image was removed meanwhile, then destroyed; a machine that is not ours lives on."""
    home, name = vm_homes[1], f"tatin-{HOME_ID}-orphan-1"
    program = shutil.which("qemu-system-x86_64") or "qemu-system-aarch64"
    options = ["-M", "none", "-name", "tatin-else-1", "-display", "none", "-S", "-nodefaults"]
    foreign = await asyncio.create_subprocess_exec(program, *options, stdin=asyncio.subprocess.DEVNULL)
    try:
        await make_and_die(home, name)
        provider = CiProvider(home, HOME_ID)
        assert list(await provider.list()) == [name]
        machine, _ = process.Machine.find(name, home.sandboxes / name)
        assert machine is not None
        with _without_images(home):
            adopted = await provider.adopt(name)
        assert adopted.image.startswith(f"{CI_IMAGE}@")
        assert adopted.parts["opencode"]
        assert (await adopted.run(["whoami"])).stdout == b"agent\n"
        (home.sandboxes / name / host_process.NOTE).unlink()  # as if the worker had died before it was written
        await CiProvider(home, HOME_ID).destroy(name)
        assert machine.death()
        assert foreign.returncode is None
        await adopted.close()
    finally:
        foreign.kill()
        await foreign.wait()


@contextmanager
def _without_images(home: Home) -> Iterator[None]:
    hidden = home.images.rename(home.root / "hidden")
    yield
    hidden.rename(home.images)


async def test_what_cannot_be_made_leaves_nothing(provider: SandboxProvider, vm_homes: tuple[Home, Home]) -> None:
    """An image that is not there or not whole, a disk or a memory that are too small: one clear error each."""
    for change, words in (
        ({"disk_mib": 500}, "disk"),
        ({"memory_mib": 64}, "memory"),
        ({"memory_mib": 2**30}, r"this host has \d+"),
    ):
        with pytest.raises(SandboxError, match=words):
            await provider.create(replace(spec_of(1), **change))  # type: ignore[arg-type]
    from worker.sandboxes.qemu.provider import QemuProvider

    plain = QemuProvider(vm_homes[1], HOME_ID)
    with pytest.raises(SandboxError, match="no image 'absent'"):
        await plain.create(replace(spec_of(1), image="absent"))
    assert os.listdir(vm_homes[1].sandboxes) == []
    assert CI_IMAGE
