"""The reader of tars, against what tarfile writes and against bytes of any kind."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.unpacker.tarstream import Corrupt, Kind, TarStream

LIMIT = 2**24


def read_all(data: bytes) -> list[tuple[bytes, Kind, bytes]]:
    stream = TarStream(io.BytesIO(data).read, LIMIT)
    found = []
    for member in stream.members():
        parts = []
        while chunk := stream.data(100):
            parts.append(chunk)
        found.append((member.name, member.kind, b"".join(parts)))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["short", "d" * 80 + "/" + "n" * 90, "\u00fcnicode/\u00e9"])
def test_what_tarfile_writes_is_read(form: int, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo(name)
        info.size = 700
        archive.addfile(info, io.BytesIO(b"x" * 700))
        archive.addfile(tarfile.TarInfo("empty"))
    files = [(name.encode(), Kind.FILE, b"x" * 700), (b"empty", Kind.FILE, b"")]
    assert read_all(out.getvalue()) == files
    assert read_all(out.getvalue() * 2) == files * 2  # several behind one another


def test_data_that_nobody_reads_is_skipped() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in "abc":
            info = tarfile.TarInfo(name)
            info.size = 1000
            archive.addfile(info, io.BytesIO(b"y" * 1000))
    stream = TarStream(io.BytesIO(out.getvalue()).read, LIMIT)
    assert [member.name for member in stream.members()] == [b"a", b"b", b"c"]


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_make_it_fail_in_another_way(data: st.DataObject) -> None:
    """A13: a good archive with bytes changed, or none at all"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("n" * 150 + "\u00fc"))
    raw = bytearray(out.getvalue()[:3072])
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
        _mend_sum(raw, at // 512 * 512)
    with suppress(Corrupt):
        read_all(bytes(raw))


@pytest.mark.parametrize("rest", [b"x", b"12345678 a=b\n", b" a=b\n", b"3 a=b\n", b"99 a=b\n"])
def test_what_follows_a_good_pax_record_must_be_one(rest: bytes) -> None:
    """A13: once, bytes with no length in front were taken for the records before them, again and again."""
    header = tarfile.TarInfo("pax")
    header.type, data = tarfile.XHDTYPE, b"7 a=bc\n" + rest
    header.size = len(data)
    with pytest.raises(Corrupt):
        read_all(header.tobuf() + data.ljust(512, b"\0") + bytes(1024))


def _mend_sum(raw: bytearray, start: int) -> None:
    """So that the change is not seen at once."""
    raw[start + 148 : start + 156] = b" " * 8
    raw[start + 148 : start + 155] = b"%06o\0" % (sum(raw[start : start + 512]) % 8**6)
