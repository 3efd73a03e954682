"""One running bwrap guest, seen from the worker: requests to its warden over one socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import (
    GUEST_HOME,
    SHORT_ERROR_BYTES,
    SHORT_OUTPUT_BYTES,
    CommandResult,
    GuestProcess,
    Run,
    Sandbox,
    SandboxUsage,
    StartSpec,
)
from worker.sandboxes.bwrap.cpu import tree_cpu_seconds
from worker.sandboxes.bwrap.guest_process import Answer, BwrapProcess
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
        self._answers: dict[int, Answer] = {}
        self._following: dict[str, BwrapProcess] = {}
        """Folder of a run -> what it prints from its start on, for whoever follows it first."""
        self._listening: dict[int, socket.socket] = {}
        """By port, until it is served."""
        self._servers: list[LateServer] = []
        self._ended = asyncio.Event()
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
        body = self._program(argv, env, cwd)
        async with self._piped(body) as process:
            yield process

    async def run_short(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = GUEST_HOME,
        most: int = SHORT_OUTPUT_BYTES,
    ) -> CommandResult:
        """Into memory of a fixed length instead of pipes, with nothing to watch meanwhile."""
        return await self._run_short(self._program(argv, env, cwd), most)

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
        if _size(files) > PUT_BYTES:
            return None
        body = {**self._program(argv, env, cwd), "files": dict(files), "mode": mode, "copy": list(copy)}
        done = await self._run_short(body, SHORT_OUTPUT_BYTES)
        if done.exit_status < 0:
            seen = os.strerror(-done.exit_status)
            raise SandboxError(f"Files of sandbox '{self.name}' could not be written.", seen=seen)
        return done

    def _program(self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str) -> dict[str, Any]:
        """What is asked for to have it run."""
        return {"op": "exec", "argv": list(argv), "env": {**self._env, **(env or {})}, "cwd": cwd}

    async def _run_short(self, body: dict[str, Any], most: int) -> CommandResult:
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
        process = self._open(body, ["stdout"])
        started = False
        try:
            status, _ = await self._answered(process.answer, "start")
            started = not status and not self._dead.is_set()
        finally:
            if started:
                self._following[folder] = process
            else:
                process.close()
        if status:
            raise SandboxError(
                f"'{spec.label}' cannot be started in sandbox '{self.name}'.", seen=f"{folder}: {os.strerror(status)}"
            )
        return LaunchedRun(self._launcher, folder)

    async def put(self, files: Mapping[str, bytes], mode: int) -> bool:
        """Small files are written by the warden itself."""
        if _size(files) > PUT_BYTES:
            return False
        status, _ = await self._ask({"op": "write", "files": dict(files), "mode": mode})
        if status:
            raise SandboxError(f"Files could not be put into sandbox '{self.name}'.", seen=os.strerror(status))
        return True

    async def serve(self, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        listener = self._listening.pop(port, None)
        if listener is None:
            status, fds = await self._ask({"op": "listen", "ports": [port]})
            if status or not fds:
                seen = os.strerror(status or errno.EMFILE)
                raise SandboxError(f"Port {port} of sandbox '{self.name}' cannot be served.", seen=seen)
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
        status, fds = await self._ask({"op": "make", **making})
        if status or len(fds) < len(making["ports"]):
            close_all(fds)
            raise SandboxError(f"Sandbox '{self.name}' cannot be made.", seen=os.strerror(status or errno.EMFILE))
        self._listening = {port: socket.socket(fileno=fd) for port, fd in zip(making["ports"], fds, strict=True)}
        self._watches = [asyncio.create_task(self._limits.watch_disk(self._folders, self.kill_all))]
        if not self._limits.folders:
            self._watches.append(asyncio.create_task(self._limits.watch(self.warden)))

    async def close(self) -> bool:
        """End it: the warden ends the guest when nothing more is asked, and then itself, for which ``gone`` waits.
        False: the guest did not end, and was killed with its warden."""
        self._closing = True
        for watch in self._watches:
            watch.cancel()
        for server in self._servers:
            server.close()
        self._stop_listening()
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        return await self._within_time(self._ended)

    async def gone(self) -> None:
        """Return when its warden is gone too, after ``close``."""
        await self._within_time(self._dead)

    async def _within_time(self, event: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await event.wait()
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
    async def _piped(self, body: dict[str, Any]) -> AsyncIterator[BwrapProcess]:
        process = self._open(body, STREAMS)
        try:
            yield process
        finally:
            if not process.answer.done():
                await process.kill()
            process.close()

    @asynccontextmanager
    async def _printed(self, process: BwrapProcess) -> AsyncIterator[BwrapProcess]:
        """What the warden prints, until nobody reads it any more."""
        try:
            yield process
        finally:
            process.close()

    def _launcher(self, args: Sequence[str]) -> AbstractAsyncContextManager[GuestProcess]:
        command, folder, *offsets = args
        if command == "follow" and folder in self._following and not any(map(int, offsets)):
            return self._printed(self._following.pop(folder))
        return self._printed(self._open({"op": "launcher", "args": list(args)}, ["stdout"]))

    def _open(self, body: dict[str, Any], streams: Sequence[str]) -> BwrapProcess:
        """Ask for something that has pipes. Raises SandboxError."""
        process, theirs = BwrapProcess(self.tell), []
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
        return process

    def _send(self, body: dict[str, Any], fds: Sequence[int] = ()) -> tuple[int, Answer]:
        if self._dead.is_set():
            raise SandboxError(f"Sandbox '{self.name}' is dead.", seen=self._death())
        self._next += 1
        data = pack({"id": self._next, **body})
        if len(data) > PACKET_BYTES:
            raise SandboxError(f"A command of {len(data)} bytes is too long for a sandbox.", try_="put it into a file.")
        answer: Answer = self._loop.create_future()
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
        return await self._answered(self._send(body)[1], body["op"])

    async def _answered(self, answer: Answer, op: str) -> tuple[int, list[int]]:
        late = self._loop.call_later(ANSWER_SECONDS, self._give_up, answer, op)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception():
                close_all(answer.result()[1])  # it came, and nobody will have it
            raise
        finally:
            late.cancel()

    def _give_up(self, answer: Answer, op: str) -> None:
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
            self._ended.set()
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
        while self._following:
            self._following.popitem()[1].close()
        self._stop_listening()
        self._ended.set()
        self._dead.set()
        error = SandboxError(f"Sandbox '{self.name}' died.", seen=self._death())
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # somebody may have stopped waiting
        self._answers.clear()

    def _stop_listening(self) -> None:
        """At what nobody serves."""
        while self._listening:
            self._listening.popitem()[1].close()

    def _death(self) -> str:
        if not self.warden:
            return f"it has no process: {self._why_none}"
        return "its warden ended" if self._status is None else f"bwrap ended with status {self._status}"

    def _note_limits(self) -> None:
        """Read while the cgroup is there; it goes with the sandbox."""
        self._oom_kills = max(self._oom_kills, self._limits.oom_kills())
        self._limits_hit |= self._limits.hit() | ({"memory"} if self._oom_kills else set())
        self._peak_mib = self._limits.peak_mib() or self._peak_mib


def _size(files: Mapping[str, bytes]) -> int:
    """Of files in a request, with their names."""
    return sum(len(path.encode()) + len(data) for path, data in files.items())
