"""The worker's side of the unpacking child: streams go in by frames, lists come out; children are kept for the next.

Starting a Python costs more than unpacking a usual result, so an idle child waits for the next attempt. A child ends
by itself when its stdin closes, so none outlives the worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import worker
from tatin_jobs.errors import AttemptError
from tatin_jobs.states import Reason
from worker.unpacker.frames import END, HEADER_BYTES, MAX_FRAME_BYTES, frame, length_of
from worker.unpacker.layout import CollectLimits
from worker.unpacker.unpack import Kept, Unpacked

MAX_IDLE = 4
MAX_ANSWER_BYTES = 2**27
ANSWER_SECONDS = 300
"""After the last byte the child has to sync its files and answer."""
END_SECONDS = 5


class Unpackers:
    """A few unpacking children. ``async with`` it, in the worker's event loop."""

    def __init__(self) -> None:
        self._idle: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the idle children; safe to call twice."""
        while self._idle:
            await _end(self._idle.pop())

    async def unpack(
        self, folder: Path, source: AsyncGenerator[bytes, None], limits: CollectLimits, *, home: str
    ) -> Unpacked:
        """Unpack ``source`` into ``folder``, which must be empty; ``source`` is closed.

        Returns as soon as the child has enough, so ``source`` may be left unread.

        Raises:
            AttemptError: the child was ended by its limits or by a fault; nothing in ``folder`` can be trusted.
        """
        async with aclosing(source):
            child = self._idle_child() or await _start()
            try:
                answer = await _converse(child, folder, source, limits, home)
                unpacked = Unpacked(**{**answer, "files": [Kept(**kept) for kept in answer["files"]]})
            except BaseException:
                await _end(child, kill=True)
                raise
        if len(self._idle) < MAX_IDLE:
            self._idle.append(child)
        else:
            await _end(child)
        return unpacked

    def _idle_child(self) -> asyncio.subprocess.Process | None:
        """One that still lives; the host may have ended an idle one for want of memory."""
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
        return None


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-S",  # the child needs the standard library alone, and starts in a fifth of the time
        "-s",
        "-m",
        "worker.unpacker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # a traceback would hold the guest's text
        cwd="/",
        env={"PYTHONPATH": str(Path(worker.__file__).parents[1]), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )


async def _converse(
    child: asyncio.subprocess.Process,
    folder: Path,
    source: AsyncGenerator[bytes, None],
    limits: CollectLimits,
    home: str,
) -> dict[str, Any]:
    assert child.stdin is not None  # opened as a pipe
    request = {"folder": str(folder), "limits": asdict(limits), "home": home}
    child.stdin.write(frame(json.dumps(request).encode()) + END)
    answer = asyncio.create_task(_answer(child))
    feeding = asyncio.create_task(_feed(child.stdin, source))
    try:
        await asyncio.wait({answer, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        else:
            feeding.result()  # an error of the source is the caller's
        child.stdin.write(END)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise AttemptError(
            "The results could not be unpacked.",
            seen=f"the unpacker ended with {child.returncode} ({type(error).__name__})",
            try_="the sandbox's files may be made to break it; look at the agent's log.",
            reason=Reason.REFUSED,
        ) from error
    finally:
        for task in (answer, feeding):
            task.cancel()
        await asyncio.gather(answer, feeding, return_exceptions=True)


async def _feed(stdin: asyncio.StreamWriter, source: AsyncGenerator[bytes, None]) -> None:
    """A child that is gone is told by its answer, not here."""
    async for data in source:
        for at in range(0, len(data), MAX_FRAME_BYTES):
            stdin.write(frame(data[at : at + MAX_FRAME_BYTES]))  # whole: a cancelled drain leaves no half frame
            try:
                await stdin.drain()
            except ConnectionError:
                return


async def _answer(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None  # opened as a pipe
    length = length_of(await child.stdout.readexactly(HEADER_BYTES))
    if length > MAX_ANSWER_BYTES:
        raise ValueError("an answer beyond all bounds")
    found: dict[str, Any] = json.loads(await child.stdout.readexactly(length))
    return found


async def _end(child: asyncio.subprocess.Process, *, kill: bool = False) -> None:
    assert child.stdin is not None  # opened as a pipe
    child.stdin.close()
    if kill and child.returncode is None:
        child.kill()
    try:
        async with asyncio.timeout(END_SECONDS):
            await asyncio.shield(child.wait())
    except TimeoutError:
        child.kill()
        await asyncio.shield(child.wait())
