"""Archives made by hand, member by member, as a hostile guest would; and the real unpacking child to give them to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

from worker.collect import CollectLimits, Unpackers
from worker.sandboxes.base import GUEST_HOME
from worker.unpacker.unpack import Unpacked


def member(name: str, data: bytes = b"", **fields: Any) -> bytes:
    """One member: its header records and its data. ``fields`` are those of ``tarfile.TarInfo``."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + data + bytes(-len(data) % 512)


def header(name: bytes = b"./x", *, kind: bytes = b"0", size: bytes = b"0", mode: bytes = b"644") -> bytes:
    """One block, field by field, with a right sum: what ``tarfile`` would not write."""
    block = bytearray(512)
    block[: len(name)] = name
    for at, width, value in ((100, 8, mode), (124, 12, size), (156, 1, kind), (257, 8, b"ustar\x0000")):
        block[at : at + len(value[:width])] = value[:width]
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def archive(*members: bytes) -> bytes:
    """A whole tar."""
    return b"".join(members) + bytes(1024)


def pax(name: str, **records: str) -> bytes:
    """A member with pax records."""
    info = tarfile.TarInfo(name)
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


async def pieces(data: bytes | Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """A stream of 64 KiB pieces, or of those given."""
    source = io.BytesIO(data) if isinstance(data, bytes) else None
    if source is None:
        for piece in data:
            yield piece  # type: ignore[misc]
        return
    while piece := source.read(65_536):
        yield piece


async def unpack(folder: Path, data: bytes | Iterable[bytes], limits: CollectLimits | None = None) -> Unpacked:
    """What a child of its own makes of a stream, in the new folder ``folder``."""
    os.mkdir(folder)
    async with Unpackers() as unpackers:
        return await unpackers.unpack(folder, pieces(data), limits or CollectLimits(), home=GUEST_HOME)


def untar(path: Path, folder: Path) -> Path:
    """All that a tar of ours holds, in the new folder ``folder``. Not by ``tarfile``: before Python 3.11.4 it does not
    know the argument that it wants from 3.12 on."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", folder], check=True)
    return folder


def below(folder: Path) -> list[Path]:
    """All there is below ``folder``."""
    return list(folder.rglob("*"))


def names(folder: Path) -> set[str]:
    """Every file below ``folder`` but the manifest, which must be there and right."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {"manifest.json"}
    assert {kept["name"] for kept in json.loads((folder / "manifest.json").read_text())["files"]} == found
    return found
