"""A02-A12: what a guest can really put into its work/ on its own file system, collected through its own tar."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.attacks.conftest import ProviderOf
from tests.support.clones import Clone, cloned, sandbox_in, small_repository

pytestmark = pytest.mark.needs("git")

MAKE = r"""
import contextlib, os, socket, subprocess
os.chdir("/home/agent/work")
def write(name, mode=0o644):
    with open(name, "w") as file:
        file.write("x")
    os.chmod(name, mode)
write("good.txt")
os.symlink("/", "to-root"), os.symlink("..", "up"), os.symlink("good.txt", "to-good")
for step in "abcdefgh":
    os.symlink(step * 200, step)
write("linked"), os.link("linked", "hard")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for name, mode in (("suid", 0o4755), ("none", 0), ("all", 0o777)):
    write(name, mode)
for name in ("new\nline", "esc\x1b[31m", "bidi\u202etxt", "-rf", "trailing ", "case", "CASE"):
    write(name)
write(b"bad\xff")
os.makedirs("evil/.git/hooks")
write("evil/.git/hooks/post-checkout", 0o755)
os.mkdir("shut")
write("shut/in")
os.chmod("shut", 0)
with open("zeros", "wb") as file:
    file.truncate(3 * 2**30)
for name, kind, major, minor in (("disk", "b", 254, 0), ("memory", "c", 1, 1)):  # where the guest has root
    with contextlib.suppress(OSError):
        subprocess.run(["sudo", "-n", "mknod", "-m", "666", name, kind, str(major), str(minor)], capture_output=True)
for _ in range(1500):
    os.mkdir("deep")
    os.chdir("deep")
write("bottom")
print("made")
"""


@pytest.fixture
async def clone(tmp_path: Path, provider_of: ProviderOf) -> AsyncIterator[Clone]:
    async with sandbox_in(tmp_path, provider_of) as made:
        yield await cloned(*made, small_repository(tmp_path / "repo"), tmp_path / "attempt-1")


async def test_a02_to_a12_a_hostile_tree_comes_back_as_plain_files_or_not_at_all(clone: Clone) -> None:
    """A02, A03, A04, A05, A06, A07, A09, A10, A11, A12."""
    done = await clone.sandbox.run(["python3", "-c", MAKE], timeout_seconds=120)
    assert done.stdout == b"made\n", done.stderr
    _, collected = await clone.bring_back()
    below = [*(clone.folder / "artifacts").rglob("*")]
    assert {stat.S_IFMT(path.lstat().st_mode) for path in below} <= {stat.S_IFREG, stat.S_IFDIR}
    names = {str(path.relative_to(clone.folder / "artifacts")) for path in below if path.is_file()}
    assert {"good.txt", "suid", "all"} <= names
    assert [len(names & two) for two in ({"case", "CASE"}, {"linked", "hard"})] == [1, 1], "the first of each"
    assert {name for name in names if ".git" in name or not name.isprintable() or name.count("/") > 300} == set()
    assert {path.lstat().st_mode & 0o7022 for path in below} == {0}, "neither set-id nor writable by others"
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in below} == {(os.geteuid(), os.getegid())}
    assert sum(path.lstat().st_size for path in below) < 2**20
    assert collected.refused
    assert all(text.isprintable() for text in collected.refused)
