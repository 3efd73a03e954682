"""The bounded unpacker: a hostile stream in, files in a folder and a list of them out. Runs in a limited child.

A member's name tells what it is (``pull.sh``): ``changes.patch`` and ``commits.bundle``, ``left_out`` a list of names,
``./...`` an artifact, the rest transcripts. Files and folders only; everything else is listed as refused. Sizes and
digests are computed here (A14).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from worker.unpacker.folder import SafeFolder
from worker.unpacker.layout import (
    ARTIFACTS,
    BUNDLE_FILE,
    LEFT_OUT,
    MANIFEST_FILE,
    PATCH_FILE,
    TRANSCRIPT,
    CollectLimits,
)
from worker.unpacker.names import NameRefused, shown, split_name
from worker.unpacker.tarstream import Corrupt, Kind, Member, TarStream

MAX_REFUSED = 200
"""As many are named; the rest are counted."""
_SYNC_ONE_BY_ONE = 64
"""Up to so many files each is made durable by itself; with more, one sync of the host is quicker."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME_ERRORS = (errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR)
"""The host's file system has another idea of names than ``names`` has: that file is refused, the rest goes on."""
_LEFT_OUT_BYTES = 2**20

_T = TypeVar("_T")


@dataclass(frozen=True)
class Kept:
    """A file that came whole. ``name`` is relative to the attempt's folder."""

    name: str
    size_bytes: int
    sha256: str


@dataclass
class Unpacked:
    """What came of a stream."""

    files: list[Kept] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    refused_more: int = 0
    """Refused ones that are not named."""
    incomplete: str | None = None
    disk_full: bool = False

    def refuse(self, name: bytes, why: str) -> None:
        """Note a member that is not taken."""
        if len(self.refused) < MAX_REFUSED:
            self.refused.append(f"{shown(name)}: {why}")
        else:
            self.refused_more += 1


class _Enough(Exception):
    """A limit of the whole was reached; no more is read."""


class Unpacker:
    """Unpacks one stream into ``folder``, which must be empty. ``home`` is the guest's, as it is written there."""

    def __init__(self, folder: str, limits: CollectLimits, home: str) -> None:
        self._path = folder
        self._limits = limits
        self._home = f"{home.strip('/')}/".encode()
        self._folder = SafeFolder(folder)
        self._result = Unpacked()
        self._members = 0
        self._bytes = 0

    def run(self, read: Callable[[int], bytes]) -> Unpacked:
        """Take what can be taken. Never raises: what the stream or the host did wrong is in the result."""
        stream = TarStream(read, self._limits.stream_bytes)
        try:
            for member in stream.members():
                self._take(member, stream)
        except (Corrupt, _Enough) as error:
            self._result.incomplete = str(error)
        except OSError as error:
            self._failed(error)
        except Exception as error:
            self._result.incomplete = f"the unpacker failed with {type(error).__name__}"
        self._finish()
        return self._result

    def _take(self, member: Member, stream: TarStream) -> None:
        self._members += 1
        if self._members > self._limits.files:
            raise _Enough(f"over the limit of {self._limits.files} files")
        if self._folder.names_bytes > self._limits.names_bytes:
            raise _Enough("over the limit of all names together")
        try:
            self._keep(member, stream)
        except NameRefused as error:
            self._result.refuse(member.name, str(error))

    def _keep(self, member: Member, stream: TarStream) -> None:
        if member.name == LEFT_OUT.encode() and member.kind is Kind.FILE:
            self._note_left_out(member, stream)
            return
        parts = self._place(member)
        if member.problem:
            raise NameRefused(member.problem)
        if member.kind is Kind.FOLDER:
            self._named(self._folder.make_folder, parts)
            return
        self._check_size(member)
        fd = self._named(self._folder.new_file, parts, executable=member.executable)
        self._write(member, stream, parts, fd)

    def _named(self, make: Callable[..., _T], *args: object, **options: object) -> _T:
        try:
            return make(*args, **options)
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                raise NameRefused(f"the host cannot have it: {error.strerror}") from error
            raise

    def _note_left_out(self, member: Member, stream: TarStream) -> None:
        names = bytearray()
        while (chunk := stream.data()) and len(names) < _LEFT_OUT_BYTES:
            names += chunk
        for name in bytes(names).split(b"\0"):
            if name:
                self._result.refuse(name, f"over the limit of {self._limits.file_bytes} bytes for one file")

    def _place(self, member: Member) -> tuple[str, ...]:
        """Where it goes below the attempt's folder."""
        name = member.name
        if name in (PATCH_FILE.encode(), BUNDLE_FILE.encode()):
            if name == PATCH_FILE.encode() and member.size > self._limits.patch_bytes:
                return (ARTIFACTS, PATCH_FILE)
            return (name.decode(),)
        if name.startswith(b"./"):
            return (ARTIFACTS, *split_name(name[2:].removeprefix(b"work/"), self._limits.depth))
        # Agents name a session's folder after the working directory, `-home-agent-work-repo`. Nobody speaks of these
        # names, so here they are mended: programs would take them for options.
        mended = name.removeprefix(self._home).replace(b"/-", b"/_")
        return (TRANSCRIPT, *split_name(mended, self._limits.depth))

    def _check_size(self, member: Member) -> None:
        if member.size > self._limits.file_bytes:
            raise NameRefused(f"{member.size} bytes, over the limit of {self._limits.file_bytes} for one file")
        if self._bytes + member.size > self._limits.total_bytes:
            raise NameRefused(f"{member.size} bytes, over the limit of {self._limits.total_bytes} for all files")

    def _write(self, member: Member, stream: TarStream, parts: tuple[str, ...], fd: int) -> None:
        digest = hashlib.sha256()
        whole = False
        try:
            while chunk := stream.data():
                digest.update(chunk)
                while chunk:
                    chunk = chunk[os.write(fd, chunk) :]
            whole = True
        finally:
            os.close(fd)
            if not whole:
                self._result.refuse(member.name, "it did not come whole")
                self._folder.remove_file(parts)
        self._bytes += member.size
        self._result.files.append(Kept("/".join(parts), member.size, digest.hexdigest()))

    def _finish(self) -> None:
        """The manifest, and everything durable."""
        self._folder.close()
        if self._result.disk_full:
            return
        try:
            _write_manifest(self._path, self._result)
            _sync_all(self._path, one_by_one=len(self._result.files) <= _SYNC_ONE_BY_ONE)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self._result.disk_full = error.errno in _DISK_FULL
        self._result.incomplete = error.strerror or type(error).__name__


def _write_manifest(folder: str, result: Unpacked) -> None:
    document = {
        "schema_version": 1,
        "files": [asdict(kept) for kept in result.files],
        "refused": result.refused,
        "refused_more": result.refused_more,
        "incomplete": result.incomplete,
    }
    with open(os.path.join(folder, MANIFEST_FILE), "x", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=True, indent=1)
        file.write("\n")


def _sync_all(folder: str, *, one_by_one: bool) -> None:
    if not one_by_one:
        os.sync()
        return
    for path, folders, names in os.walk(folder):
        for name in (*names, *folders):
            _sync(os.path.join(path, name))


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
