"""The sandbox seam: what every provider does, and nothing about how.

A provider makes, lists and destroys sandboxes. A sandbox has three primitives, and everything else is built on them:
``exec`` (a program with live streams and a real exit status), ``start`` (the agent: detached, with its output in files
in the guest, so that a dropped connection loses nothing) and ``serve`` (a port of the guest's loopback that reaches
the host, and the only thing that does). A command that fails is a result; a sandbox that fails is a ``SandboxError``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from tatin_jobs.errors import CommandTimeout, SandboxError
from tatin_jobs.settings import Settings

GUEST_USER = "agent"
GUEST_HOME = "/home/agent"
GUEST_WORK = "/home/agent/work"
GUEST_REPO = "/home/agent/work/repo"
GUEST_RUN = "/run/tatin"
"""Tatin's own files in the guest: the prompt, the launcher, the files of a run."""
SHORT_OUTPUT_BYTES = 65_536
SHORT_ERROR_BYTES = 65_536
KILLED = 128 + 9
"""Exit status of a program that was killed."""
HOME_FOLDERS = ("work", "work/repo", "work/repo/.git", "work/repo/.git/info", "work/repo/.git/hooks")
"""Of a guest's home, for a provider that makes it from outside: then no program in the guest need."""


@dataclass(frozen=True)
class Capabilities:
    """What a provider can promise. Shown by ``doctor``, ``submit`` and in each result."""

    separate_kernel: bool
    egress_control: bool
    """The guest reaches nothing but what ``serve`` gives it."""
    survives_worker: bool
    """A sandbox outlives its worker's death and can be adopted by the next."""
    snapshot: bool
    sudo: bool
    egress_gap: str = ""
    """What a guest reaches beside what ``serve`` gives it, as a clause for people ("every port of this host"); empty
    where there is ``egress_control`` without a gap."""

    @property
    def egress_warning(self) -> str:
        """A clause that says what the network rules of a job do not hold for here; empty where they hold."""
        if self.egress_control and not self.egress_gap:
            return ""
        return f"its guests also reach {self.egress_gap or 'every network that their host reaches'}"


@dataclass(frozen=True)
class ToolMount:
    """A folder of the host that the guest sees read-only, for providers whose guests have no image of their own."""

    source: Path
    target: str


@dataclass(frozen=True)
class SandboxSpec:
    """What to create. ``name`` is ours alone (``worker.sandboxes.names``); memory and disk are upper limits."""

    name: str
    cpus: int
    memory_mib: int
    disk_mib: int
    image: str = "tatin"
    tools: tuple[ToolMount, ...] = ()
    ports: tuple[int, ...] = ()
    """What ``serve`` will be asked for, for who can have it ready from the start."""


@dataclass(frozen=True)
class CommandResult:
    """How a command in the guest ended.

    ``exit_status`` is the program's, 127 when there is no such program, 128 + n when signal n killed it. Each stream
    is kept up to the limit that was asked for; ``truncated`` tells whether more came.
    """

    exit_status: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class GuestProcess(ABC):
    """A program running in the guest over live streams. Leaving its context kills it."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Write to its stdin, waiting for room. A program that closed its stdin is no error: the data is dropped."""

    @abstractmethod
    async def close_stdin(self) -> None: ...

    @abstractmethod
    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        """The next bytes, at most ``limit``; ``b""`` at the end."""

    @abstractmethod
    async def wait(self) -> int:
        """Its exit status, as in ``CommandResult``.

        Raises:
            SandboxError: the sandbox died under it.
        """

    @abstractmethod
    async def kill(self) -> None:
        """SIGKILL to it and to what it started in its process group."""


@dataclass(frozen=True)
class RunStatus:
    """Where a started run is.

    ``exit_status`` is None while it runs; ``timed_out`` when the launcher in the guest ended it at its limit.
    ``stdout_bytes`` and ``stderr_bytes`` count all that was printed, also what the limit cut off.
    """

    exit_status: int | None
    timed_out: bool
    stdout_bytes: int
    stderr_bytes: int
    cut: bool
    """Output went over ``output_limit_bytes`` and the rest was dropped."""


@dataclass(frozen=True)
class RunChunk:
    """A piece of a run's output. ``offset`` is where it begins in its stream."""

    stream: Literal["stdout", "stderr"]
    offset: int
    data: bytes


class Run(ABC):
    """A program that the launcher in the guest runs detached: it outlives connections (and, in a VM, the worker)."""

    @abstractmethod
    def follow(self, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncIterator[RunChunk]:
        """Its output from these offsets on, live (within 50 ms), in order within each stream, until it has ended and
        all was read.

        Raises:
            SandboxError: the connection was lost and could not be had again.
        """

    @abstractmethod
    async def status(self) -> RunStatus: ...

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to its session, then SIGKILL after the grace; returns when it is dead. Safe to call twice."""


@dataclass(frozen=True)
class StartSpec:
    """What to start. The run gets a session of its own and its stdin from a file in the guest (None: /dev/null).

    ``timeout_seconds`` is enforced by the launcher in the guest (SIGTERM, ``grace_seconds``, SIGKILL); the worker
    enforces the same from outside, a little later.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = GUEST_REPO
    stdin_path: str | None = None
    timeout_seconds: float = 7200
    grace_seconds: float = 10
    output_limit_bytes: int = 64 * 2**20
    label: str = "agent"
    """Names the run's folder under GUEST_RUN; one run per label."""


class Sandbox(ABC):
    """One running, disposable environment."""

    name: str
    capabilities: Capabilities
    image: str = ""
    """Which image it was made from, as ``name@digest``; empty where there is none."""
    parts: Mapping[str, str | None] = MappingProxyType({})
    """What its image holds: part -> what it says of its version; None: left out when the image was built."""

    @abstractmethod
    def exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = GUEST_HOME,
    ) -> AbstractAsyncContextManager[GuestProcess]:
        """Run a program in the guest as its user; no shell is involved. ``env`` is added to the guest's own.

        Raises:
            SandboxError: the guest could start nothing. A missing program is exit status 127.
        """

    def python(
        self, source: str, args: Sequence[str] = (), *, cwd: str = GUEST_HOME
    ) -> AbstractAsyncContextManager[GuestProcess]:
        """Run Python source in the guest's interpreter (3.9 or newer, standard library only), built on ``exec``."""
        return self.exec(["python3", "-I", "-S", "-B", "-c", source, *args], cwd=cwd)

    async def put(self, files: Mapping[str, bytes], mode: int) -> bool:
        """Write these files (absolute path -> bytes; one that ends with ``/`` is a folder), where this kind of sandbox
        has a shorter way for few than a tar over ``exec``; False: it has not, and nothing was written. For
        ``transfer.push_files``.

        Raises:
            SandboxError: the guest could not take them.
        """
        return False

    async def put_and_run(
        self,
        files: Mapping[str, bytes],
        mode: int,
        argv: Sequence[str],
        copy: tuple[str, str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = GUEST_HOME,
    ) -> CommandResult | None:
        """``put``, then ``run_short``, then, where that succeeded, a copy of one plain file (source, target) with its
        times: at one go, where this kind of sandbox has a way for that. None: it has not, or not for as much, and
        nothing was done.

        Raises:
            SandboxError: the guest could start nothing, or could not take the files or the copy.
        """
        return None

    @abstractmethod
    async def start(self, spec: StartSpec) -> Run:
        """Start the agent step, detached."""

    def started(self, label: str) -> Run:
        """The run that was started under ``label``, by this worker or by the one that made the sandbox: what is left
        in the guest of a run whose connections are gone. Asking it anything raises SandboxError when there is none.

        Raises:
            SandboxError: this kind of sandbox does not survive its worker.
        """
        raise SandboxError(f"Sandbox '{self.name}' does not survive its worker.")

    @abstractmethod
    async def serve(self, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Make the guest's ``127.0.0.1:port`` reach ``protocol`` on the host: called once per connection, as with
        ``loop.create_server``. Nothing else of the host is reachable. Ends with the sandbox.

        Raises:
            SandboxError: the port is taken or the guest is gone.
        """

    @abstractmethod
    async def kill_all(self) -> None:
        """Kill every process of the guest, ``exec``s too: after it nothing of the agent runs."""

    @abstractmethod
    async def usage(self) -> SandboxUsage:
        """What it has used so far."""

    async def let_go(self) -> None:  # noqa: B027 - most have none
        """Give up the connections to it. Where it survives its worker it lives on, for ``adopt``."""

    async def wait_full(self) -> str:
        """Return when it has used up its disk or its number of files, with a sentence that says so; what ran in it is
        dead then. Never returns where the guest's own disk is the limit, as in a virtual machine."""
        await asyncio.Event().wait()
        raise AssertionError

    @abstractmethod
    async def wait_dead(self) -> str:
        """Return when the sandbox has died of itself, with what was seen (for the message of a SandboxError)."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str = GUEST_HOME,
        timeout_seconds: float = 60,
        max_output_bytes: int = 2**20,
    ) -> CommandResult:
        """Run a program in the guest and wait for it; built on ``exec``.

        Raises:
            CommandTimeout: the limit passed; the program is dead when this is raised.
            SandboxError: as ``exec``.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self.exec(argv, env=env, cwd=cwd) as process:
                return await communicate(process, stdin, max_output_bytes)
        except TimeoutError as error:
            raise CommandTimeout(
                f"'{argv[0]}' in sandbox '{self.name}' took longer than {timeout_seconds:g}s."
            ) from error

    async def run_short(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = GUEST_HOME,
        most: int = SHORT_OUTPUT_BYTES,
    ) -> CommandResult:
        """Run a program that is given nothing and prints little; built on ``exec`` where there is no shorter way.

        What it prints beyond ``most`` bytes is refused: then the result is truncated, or the program failed over it,
        as git and other careful ones do. Of its errors the first ``SHORT_ERROR_BYTES`` are kept. The time limit is the
        caller's: when that is cancelled, the program is killed.

        Raises:
            SandboxError: as ``exec``.
        """
        async with self.exec(argv, env=env, cwd=cwd) as process:
            return await _read_short(process, most)


@dataclass(frozen=True)
class SandboxUsage:
    """What a sandbox has used: None where the provider cannot tell."""

    cpu_seconds: float | None = None
    peak_memory_mib: int | None = None
    oom_kills: int | None = None
    disk_mib: int | None = None
    limits_hit: tuple[str, ...] = ()
    """memory, processes, cpu, disk, files: what it came up against, as far as the provider sees it."""


@dataclass(frozen=True)
class Finding:
    """One thing that ``doctor`` checked: ``ok`` or not, what was seen, and the command or step that mends it."""

    name: str
    ok: bool
    seen: str
    fix: str = ""


class SandboxProvider(ABC):
    """A kind of sandbox on this host. Every method may be called from the worker's one event loop only."""

    kind: ClassVar[str]
    capabilities: Capabilities
    own_image: ClassVar[bool] = False
    """Its guests have an image with the agent tools in it; else the host's are mounted (``SandboxSpec.tools``)."""
    over_network: bool = False
    """Its guests are reached by an address on a network of this host, which macOS may keep a program from."""

    def configure(self, settings: Settings) -> None:  # noqa: B027 - most have none
        """Take what the worker's settings say of this kind; once, before anything else."""

    @abstractmethod
    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox that is ready for ``exec``.

        Raises:
            SandboxError: it could not be made; what was half made is gone, or ``destroy`` removes it.
            DiskFull: the host has no room for it. HostBusy: not now.
        """

    async def adopt(self, name: str) -> Sandbox:
        """The living sandbox ``name`` of an earlier worker of this home, as if ``create`` had made it just now: ready
        for ``exec``, ``started`` and ``serve`` (on the ports that the earlier worker served too). Only asked of a
        provider that ``survives_worker``; nothing in the guest is disturbed.

        Raises:
            SandboxError: it is not there, is dead, or cannot be reached in a bounded time; it will be destroyed.
        """
        raise SandboxError(f"A sandbox of kind '{self.kind}' does not survive its worker: '{name}' is not adopted.")

    async def stop(self, name: str) -> None:
        """Save what the sandbox ``name`` has on its disk and end its machine, so that ``start`` finds it again. Only
        asked of a provider that ``survives_worker``.

        Raises:
            SandboxError: it is not there, or does not end.
        """
        raise SandboxError(f"A sandbox of kind '{self.kind}' cannot be stopped and started again: '{name}'.")

    async def start(self, name: str) -> Sandbox:
        """The sandbox ``name`` running: as it is, or its machine started again from its disk.

        Raises:
            SandboxError: it is not there, or does not start.
        """
        raise SandboxError(f"A sandbox of kind '{self.kind}' cannot be stopped and started again: '{name}'.")

    @abstractmethod
    async def list(self) -> Sequence[str]:
        """Names of the sandboxes of this home that are on the host, dead or alive.

        Raises:
            SandboxError: the answer could not be read; then nothing may be destroyed or forgotten (F11).
        """

    @abstractmethod
    async def destroy(self, name: str) -> None:
        """End it and remove all of it; returns when it is verified gone. Safe to call twice, and on half a sandbox.

        Raises:
            SandboxError: it is still there, or ``name`` is not one of this home's.
        """

    @abstractmethod
    def check(self) -> Sequence[Finding]:
        """What this host has and lacks for this provider; quick, starts nothing that lasts."""


async def communicate(process: GuestProcess, stdin: bytes, max_output_bytes: int) -> CommandResult:
    """Write ``stdin`` to it, read both of its streams up to this many bytes each, and wait for its end."""

    async def feed() -> None:
        await process.write(stdin)
        await process.close_stdin()

    async def drain(stream: Literal["stdout", "stderr"]) -> tuple[bytes, bool]:
        kept = bytearray()
        cut = False
        while chunk := await process.read(stream):
            room = max_output_bytes - len(kept)
            kept += chunk[:room]
            cut = cut or len(chunk) > room
        return bytes(kept), cut

    if not stdin:
        await process.close_stdin()
    feeding = [feed()] if stdin else []
    (stdout, out_cut), (stderr, err_cut), *_ = await together(drain("stdout"), drain("stderr"), *feeding)
    return CommandResult(await process.wait(), stdout, stderr, out_cut or err_cut)


class _TooLong(Exception):
    """More was printed than is wanted."""


async def _read_short(process: GuestProcess, most: int) -> CommandResult:
    stdout, stderr = bytearray(), bytearray()

    async def read() -> None:
        while chunk := await process.read("stdout"):
            stdout.extend(chunk[: most - len(stdout) + 1])
            if len(stdout) > most:
                raise _TooLong

    async def drain() -> None:
        while chunk := await process.read("stderr"):
            stderr.extend(chunk[: SHORT_ERROR_BYTES - len(stderr)])

    await process.close_stdin()
    try:
        await together(read(), drain())
    except _TooLong:
        return CommandResult(KILLED, bytes(stdout[:most]), bytes(stderr), truncated=True)
    return CommandResult(await process.wait(), bytes(stdout), bytes(stderr))


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run all of them and return their results; the first error ends the others and is raised as it is. (A TaskGroup
    would raise a group, and callers look for a SandboxError.)"""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
