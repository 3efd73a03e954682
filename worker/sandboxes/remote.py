"""A sandbox that is reached over SSH: what every kind of virtual machine shares, whoever runs it.

A provider makes the machine and the ``Link`` to it; this gives the primitives. What it starts outlives a dropped
connection: the launcher in the guest keeps the output in files, and following it goes on from the last offset (F52).
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tatin_jobs.errors import CommandTimeout, SandboxError
from worker.sandboxes import launcher
from worker.sandboxes.base import (
    GUEST_HOME,
    GUEST_RUN,
    GUEST_USER,
    Capabilities,
    CommandResult,
    GuestProcess,
    Run,
    RunChunk,
    RunStatus,
    Sandbox,
    SandboxUsage,
    StartSpec,
    communicate,
)
from worker.sandboxes.launched import LaunchedRun, start_run
from worker.ssh import KeyPair, Link, new_key

GUEST_PATH = ":".join(
    (
        "/home/agent/.local/bin",
        "/home/agent/.local/share/mise/shims",
        "/opt/tatin/bin",
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
    )
)
"""Where the image's programs are; packer/stages/finalize.sh writes it into /etc/environment too, for a person's SSH."""
GUEST_ENV: Mapping[str, str] = {
    "HOME": GUEST_HOME,
    "USER": GUEST_USER,
    "LOGNAME": GUEST_USER,
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TMPDIR": "/tmp",
    "PATH": GUEST_PATH,
}
ROOT_SECONDS = 60.0
SYNC_SECONDS = 60.0
FULL_BYTES = 2**20
"""A guest whose disk has less than this free has used it up."""
_LOOK = f"cat /proc/vmstat; stat -f -c 'free %a blocks of %S' {GUEST_HOME}"
PLAIN_BYTES = 64 * 1024
_LAUNCHER = Path(launcher.__file__).read_text()
RENEW = Path(__file__).with_name("renew.py").read_text()
"""For root of a guest that was copied or resumed; ``renewal`` is its stdin."""
_KILL_ALL = Path(__file__).with_name("kill_all.py").read_text()


class RemoteSandbox(Sandbox):
    """One guest. ``died`` is set, with what was seen in ``death``, by whoever watches the machine."""

    def __init__(
        self,
        name: str,
        link: Link,
        capabilities: Capabilities,
        *,
        env: Mapping[str, str] = GUEST_ENV,
        run_path: str = GUEST_RUN,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.link = link
        self.died = asyncio.Event()
        self.death = ""
        self._env = dict(env)
        self._run_path = run_path
        self.handed_over = 0
        """The moment of ``hand_over``, in the guest's clock ticks since boot: what started later is the job's."""

    # The three primitives

    @asynccontextmanager
    async def exec(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = GUEST_HOME
    ) -> AsyncIterator[GuestProcess]:
        async with self.link.run(argv, {**self._env, **(env or {})}, cwd) as process:
            yield process

    async def plain(self, command: str, timeout_seconds: float) -> CommandResult:
        """``command`` as ``ssh HOST COMMAND`` runs it: by the user's shell, in the environment that sshd gives it.

        Raises:
            CommandTimeout: the limit passed. SandboxError: the guest could start nothing.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self.link.plain(command) as process:
                return await communicate(process, b"", PLAIN_BYTES)
        except TimeoutError as error:
            raise CommandTimeout(
                f"'{command}' in sandbox '{self.name}' took longer than {timeout_seconds:g}s."
            ) from error

    async def write_out(self) -> None:
        """What the guest has in memory only goes to its disk, before its power is cut; one that hangs loses it."""
        with suppress(SandboxError, CommandTimeout):
            await self.run(["sync"], timeout_seconds=SYNC_SECONDS)

    async def start(self, spec: StartSpec) -> Run:
        await start_run(self._launch, spec, {**self._env, **spec.env}, self._run_path, leave_room=True)
        return self.started(spec.label)

    def started(self, label: str) -> Run:
        return ResumingRun(LaunchedRun(self._launch, f"{self._run_path}/{label}"), self.link)

    async def serve(self, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        await self.link.serve(port, protocol)

    async def kill_all(self) -> None:
        """Whatever started after the hand-over dies, root's too; only the way in stays."""
        await self._as_root(_KILL_ALL, str(self.handed_over))

    async def _as_root(self, source: str, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["sudo", "-n", "/usr/bin/python3", "-I", "-S", "-B", "-c", source, *arguments]
        result = await self.run(argv, stdin=stdin, cwd="/", timeout_seconds=ROOT_SECONDS)
        if result.exit_status:
            seen = result.stderr.decode(errors="replace").strip()[-300:]
            raise SandboxError(f"Root of sandbox '{self.name}' failed at what Tatin asked of it.", seen=seen)
        return result.stdout

    async def usage(self) -> SandboxUsage:
        """Out-of-memory kills and a full disk, by what the guest says: an agent with sudo could hide its own."""
        try:
            result = await self.run(["/bin/sh", "-c", _LOOK], timeout_seconds=20)
        except SandboxError:
            return SandboxUsage()
        kills = re.search(rb"^oom_kill (\d{1,9})$", result.stdout, re.MULTILINE)
        free = re.search(rb"^free (\d{1,15}) blocks of (\d{1,9})$", result.stdout, re.MULTILINE)
        full = free is not None and int(free[1]) * int(free[2]) < FULL_BYTES
        return SandboxUsage(oom_kills=int(kills[1]) if kills else None, limits_hit=("disk",) if full else ())

    async def wait_dead(self) -> str:
        await self.died.wait()
        return self.death

    # For the provider

    async def hand_over(self, *, grow: bool = False) -> None:
        """Before anything of a job: clock, randomness, machine id and host key are this machine's alone from now on,
        and the connection is made anew with the new key (F60). ``grow``: its disk is larger than when it was made.

        Raises:
            SandboxError: the guest did not do it; it must not be used.
        """
        key = new_key("guest")
        said = (await self._as_root(RENEW, stdin=renewal(key, grow=grow))).strip()
        if not said.isdigit() or len(said) > 15:
            raise SandboxError(f"Sandbox '{self.name}' was not handed over.", seen=repr(said[:100]))
        self.handed_over = int(said)
        await self.link.renew(replace(self.link.endpoint, host_key=key.public))
        await self.set_clock()

    async def set_clock(self) -> None:
        """Behind the hand-over, which sets it too: its program took seconds to start, in a busy machine or in one that
        was still booting, and the time that it was given was as old. Raises SandboxError."""
        result = await self.run(["sudo", "-n", "date", "--set", f"@{time.time():.3f}"], cwd="/")
        if result.exit_status:
            raise SandboxError(f"The clock of sandbox '{self.name}' was not set.", seen=repr(result.stderr[:200]))

    async def reach(self, seconds: float) -> None:
        """Connect for the first time; one that cannot be reached is closed. Raises SandboxError then."""
        try:
            await self.link.connect(seconds)
        except SandboxError:
            await self.close()
            raise

    def say_dead(self, seen: str) -> None:
        """The machine is gone; the first word counts."""
        if not self.died.is_set():
            self.death = seen
            self.died.set()
            self.link.drop()

    async def let_go(self) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection and the ports; the machine is the provider's to end."""
        self.say_dead("it was closed")
        await self.link.close()

    @asynccontextmanager
    async def _launch(self, arguments: Sequence[str]) -> AsyncIterator[GuestProcess]:
        argv = ["python3", "-I", "-S", "-B", "-c", _LAUNCHER, *arguments]
        async with self.link.run(argv, self._env, "/") as process:
            yield process


def renewal(host: KeyPair, *, grow: bool = False, authorized_key: str = "") -> bytes:
    """What ``renew.py`` is told. ``authorized_key``: also let the holder of this key in."""
    told = {
        "time": time.time(),
        "entropy": secrets.token_hex(64),
        "host_key": host.private,
        "authorized_key": authorized_key,
        "name": "tatin",
        "grow": grow,
    }
    return json.dumps(told).encode()


class ResumingRun(Run):
    """A run whose followers outlive the connection: what drops is had again from the last offset."""

    def __init__(self, run: LaunchedRun, link: Link) -> None:
        self._run = run
        self._link = link

    async def follow(self, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncIterator[RunChunk]:
        offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        while True:
            try:
                async for chunk in self._run.follow(offsets["stdout"], offsets["stderr"]):
                    offsets[chunk.stream] = chunk.offset + len(chunk.data)
                    yield chunk
            except SandboxError:
                if self._link.is_open:
                    raise  # the guest answered, and not as the launcher does
                await self._link.connect()
            else:
                return

    async def status(self) -> RunStatus:
        return await self._run.status()

    async def stop(self, grace_seconds: float) -> None:
        await self._run.stop(grace_seconds)
