"""A01-A14: hostile archives. Nothing outside the folder, nothing but files and folders inside, all of it bounded."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import AttemptError
from tests.support.archives import archive, below, header, member, names, pax, pieces, unpack
from worker.collect import CollectLimits, Unpackers
from worker.unpacker.layout import MANIFEST_FILE

GOOD = member("./work/good.txt", b"good")
KEPT = "artifacts/good.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder to unpack into; afterwards nothing may lie beside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    yield tmp_path / "attempt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt", "outside"]
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    [
        *("./../x", "./work/../../x", "../x", "/abs/x", ".//abs", "./", "./work/a//b", "./work/./b", "./work/a/.."),
        *("./work/../../../../../../../../../../tmp/tatin-escaped", "./work/a/../b"),
    ],
)
async def test_a01_a_name_that_leads_elsewhere_is_refused(folder: Path, name: str) -> None:
    """A01"""
    found = await unpack(folder, archive(member(name, b"evil"), GOOD))
    assert names(folder) == {KEPT}
    assert len(found.refused) == 1
    assert found.incomplete is None


@pytest.mark.parametrize("target", ["../../outside", "/", "."])
async def test_a02_a_link_is_never_made_and_never_followed(folder: Path, target: str) -> None:
    """A02"""
    link = member("./work/link", type=b"2", linkname=target)
    found = await unpack(folder, archive(link, member("./work/link/precious", b"evil"), GOOD))
    assert names(folder) == {KEPT, "artifacts/link/precious"}
    assert not (folder / "artifacts/link").is_symlink()
    assert [text for text in found.refused if "a symbolic link" in text]


async def test_a03_a_chain_of_links_longer_than_a_path_gets_nowhere(folder: Path) -> None:
    """A03"""
    long = "d" * 200
    chain, path = [], "./work"
    for step in "abcdefghijklmnop":
        chain += [
            member(f"{path}/{long}", type=b"5", mode=0o755),
            member(f"{path}/{step}", type=b"2", linkname=long),
        ]
        path = f"{path}/{step}"
    chain.append(member(f"{path}/l", type=b"2", linkname="../" * 16))
    chain.append(member(f"{path}/l/escaped", b"evil"))
    await unpack(folder, archive(*chain, GOOD))
    assert not [item for item in below(folder) if item.is_symlink()]
    assert KEPT in names(folder)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside/precious", "./work/good.txt"])
async def test_a04_a_hard_link_is_not_made(folder: Path, target: str) -> None:
    """A04"""
    found = await unpack(folder, archive(GOOD, member("./work/hard", type=b"1", linkname=target)))
    assert names(folder) == {KEPT}
    assert "a hard link" in found.refused[0]


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"7", b"S", b"Z", b"D", b"M", b"\xff"])
async def test_a05_what_is_neither_file_nor_folder_is_skipped(folder: Path, kind: bytes) -> None:
    """A05"""
    found = await unpack(folder, archive(header(b"./work/odd", kind=kind), GOOD))
    assert names(folder) == {KEPT}
    assert len(found.refused) == 1


async def test_a06_modes_owners_and_times_are_ours(folder: Path) -> None:
    """A06"""
    odd: dict[str, Any] = {"uid": 4242, "gid": 4242, "uname": "root", "mtime": 2**33}
    modes = {"suid": 0o4755, "sgid": 0o2644, "sticky": 0o1644, "none": 0, "all": 0o777}
    members = [member(f"./work/d/{name}", b"x", mode=mode, **odd) for name, mode in modes.items()]
    await unpack(folder, archive(member("./work/d", type=b"5", mode=0o7000, **odd), *members))
    found = {path.name: path.lstat() for path in below(folder)}
    assert {name: stat.S_IMODE(found[name].st_mode) for name in ["d", *modes]} == {
        **{"d": 0o755, "suid": 0o755, "sgid": 0o644, "sticky": 0o644, "none": 0o644, "all": 0o755}
    }
    assert {(item.st_uid, item.st_gid) for item in found.values()} == {(os.geteuid(), os.getegid())}
    assert max(item.st_mtime for item in found.values()) < 2**33


async def test_a07_a_file_over_the_limit_is_refused_and_the_rest_comes(folder: Path) -> None:
    """A07"""
    limits = CollectLimits(file_bytes=10_000, total_bytes=20_000)
    members = [member(f"./work/{name}", bytes(size)) for name, size in [("a", 9_000), ("b", 10_001), ("c", 9_000)]]
    found = await unpack(folder, archive(*members, member("./work/d", bytes(5_000)), GOOD), limits)
    assert names(folder) == {"artifacts/a", "artifacts/c", KEPT}
    assert ["for one file" in text for text in found.refused] == [True, False]


@pytest.mark.parametrize("size", [b"77777777777", b"\x80" + bytes(5) + b"\x0c\x80\x00\x00\x00\x00"])
async def test_a07_a_size_that_never_comes_writes_nothing(folder: Path, size: bytes) -> None:
    """A07: a sparse file of 50 GiB, said in octal and in base 256"""
    found = await unpack(folder, archive(GOOD, header(b"./work/huge", size=size)))
    assert names(folder) == {KEPT}
    assert found.incomplete


@pytest.mark.parametrize("records", [{"GNU.sparse.major": "1", "GNU.sparse.realsize": str(50 * 2**30)}])
async def test_a07_a_sparse_file_is_not_blown_up(folder: Path, records: dict[str, str]) -> None:
    """A07"""
    found = await unpack(folder, archive(pax("./work/sparse", **records), GOOD))
    assert names(folder) == {KEPT}
    assert "sparse" in found.refused[0]


@pytest.mark.parametrize("kind", [b"L", b"x", b"K", b"g"])
async def test_a08_a_name_record_without_end_uses_no_memory(folder: Path, kind: bytes) -> None:
    """A08: 1 GiB of it would not fit into the child, were it kept"""
    size = 2**30
    head = header(b"././@LongLink", kind=kind, size=b"%011o" % size)
    blocks = (bytes([65]) * 2**20 for _ in range(size // 2**20))
    stream = (piece for part in ([head], blocks, [header(b"./work/named"), archive(GOOD)]) for piece in part)
    found = await unpack(folder, stream)
    assert found.incomplete is None
    assert KEPT in names(folder)


async def test_a08_a_child_that_ends_is_an_error_of_the_attempt(tmp_path: Path) -> None:
    """A08: and the next stream gets another child"""
    async with Unpackers() as unpackers:
        with pytest.raises(AttemptError, match="could not be unpacked"):
            await unpackers.unpack(tmp_path / "nowhere", pieces(b""), CollectLimits(), home="/home/agent")
        found = await unpackers.unpack(tmp_path, pieces(archive(GOOD)), CollectLimits(), home="/home/agent")
    assert [kept.name for kept in found.files] == [KEPT]


def test_a08_the_child_holds_itself_to_its_limits() -> None:
    """A08: set before it reads anything"""
    code = (
        "import sys, io, resource, worker.unpacker.__main__ as child\n"
        "sys.stdin = io.TextIOWrapper(io.BytesIO()); child.main()\n"
        "print([resource.getrlimit(what)[0] for what in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE)])\n"
        "bytearray(2**30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([512 * 2**20, 64])
    assert "MemoryError" in done.stderr


async def test_a09_too_many_entries_end_it_with_what_came(folder: Path) -> None:
    """A09"""
    members = (member(f"./work/{number}", b"x") for number in range(300))
    found = await unpack(folder, archive(*members), CollectLimits(files=100))
    assert len(names(folder)) == 100
    assert found.incomplete == "over the limit of 100 files"


async def test_a09_too_deep_a_folder_is_refused(folder: Path) -> None:
    """A09"""
    found = await unpack(folder, archive(member("./work/" + "d/" * 3000 + "x", b"x"), GOOD))
    assert names(folder) == {KEPT}
    assert len(found.refused) == 1


async def test_a09_names_without_number_do_not_fill_the_memory(folder: Path) -> None:
    """A09: as many long names as are allowed would be 60 MB in the worker"""
    members = [member(f"./work/{number:04}{'n' * 200}", b"") for number in range(3000)]
    found = await unpack(folder, archive(*members), CollectLimits(names_bytes=100_000))
    assert found.incomplete == "over the limit of all names together"
    assert 100 < len(names(folder)) < 1000


@pytest.mark.parametrize(
    "name",
    [
        *("new\nline", "esc\x1b[31m", "bidi\u202etxt", "zero\u200bwidth", "-rf", "trailing.", "trailing ", " leading"),
        *("n" * 300, "del\x7f", "c1\x9b", "line\u2028sep", "bad\udcff", "tab\t"),
    ],
)
async def test_a10_a_name_that_may_harm_a_reader_is_refused_and_shown_harmlessly(folder: Path, name: str) -> None:
    """A10"""
    found = await unpack(folder, archive(member(f"./work/{name}", b"x"), GOOD))
    assert names(folder) == {KEPT}
    assert len(found.refused) == 1
    assert found.refused[0].isprintable()
    assert len(found.refused[0]) < 250


async def test_a10_a_nul_in_a_pax_name_is_refused(folder: Path) -> None:
    """A10"""
    found = await unpack(folder, archive(pax("./work/plain", path="./work/a\0b"), GOOD))
    assert names(folder) == {KEPT}
    assert len(found.refused) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("A", "a"), ("caf\u00e9", "cafe\u0301"), ("same", "same"), ("stra\u00dfe", "STRASSE"), ("K", "\u212a")),
        *(("d/x", "D/x"), ("d", "d/x"), ("d/x", "d")),
    ],
)
async def test_a11_the_first_of_two_equal_names_wins(folder: Path, first: str, second: str) -> None:
    """A11"""
    found = await unpack(folder, archive(member(f"./work/{first}", b"first"), member(f"./work/{second}", b"second")))
    assert names(folder) == {f"artifacts/{first}"}
    assert (folder / "artifacts" / first).read_bytes() == b"first"
    assert len(found.refused) == 1


async def test_a11_the_patch_cannot_be_replaced_by_a_later_one(folder: Path) -> None:
    """A11"""
    found = await unpack(folder, archive(member("changes.patch", b"first"), member("changes.patch", b"second")))
    assert (folder / "changes.patch").read_bytes() == b"first"
    assert len(found.refused) == 1


@pytest.mark.parametrize("name", [".git/config", ".GIT/config", "a/.git/hooks/post-checkout", ".git", ".gi\u200ct/x"])
async def test_a12_no_git_folder_comes(folder: Path, name: str) -> None:
    """A12"""
    await unpack(folder, archive(member(f"./work/{name}", b"[core]\n\tfsmonitor = touch /tmp/evil\n"), GOOD))
    assert names(folder) == {KEPT}


async def test_a12_files_that_tools_would_run_are_bytes_like_others(folder: Path) -> None:
    """A12"""
    inert = [".envrc", ".vscode/tasks.json", "Makefile", ".DS_Store", "conftest.py", "package.json"]
    await unpack(folder, archive(*(member(f"./work/{name}", b"echo evil") for name in inert)))
    assert names(folder) == {f"artifacts/{name}" for name in inert}


WHOLE = archive(GOOD, member("./work/second", b"s" * 2000), member("./work/third", b"t"))


@pytest.mark.parametrize("cut", [512 + 512 + 100, 512 * 3 + 10, 512 * 3 + 1500])
async def test_a13_a_stream_that_is_cut_off_keeps_what_came_whole(folder: Path, cut: int) -> None:
    """A13, F57"""
    found = await unpack(folder, WHOLE[:cut])
    assert names(folder) == {KEPT}
    assert found.incomplete


@pytest.mark.parametrize(
    "rubbish",
    [os.urandom(512), b"\x1f\x8b" + bytes(510), b"\xff" * 512, header(size=b"9zz"), header(mode=b"999"), b"short"],
    ids=["random", "gzip", "ones", "size", "mode", "short"],
)
async def test_a13_rubbish_ends_it_with_what_came(folder: Path, rubbish: bytes) -> None:
    """A13"""
    found = await unpack(folder, GOOD + rubbish + WHOLE)
    assert names(folder) == {KEPT}
    assert found.incomplete


@pytest.mark.parametrize(
    "block", [bytes(512), member("././@PaxHeader", b"12 comment=x", type=b"g")], ids=["zeros", "records"]
)
async def test_a13_a_stream_without_end_is_given_up(folder: Path, block: bytes) -> None:
    """A13: no member ever comes, so the bytes that are read are what is bounded"""
    endless = iter(lambda: block * 200, None)
    limits = CollectLimits(total_bytes=2**20, files=10)
    found = await unpack(folder, (piece for part in ([GOOD], endless) for piece in part), limits)
    assert found.incomplete
    assert names(folder) == {KEPT}


async def test_a13_what_a_child_left_unread_does_not_reach_the_next_request(tmp_path: Path) -> None:
    """A13"""
    async with Unpackers() as unpackers:
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            stream = pieces(b"rubbish" * 100_000 if number < 2 else WHOLE)
            await unpackers.unpack(folder, stream, CollectLimits(), home="/home/agent")
    assert len(names(tmp_path / "2")) == 3


async def test_a14_sizes_and_digests_are_the_hosts_own(folder: Path) -> None:
    """A14"""
    forged = json.dumps({"files": [{"name": "artifacts/good.txt", "sha256": "0" * 64, "size_bytes": 1}]}).encode()
    await unpack(folder, archive(member("manifest.json", forged), member("./work/manifest.json", forged), GOOD))
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert manifest["schema_version"] == 1
    told = {kept["name"]: (kept["size_bytes"], kept["sha256"]) for kept in manifest["files"]}
    assert told[KEPT] == (4, hashlib.sha256(b"good").hexdigest())
    for name in told:
        data = (folder / name).read_bytes()
        assert told[name] == (len(data), hashlib.sha256(data).hexdigest())
