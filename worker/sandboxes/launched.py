"""``Run`` over the launcher in the guest: the same for every provider; only how the launcher is called differs."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import GUEST_RUN, GuestProcess, Run, RunChunk, RunStatus, StartSpec

Launcher = Callable[[Sequence[str]], AbstractAsyncContextManager[GuestProcess]]
"""Runs the launcher in the guest with these arguments."""
CALL_SECONDS = 30.0
FRAME = struct.Struct(">cQI")
"""Before each piece of output: its letter, where it begins, how long it is (``launcher.py``)."""


async def start_run(
    launcher: Launcher, spec: StartSpec, env: Mapping[str, str], run_path: str = GUEST_RUN, *, leave_room: bool = False
) -> Run:
    """Start ``spec`` under the launcher; ``env`` and ``leave_room`` as for ``launcher_spec``."""
    folder = run_folder(spec.label, run_path)
    answer = await _call(launcher, ["start", folder, repr(launcher_spec(spec, env, leave_room=leave_room))])
    if answer.strip() != b"started":
        raise SandboxError(f"The launcher in the guest did not start '{spec.label}'.", seen=repr(answer[:200]))
    return LaunchedRun(launcher, folder)


def run_folder(label: str, run_path: str = GUEST_RUN) -> str:
    """Where the launcher keeps the files of a run."""
    return f"{run_path}/{label}"


def launcher_spec(spec: StartSpec, env: Mapping[str, str], *, leave_room: bool = False) -> dict[str, object]:
    """What the launcher is told to start; ``env`` is the whole environment of the program. ``leave_room``: it may not
    have all the processes that its user can have there."""
    return {
        "argv": list(spec.argv),
        "env": dict(env),
        "cwd": spec.cwd,
        "stdin": spec.stdin_path,
        "timeout": spec.timeout_seconds,
        "grace": spec.grace_seconds,
        "limit": spec.output_limit_bytes,
        "leave_room": leave_room,
    }


class LaunchedRun(Run):
    """A run whose files lie in one folder of the guest."""

    def __init__(self, launcher: Launcher, folder: str) -> None:
        self._launcher = launcher
        self._folder = folder
        self._ended: RunStatus | None = None

    async def follow(self, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncIterator[RunChunk]:
        async with self._launcher(["follow", self._folder, str(stdout_offset), str(stderr_offset)]) as process:
            await process.close_stdin()
            while True:
                letter, offset, length = FRAME.unpack(await _exactly(process, FRAME.size))
                if letter not in b"oex" or length > 2**20:
                    raise SandboxError("The launcher in the guest sent what is no frame of its own.")
                if letter == b"x":
                    self._ended = _status(await _exactly(process, length))
                    return
                stream = "stdout" if letter == b"o" else "stderr"
                yield RunChunk(stream, offset, await _exactly(process, length))  # type: ignore[arg-type]

    async def status(self) -> RunStatus:
        if self._ended is None:
            return _status(await _call(self._launcher, ["status", self._folder]))
        return self._ended

    async def stop(self, grace_seconds: float) -> None:
        await _call(self._launcher, ["stop", self._folder, str(grace_seconds)], CALL_SECONDS + grace_seconds)


def _status(text: bytes) -> RunStatus:
    """What the launcher notes; the guest may have written anything there."""
    try:
        found = json.loads(text)
        return RunStatus(
            exit_status=None if found["status"] is None else _figure(found["status"], 255),
            timed_out=bool(found.get("timed_out")),
            stdout_bytes=_figure(found.get("stdout", 0)),
            stderr_bytes=_figure(found.get("stderr", 0)),
            cut=bool(found.get("cut")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SandboxError("The launcher's notes in the guest cannot be read.", seen=str(error)[:200]) from error


def _figure(value: object, most: int = 2**62) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"no figure: {str(value)[:40]}")
    return value


async def _call(launcher: Launcher, arguments: Sequence[str], seconds: float = CALL_SECONDS) -> bytes:
    kept = bytearray()
    try:
        async with asyncio.timeout(seconds), launcher(arguments) as process:
            await process.close_stdin()
            while chunk := await process.read("stdout"):
                kept += chunk[: 2**20 - len(kept)]
            await process.wait()
    except TimeoutError as error:
        raise SandboxError(f"The launcher in the guest did not answer '{arguments[0]}' in {seconds:g} s.") from error
    return bytes(kept)


async def _exactly(process: GuestProcess, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        chunk = await process.read("stdout", count - len(parts))
        if not chunk:
            raise SandboxError("The connection to the guest's launcher broke.")
        parts += chunk
    return bytes(parts)
