"""Removing a folder that a guest wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.sandboxes.removal import remove_tree


def test_a_tree_with_everything_in_it_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "sandbox"
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/file").write_text("x")
    (root / "a/b/.tatin-removed-1").mkdir()
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "a/pipe")
    (root / "bad\udcff").write_text("x")
    remove_tree(root)
    assert not root.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "file").write_text("precious")
    root = tmp_path / "sandbox"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(tmp_path / "file")
    os.link(tmp_path / "file", root / "hard")
    remove_tree(root)
    assert not root.exists()
    assert (tmp_path / "file").read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o500


def test_a_tree_deeper_than_any_path_is_gone(tmp_path: Path) -> None:
    """A09: 3,000 levels, where a path ends at 4,096 bytes and Python at 1,000 calls"""
    root = tmp_path / "sandbox"
    root.mkdir()
    folder = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=folder)
        inner = os.open("deep", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    remove_tree(root)
    assert not root.exists()


def test_folders_that_may_not_be_entered_are_gone(tmp_path: Path) -> None:
    root = tmp_path / "sandbox"
    (root / "shut/inner/more").mkdir(parents=True)
    (root / "shut/inner/file").write_text("x")
    for name in ("shut/inner/more", "shut/inner", "shut", ""):
        (root / name).chmod(0)
    remove_tree(root)
    assert not root.exists()


def test_one_that_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    remove_tree(tmp_path / "nothing/at/all")


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "sandbox").symlink_to("outside")
    with pytest.raises(OSError, match="sandbox"):
        remove_tree(tmp_path / "sandbox")
    assert (tmp_path / "outside").is_dir()
