"""Blobs: found whole or not at all, under the digest of their bytes."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import TatinError

DATA = b"a long prompt" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    (tmp_path / "blobs").mkdir()
    return Blobs(tmp_path / "blobs")


def test_bytes_and_files_of_the_same_content_are_one_blob(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    assert blobs.add_bytes(DATA) == DIGEST
    assert blobs.add_file(tmp_path / "file") == (DIGEST, len(DATA))
    assert blobs.read(DIGEST) == DATA
    assert os.listdir(blobs.folder) == [DIGEST]


def test_many_at_once_leave_one_whole_blob(blobs: Blobs) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(blobs.add_bytes, [DATA] * 40)) == {DIGEST}
    assert os.listdir(blobs.folder) == [DIGEST]
    assert blobs.read(DIGEST) == DATA


@pytest.mark.parametrize("name", ["", "../id", "/etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "\n", "\ud800"])
def test_a_record_cannot_name_another_file(blobs: Blobs, name: str) -> None:
    """A33"""
    with pytest.raises(TatinError, match="not the name of a blob"):
        blobs.path(name)


def test_a_blob_that_is_missing_is_named(blobs: Blobs) -> None:
    with pytest.raises(TatinError, match=DIGEST[:12]) as caught:
        blobs.read(DIGEST)
    assert caught.value.try_


@pytest.mark.parametrize("source", ["bytes", "file"])
def test_a_full_disk_leaves_nothing(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """F13"""

    def full(fd: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        blobs.add_bytes(DATA) if source == "bytes" else blobs.add_file(tmp_path / "file")
    assert os.listdir(blobs.folder) == []


def test_a_file_that_cannot_be_read_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.add_file(tmp_path / "nothing")
    assert os.listdir(blobs.folder) == []
