"""A provider without isolation, for tests: guests are folders, their programs plain processes of the host, and dials
make it slow, make it refuse, or let a sandbox die. Never offered to users (it is not in ``KINDS``).

Guest paths are mapped into the folder wherever they stand in a command line, its environment or its working directory;
that is enough for everything that the worker runs in a guest. ``serve`` listens on the host's own loopback, so two
sandboxes cannot serve one port at the same time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import psutil

from tatin_jobs.errors import SandboxError
from worker.sandboxes import launcher
from worker.sandboxes.base import (
    GUEST_HOME,
    GUEST_RUN,
    GUEST_WORK,
    Capabilities,
    Finding,
    GuestProcess,
    Run,
    Sandbox,
    SandboxProvider,
    SandboxSpec,
    SandboxUsage,
    StartSpec,
)
from worker.sandboxes.launched import LaunchedRun, start_run
from worker.sandboxes.names import is_ours
from worker.sandboxes.removal import remove_tree

CAPABILITIES = Capabilities(
    separate_kernel=False, egress_control=False, survives_worker=False, snapshot=False, sudo=False
)
DEAD = "dead"
"""A file in the folder of a sandbox that died."""
MARK = "TATIN_FAKE_SANDBOX"
"""The variable by which a guest's processes are known, however they were detached."""
_LAUNCHER = Path(launcher.__file__).read_text()


@dataclass
class Dials:
    """What goes wrong; may be turned while a test runs."""

    create_seconds: float = 0
    create_fails: bool = False
    destroy_seconds: float = 0
    list_seconds: float = 0
    destroy_fails: int = 0
    """How many of the next destroys fail."""
    list_fails: bool = False
    oom_kills: int = 0


class FakeProvider(SandboxProvider):
    """Sandboxes are folders under ``root``."""

    kind: ClassVar[str] = "fake"

    def __init__(self, root: Path, home_id: str, dials: Dials | None = None, *, survives_worker: bool = False) -> None:
        self._root = root
        self._home_id = home_id
        self.dials = dials or Dials()
        self.live: dict[str, FakeSandbox] = {}
        self.capabilities = replace(CAPABILITIES, survives_worker=survives_worker)

    async def create(self, spec: SandboxSpec) -> FakeSandbox:
        self._check_name(spec.name)
        await asyncio.sleep(self.dials.create_seconds)
        if self.dials.create_fails:
            raise SandboxError(f"Sandbox '{spec.name}' was refused, as the dial says.")
        folder = self._root / spec.name
        for path in (GUEST_WORK, GUEST_RUN):
            os.makedirs(f"{folder}{path}")
        self.live[spec.name] = FakeSandbox(spec.name, folder, self.dials)
        return self.live[spec.name]

    async def adopt(self, name: str) -> FakeSandbox:
        self._check_name(name)
        folder = self._root / name
        if not self.capabilities.survives_worker or not folder.is_dir() or (folder / DEAD).exists():
            raise SandboxError(f"Sandbox '{name}' is not alive.")
        self.live[name] = FakeSandbox(name, folder, self.dials)
        return self.live[name]

    async def list(self) -> Sequence[str]:
        await asyncio.sleep(self.dials.list_seconds)
        if self.dials.list_fails:
            raise SandboxError("The list cannot be read, as the dial says.")
        return sorted(name for name in os.listdir(self._root) if is_ours(name, self._home_id))

    async def destroy(self, name: str) -> None:
        self._check_name(name)
        await asyncio.sleep(self.dials.destroy_seconds)
        if self.dials.destroy_fails > 0:
            self.dials.destroy_fails -= 1
            raise SandboxError(f"Sandbox '{name}' resists, as the dial says.")
        sandbox = self.live.pop(name, None)
        if sandbox is not None:
            await sandbox.close()
        _kill_marked(name)
        await asyncio.to_thread(remove_tree, self._root / name)

    def check(self) -> Sequence[Finding]:
        return [Finding("fake", True, "always there")]

    def _check_name(self, name: str) -> None:
        if not is_ours(name, self._home_id):
            raise SandboxError(f"'{name}' is no sandbox of this home; it is left alone.")


class FakeSandbox(Sandbox):
    """One folder, and every process that carries its mark."""

    capabilities = CAPABILITIES

    def __init__(self, name: str, folder: Path, dials: Dials) -> None:
        self.name = name
        self._folder = folder
        self._dials = dials
        self._dead = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._env = {
            "HOME": self._mapped(GUEST_HOME),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            MARK: name,
        }

    async def die(self) -> None:
        """Let it die of itself, as a crashed machine does."""
        self._dead.set()
        (self._folder / DEAD).touch()
        await self.close()

    @asynccontextmanager
    async def exec(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = GUEST_HOME
    ) -> AsyncIterator[GuestProcess]:
        if self._dead.is_set():
            raise SandboxError(f"Sandbox '{self.name}' is dead.")
        mapped = {key: self._mapped(value) for key, value in (env or {}).items()}
        process = await _spawn([self._mapped(part) for part in argv], {**self._env, **mapped}, self._mapped(cwd))
        guest = FakeProcess(process, self._dead)
        try:
            yield guest
        finally:
            await guest.close()

    async def start(self, spec: StartSpec) -> Run:
        mapped = StartSpec(
            argv=[self._mapped(part) for part in spec.argv],
            cwd=self._mapped(spec.cwd),
            stdin_path=self._mapped(spec.stdin_path) if spec.stdin_path else None,
            timeout_seconds=spec.timeout_seconds,
            grace_seconds=spec.grace_seconds,
            output_limit_bytes=spec.output_limit_bytes,
            label=spec.label,
        )
        env = {**self._env, **{key: self._mapped(value) for key, value in spec.env.items()}}
        return await start_run(lambda args: self.python(_LAUNCHER, args), mapped, env, self._mapped(GUEST_RUN))

    def started(self, label: str) -> Run:
        return LaunchedRun(lambda args: self.python(_LAUNCHER, args), f"{self._mapped(GUEST_RUN)}/{label}")

    async def serve(self, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        try:
            server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
        except OSError as error:
            raise SandboxError(f"Port {port} of sandbox '{self.name}' cannot be served.", seen=str(error)) from error
        self._servers.append(server)

    async def kill_all(self) -> None:
        _kill_marked(self.name)

    async def usage(self) -> SandboxUsage:
        return SandboxUsage(oom_kills=self._dials.oom_kills)

    async def wait_dead(self) -> str:
        await self._dead.wait()
        return "it died, as the test said"

    async def close(self) -> None:
        """End its processes and servers."""
        self._dead.set()
        for server in self._servers:
            server.close()
        _kill_marked(self.name)

    def _mapped(self, text: str) -> str:
        """Guest paths as the host's; one that is mapped already stays."""
        if text == "/":
            return str(self._folder)
        if str(self._folder) in text:
            return text
        for path in (GUEST_HOME, GUEST_RUN):
            text = text.replace(path, f"{self._folder}{path}")
        return text


class FakeProcess(GuestProcess):
    """A plain process in a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process | int, dead: asyncio.Event) -> None:
        self._process = process if not isinstance(process, int) else None
        self._status = process if isinstance(process, int) else None
        self._dead = dead

    async def write(self, data: bytes) -> None:
        if self._process and self._process.stdin:
            with suppress(ConnectionError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()

    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        if self._process is None:
            return b""
        reader = self._process.stdout if stream == "stdout" else self._process.stderr
        assert reader is not None  # opened as a pipe
        return await reader.read(limit)

    async def wait(self) -> int:
        if self._process is None:
            return self._status or 0
        status = await self._process.wait()
        if self._dead.is_set():
            raise SandboxError("The sandbox died.")
        return status if status >= 0 else 128 - status

    async def kill(self) -> None:
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        await self.kill()
        if self._process:
            self._process._transport.close()  # type: ignore[attr-defined]  # what it left behind may hold the pipes
            await self._process.wait()


async def _spawn(argv: list[str], env: dict[str, str], cwd: str) -> asyncio.subprocess.Process | int:
    program = [sys.executable, *argv[1:]] if argv[0] == "python3" else argv
    try:
        return await asyncio.create_subprocess_exec(
            *program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        return 127
    except PermissionError:
        return 126


def _kill_marked(name: str) -> None:
    """SIGKILL to every process with the mark, until none is left. They are not waited for: that is the event loop's,
    which would miss their exit status."""
    while marked := [process for process in psutil.process_iter() if _mark(process) == name]:
        for process in marked:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.005)


def _mark(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(MARK)
    except psutil.Error:
        return None
