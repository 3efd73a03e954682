"""QEMU's control socket: one command at a time, its answer or its error."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tatin_jobs.errors import SandboxError

ANSWER_SECONDS = 30.0
LINE_BYTES = 2**20


class Qmp:
    """A conversation with one QEMU. Events between the answers are passed over."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What ``command`` returns.

        Raises:
            SandboxError: QEMU refuses it, does not answer in time, or is gone.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._writer.write(json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode())
                await self._writer.drain()
                while True:
                    answer = json.loads(await self._reader.readuntil(b"\n"))
                    if "error" in answer:
                        raise SandboxError(f"QEMU of '{self._name}' refused '{command}'.", seen=answer["error"]["desc"])
                    if "return" in answer:
                        return answer["return"]
        except (OSError, ValueError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            seen = str(error) or type(error).__name__
            raise SandboxError(f"QEMU of '{self._name}' did not answer '{command}'.", seen=seen) from error


@asynccontextmanager
async def connect(name: str, folder: Path, file: str = "qmp") -> AsyncIterator[Qmp]:
    """Talk to the QEMU whose socket is ``file`` in ``folder``.

    Raises:
        SandboxError: nobody listens there.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The path of a socket must be short, and a home's may be long.
        path = f"/proc/self/fd/{fd}/{file}" if sys.platform == "linux" else str(folder / file)
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
    except OSError as error:
        raise SandboxError(f"QEMU of '{name}' cannot be reached.", seen=str(error)) from error
    finally:
        os.close(fd)
    try:
        qmp = Qmp(name, reader, writer)
        await qmp.ask("qmp_capabilities")  # the greeting before its answer is passed over
        yield qmp
    finally:
        writer.close()
