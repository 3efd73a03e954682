"""The unpacking child (``python -m worker.unpacker``): one request after the other until its stdin ends.

It starts nothing, opens no network and holds itself to limits of memory, processor time, file size and descriptors, so
that a stream that finds a fault in the unpacker ends this process and nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from worker.unpacker.frames import FrameReader, frame
from worker.unpacker.layout import CollectLimits
from worker.unpacker.unpack import Unpacker

MEMORY_BYTES = 512 * 2**20
REQUEST_CPU_SECONDS = 900
DESCRIPTORS = 64
MAX_REQUEST_BYTES = 2**16


def main() -> None:
    """Serve until the worker closes our stdin, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's business; it closes our stdin
    os.umask(0o022)
    os.nice(5)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _limit(resource.RLIMIT_CORE, 0)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while request := _request(source):
        stream = FrameReader(source.read)
        sink.write(frame(json.dumps(_serve(request, stream)).encode()))
        sink.flush()
        stream.drain()  # what the unpacker left unread; the worker stops sending when it has the answer


def _request(source: BinaryIO) -> dict[str, Any] | None:
    """The next request; None when the worker closed our stdin."""
    reader = FrameReader(source.read)
    text = reader.read(MAX_REQUEST_BYTES)
    reader.drain()
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def _serve(request: dict[str, Any], stream: FrameReader) -> dict[str, Any]:
    limits = CollectLimits(**request["limits"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + REQUEST_CPU_SECONDS)
    _limit(resource.RLIMIT_FSIZE, max(limits.file_bytes, 2**26))
    return asdict(Unpacker(request["folder"], limits, request["home"]).run(stream.read))


def _limit(what: int, soft: int) -> None:
    """Lower a soft limit; where a system knows no such limit (macOS: memory) there is none."""
    hard = resource.getrlimit(what)[1]
    try:
        resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    except (ValueError, OSError):
        pass


if __name__ == "__main__":
    main()
