"""A small prepared repository as files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tatin_jobs.barerepo import write_tar
from worker.repository.small import SMALL_TAR_BYTES, as_files

COMMIT = "0123456789" * 4


def bare(folder: Path, branch: str = "main", pack: bytes = b"PACK") -> Path:
    for name, data in {
        "HEAD": f"ref: refs/heads/{branch}\n".encode(),
        "objects/pack/pack-1.pack": pack,
        "packed-refs": f"{COMMIT} refs/heads/{branch}\n".encode(),
        "empty": b"",
    }.items():
        (folder / "bare" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "bare" / name).write_bytes(data)
    (folder / "bare/refs/tags").mkdir(parents=True)
    with (folder / "bare.tar").open("wb") as out:
        write_tar(folder / "bare", out)
    return folder / "bare.tar"


def test_every_file_is_there_and_the_branch_too(tmp_path: Path) -> None:
    files = as_files(bare(tmp_path), COMMIT)
    assert files
    there = {
        path.relative_to(tmp_path / "bare").as_posix() for path in (tmp_path / "bare").rglob("*") if path.is_file()
    }
    assert set(files) == there | {"refs/heads/main"}
    assert all(files[name] == (tmp_path / "bare" / name).read_bytes() for name in there)
    assert files["refs/heads/main"] == f"{COMMIT}\n".encode()


def test_what_is_not_small_is_none(tmp_path: Path) -> None:
    assert as_files(bare(tmp_path, pack=bytes(SMALL_TAR_BYTES)), COMMIT) is None


@pytest.mark.parametrize("branch", ["side/one", "", "-x", "a..b"])
def test_a_branch_that_is_no_plain_name_is_left_to_tar(tmp_path: Path, branch: str) -> None:
    assert as_files(bare(tmp_path, branch), COMMIT) is None


@pytest.mark.parametrize("name", ["../outside", "/outside", "objects/../../outside"])
def test_a_file_that_leads_out_is_left_to_tar(tmp_path: Path, name: str) -> None:
    path = bare(tmp_path)
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert as_files(path, COMMIT) is None


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
def test_what_is_no_plain_file_is_left_to_tar(tmp_path: Path, kind: bytes) -> None:
    path = bare(tmp_path)
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("x")
        member.type, member.linkname = kind, "y"
        tar.addfile(member)
    assert as_files(path, COMMIT) is None


def test_rubbish_is_left_to_tar(tmp_path: Path) -> None:
    (tmp_path / "rubbish.tar").write_bytes(b"x" * 2000)
    assert as_files(tmp_path / "rubbish.tar", COMMIT) is None


def test_a_tar_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        as_files(tmp_path / "none.tar", COMMIT)
