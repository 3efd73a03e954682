"""One running bwrap guest, seen from the worker: requests to its warden over one socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import (
    GUEST_HOME,
    SHORT_ERROR_BYTES,
    CommandResult,
    GuestProcess,
    Run,
    Sandbox,
    SandboxUsage,
    StartSpec,
)
from worker.sandboxes.bwrap.cpu import tree_cpu_seconds
from worker.sandboxes.bwrap.inside import kill_inside, kill_tree
from worker.sandboxes.bwrap.late_server import LateServer
from worker.sandboxes.bwrap.limits import Limits
from worker.sandboxes.bwrap.packets import MOST_BYTES, pack, receive
from worker.sandboxes.bwrap.provider_facts import CAPABILITIES
from worker.sandboxes.bwrap.sending import Sender, close_all
from worker.sandboxes.bwrap.short_file import ShortFile, no_input
from worker.sandboxes.launched import LaunchedRun, launcher_spec, run_folder

PACKET_BYTES = MOST_BYTES - 20_000
PUT_BYTES = 28_000
"""Of files in one request."""
ANSWER_BYTES = 64
"""Two numbers."""
ANSWER_SECONDS = 60.0
STUCK_SECONDS = 3.0
STUCK_TIMES = 20
"""A warden that has not answered by then is held up by its guest, whose programs are killed; so many times."""
CLOSE_SECONDS = 5.0
"""A guest that has not ended of itself by then is killed."""
HELLO = 0
ENDED = -1
"""Numbers of what the warden says unasked."""
STREAMS = ("stdin", "stdout", "stderr")
READS_AT_ONCE = 8
"""After so many everybody else in the loop has a turn, for a program may print without end."""


class BwrapSandbox(Sandbox):
    """Made by the provider, at the socket of a warden; ``make`` has it make the guest."""

    capabilities = CAPABILITIES

    def __init__(
        self,
        name: str,
        control: socket.socket,
        limits: Limits,
        env: Mapping[str, str],
        folders: Sequence[Path],
        note: Callable[[int], None],
    ) -> None:
        self.name = name
        self._note = note
        self._control = control
        self._limits = limits
        self._env = dict(env)
        self._next = 0
        self._room = bytearray(ANSWER_BYTES)
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[tuple[int, list[int]]]] = {}
        self._servers: list[LateServer] = []
        self._dead = asyncio.Event()
        self._closing = False
        self._oom_kills = 0
        self._peak_mib: int | None = None
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self._receive)
        self._sender = Sender(control, self._not_sent)
        self._limits_hit: set[str] = set()
        self._folders = folders
        self.warden = 0
        """Its pid, once it has told; ``note`` is told it, too."""
        self._why_none = "the fork server is gone"
        self._status: int | None = None
        self._watches: list[asyncio.Task[None]] = []

    # The three primitives

    @asynccontextmanager
    async def exec(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = GUEST_HOME
    ) -> AsyncIterator[GuestProcess]:
        body = {"op": "exec", "argv": list(argv), "env": {**self._env, **(env or {})}, "cwd": cwd}
        async with self._piped(body) as process:
            yield process

    async def run_short(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = GUEST_HOME, most: int = 65_536
    ) -> CommandResult:
        """Into memory of a fixed length instead of pipes, with nothing to watch meanwhile."""
        body = {"op": "exec", "argv": list(argv), "env": {**self._env, **(env or {})}, "cwd": cwd}
        with no_input() as stdin, ShortFile(most) as stdout, ShortFile(SHORT_ERROR_BYTES) as stderr:
            number, answer = self._send(body, [stdin, stdout.fd, stderr.fd])
            try:
                status, _ = await answer
            except BaseException:
                self.tell({"op": "kill", "id": number})
                raise
            return CommandResult(status, stdout.read(), stderr.read(), truncated=stdout.is_over)

    async def start(self, spec: StartSpec) -> Run:
        folder = run_folder(spec.label)
        body = {"op": "start", "folder": folder, "spec": launcher_spec(spec, {**self._env, **spec.env})}
        status, _ = await self._ask(body)
        if status:
            raise SandboxError(
                f"'{spec.label}' cannot be started in sandbox '{self.name}'.", seen=f"{folder}: {os.strerror(status)}"
            )
        return LaunchedRun(lambda args: self._piped({"op": "launcher", "args": list(args)}, ["stdout"]), folder)

    async def put(self, files: Mapping[str, bytes], mode: int) -> bool:
        """Small files are written by the warden itself."""
        if sum(map(len, files.values())) > PUT_BYTES:
            return False
        status, _ = await self._ask({"op": "write", "files": dict(files), "mode": mode})
        if status:
            raise SandboxError(f"Files could not be put into sandbox '{self.name}'.", seen=os.strerror(status))
        return True

    async def copy(self, source: str, target: str) -> bool:
        status, _ = await self._ask({"op": "copy", "source": source, "target": target})
        if status == errno.EFBIG:
            return False
        if status:
            seen = f"{source}, {target}: {os.strerror(status)}"
            raise SandboxError(f"A file of sandbox '{self.name}' could not be copied.", seen=seen)
        return True

    async def serve(self, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        status, fds = await self._ask({"op": "listen", "port": port})
        if status or not fds:
            raise SandboxError(f"Port {port} of sandbox '{self.name}' cannot be served.", seen=os.strerror(status))
        listener = socket.socket(fileno=fds[0])
        listener.setblocking(False)
        self._servers.append(LateServer(listener, protocol))

    async def kill_all(self) -> None:
        """The warden does not answer where the guest stopped a program before it had begun, or holds a lease on it."""
        _, answer = self._send({"op": "kill_all"})
        for _ in range(STUCK_TIMES):
            if (await asyncio.wait({answer}, timeout=STUCK_SECONDS))[0]:
                answer.result()
                return
            await asyncio.to_thread(kill_inside, self.warden)
        raise self._no_answer("kill_all")

    async def usage(self) -> SandboxUsage:
        self._note_limits()
        return SandboxUsage(
            cpu_seconds=None if self._dead.is_set() else tree_cpu_seconds(self.warden),
            peak_memory_mib=self._peak_mib,
            oom_kills=self._oom_kills,
            limits_hit=tuple(sorted(self._limits_hit)),
        )

    async def wait_full(self) -> str:
        return await asyncio.shield(self._limits.full)

    async def wait_dead(self) -> str:
        await self._dead.wait()
        return self._death()

    # For the provider

    async def make(self, making: Mapping[str, Any]) -> None:
        """Have the warden make the guest (``making``: its request). Raises SandboxError."""
        status, _ = await self._send({"op": "make", **making})[1]
        if status:
            raise SandboxError(f"Sandbox '{self.name}' cannot be made.", seen=os.strerror(status))
        self._watches = [asyncio.create_task(self._limits.watch_disk(self._folders, self.kill_all))]
        if not self._limits.folders:
            self._watches.append(asyncio.create_task(self._limits.watch(self.warden)))

    async def close(self) -> bool:
        """End it: the warden ends the guest when nothing more is asked, and then itself. False: it did not, and was
        killed with all that is below it."""
        self._closing = True
        for watch in self._watches:
            watch.cancel()
        for server in self._servers:
            server.close()
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._dead.wait()
        except TimeoutError:
            await self._kill()
            return False
        return True

    @property
    def has_ended(self) -> bool:
        """Whether the warden has told of the guest's end: nothing of it runs then."""
        return self._status is not None

    async def _kill(self) -> None:
        """All of it, by force; a warden that has never told its number there is none of, or it ends when it begins."""
        if self.warden and not self._dead.is_set():
            await asyncio.to_thread(kill_tree, self.warden)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._dead.wait()
        if not self._dead.is_set():
            self._has_ended()

    # Inside

    @asynccontextmanager
    async def _piped(self, body: dict[str, Any], streams: Sequence[str] = STREAMS) -> AsyncIterator[BwrapProcess]:
        process, theirs = BwrapProcess(self), []
        try:
            for stream in streams:
                theirs.append(process.open(stream))
            process.number, process.answer = self._send(body, theirs)
        except OSError as error:
            process.close()
            raise self._out_of_reach(error) from error
        except BaseException:
            process.close()
            raise
        finally:
            close_all(theirs)
        try:
            yield process
        finally:
            if not process.answer.done():
                await process.kill()
            process.close()

    def _send(self, body: dict[str, Any], fds: Sequence[int] = ()) -> tuple[int, asyncio.Future[tuple[int, list[int]]]]:
        if self._dead.is_set():
            raise SandboxError(f"Sandbox '{self.name}' is dead.", seen=self._death())
        self._next += 1
        data = pack({"id": self._next, **body})
        if len(data) > PACKET_BYTES:
            raise SandboxError(f"A command of {len(data)} bytes is too long for a sandbox.", try_="put it into a file.")
        answer: asyncio.Future[tuple[int, list[int]]] = self._loop.create_future()
        self._answers[self._next] = answer
        try:
            self._sender.send(self._next, data, fds)
        except OSError as error:
            del self._answers[self._next]
            raise self._out_of_reach(error) from error
        return self._next, answer

    def _not_sent(self, number: int, error: OSError) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_exception(self._out_of_reach(error))
            answer.exception()  # somebody may have stopped waiting

    def _out_of_reach(self, error: OSError) -> SandboxError:
        return SandboxError(f"Sandbox '{self.name}' cannot be reached.", seen=str(error))

    async def _ask(self, body: dict[str, Any]) -> tuple[int, list[int]]:
        _, answer = self._send(body)
        late = self._loop.call_later(ANSWER_SECONDS, self._give_up, answer, body["op"])
        try:
            return await answer
        finally:
            late.cancel()

    def _give_up(self, answer: asyncio.Future[tuple[int, list[int]]], op: str) -> None:
        if not answer.done():
            answer.set_exception(self._no_answer(op))

    def _no_answer(self, op: str) -> SandboxError:
        return SandboxError(f"Sandbox '{self.name}' did not answer '{op}'.")

    def tell(self, body: dict[str, Any]) -> None:
        """Send what has no answer; a dead sandbox is fine."""
        if not self._dead.is_set():
            with suppress(OSError):
                self._sender.send(body["id"], pack(body))

    def _receive(self) -> None:
        try:
            data, fds = receive(self._control, self._room)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._has_ended()
            return
        number, status = map(int, data.split())
        if number == HELLO and not self.warden:
            self._has_begun(status)
            return
        if number == ENDED:
            self._status = status
            return
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result((status, fds))
        else:
            for fd in fds:
                os.close(fd)

    def _has_begun(self, pid: int) -> None:
        if pid > 0:
            self.warden = pid
            self._note(pid)
        else:
            self._why_none = os.strerror(-pid)

    def _has_ended(self) -> None:
        """The warden is gone, and the guest with it."""
        for watch in self._watches:
            watch.cancel()
        self._loop.remove_reader(self._control.fileno())
        self._sender.close()
        self._control.close()
        if not self._closing:
            self._note_limits()
        self._dead.set()
        error = SandboxError(f"Sandbox '{self.name}' died.", seen=self._death())
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # somebody may have stopped waiting
        self._answers.clear()

    def _death(self) -> str:
        if not self.warden:
            return f"it has no process: {self._why_none}"
        return "its warden ended" if self._status is None else f"bwrap ended with status {self._status}"

    def _note_limits(self) -> None:
        """Read while the cgroup is there; it goes with the sandbox."""
        self._oom_kills = max(self._oom_kills, self._limits.oom_kills())
        self._limits_hit |= self._limits.hit() | ({"memory"} if self._oom_kills else set())
        self._peak_mib = self._limits.peak_mib() or self._peak_mib


class BwrapProcess(GuestProcess):
    """A program in the guest; ``_pipes``: our ends of those that it has, which do not block.

    They are read and written here, without asyncio's transports: most programs are given nothing and print little.
    """

    number: int
    answer: asyncio.Future[tuple[int, list[int]]]

    def __init__(self, sandbox: BwrapSandbox) -> None:
        self._sandbox = sandbox
        self._pipes: dict[str, int] = {}
        self._reads = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()

    def open(self, stream: str) -> int:
        """Make a pipe; returns the program's end. Raises OSError."""
        read, write = os.pipe()
        ours, theirs = (write, read) if stream == "stdin" else (read, write)
        os.set_blocking(ours, False)
        self._pipes[stream] = ours
        return theirs

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and (fd := self._pipes.get("stdin")) is not None:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                await self._ready(fd, self._loop.add_writer, self._loop.remove_writer)
            except BrokenPipeError:
                return

    async def close_stdin(self) -> None:
        self._close("stdin")

    async def read(self, stream: Literal["stdout", "stderr"], limit: int = 65_536) -> bytes:
        self._reads += 1
        if self._reads % READS_AT_ONCE == 0:
            await asyncio.sleep(0)
        while (fd := self._pipes.get(stream)) is not None:
            try:
                data = os.read(fd, limit)
            except BlockingIOError:
                await self._ready(fd, self._loop.add_reader, self._loop.remove_reader)
                continue
            if not data:
                self._close(stream)
            return data
        return b""

    async def _ready(self, fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
        """Return when the pipe can be read or written, or was closed here."""
        ready = self._waiting[fd] = self._loop.create_future()
        add(fd, _set, ready)
        try:
            await ready
        finally:
            if self._waiting.pop(fd, None):
                remove(fd)

    async def wait(self) -> int:
        return (await asyncio.shield(self.answer))[0]

    async def kill(self) -> None:
        self._sandbox.tell({"op": "kill", "id": self.number})

    def close(self) -> None:
        """Let go of the pipes."""
        for stream in list(self._pipes):
            self._close(stream)

    def _close(self, stream: str) -> None:
        fd = self._pipes.pop(stream, None)
        if fd is None:
            return
        if ready := self._waiting.pop(fd, None):
            (self._loop.remove_writer if stream == "stdin" else self._loop.remove_reader)(fd)
            _set(ready)
        os.close(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
