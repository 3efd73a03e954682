"""Copying an attempt's results out of the home: regular files and folders, by descriptor, through no link."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path

from tatin_jobs.errors import BadInput
from tatin_jobs.results import read_result

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DEFAULT_FOLDER = "work"


def fetch(source: Path, target: Path, job_id: str, *, force: bool = False) -> int:
    """Copy what lies in ``source`` to ``target``; how many files came.

    A file of the same name is replaced as a whole; what else is in ``target`` stays. What is no regular file or folder
    is left out.

    Raises:
        BadInput: ``target`` holds something that is not this job's, and ``force`` is not set; or it is no folder.
    """
    if _is_foreign(target, job_id) and not force:
        raise BadInput(
            f"The folder '{target}' is not empty, and what is in it is not of job '{job_id}'.",
            try_="name another with -o, or add --force to write into it.",
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        source_fd = os.open(source, _FOLDER)
        try:
            target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return _copy_folder(source_fd, target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
    except OSError as error:
        raise BadInput(f"The results cannot be copied to '{target}'.", seen=str(error)) from error


def _is_foreign(target: Path, job_id: str) -> bool:
    if not target.is_dir() or not any(target.iterdir()):
        return False
    result = read_result(target)
    return result is None or result.job != job_id


def _copy_folder(source: int, target: int) -> int:
    count = 0
    for entry in sorted(os.listdir(source)):
        kind = os.stat(entry, dir_fd=source, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind):
            count += _copy_inner(entry, source, target)
        elif stat.S_ISREG(kind):
            count += _copy_file(entry, source, target)
    return count


def _copy_inner(name: str, source: int, target: int) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=target)
    except FileExistsError:
        pass  # opened below, and refused when it is a link
    inner_source = os.open(name, _FOLDER, dir_fd=source)
    try:
        inner_target = os.open(name, _FOLDER, dir_fd=target)
        try:
            return _copy_folder(inner_source, inner_target)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)


def _copy_file(name: str, source: int, target: int) -> int:
    fd = os.open(name, _READ, dir_fd=source)
    with open(fd, "rb") as data:
        kind = os.fstat(fd)
        if not stat.S_ISREG(kind.st_mode):  # it was one a moment ago
            return 0
        draft = f".tatin-{secrets.token_hex(6)}"
        mode = 0o755 if kind.st_mode & 0o100 else 0o644
        with open(os.open(draft, _NEW, mode, dir_fd=target), "wb") as out:
            try:
                shutil.copyfileobj(data, out, 2**20)
            except BaseException:
                os.unlink(draft, dir_fd=target)
                raise
        os.replace(draft, name, src_dir_fd=target, dst_dir_fd=target)
    return 1
