"""A local repository packed by the submitter. These run git, on repositories of one file."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tatin_jobs.barerepo import usable_branch
from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.localrepo import PackedRepo, pack_local_repo
from tests.support.archives import untar
from tests.support.clones import commit, git, small_repository

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    (tmp_path / "blobs").mkdir()
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return small_repository(tmp_path / "repo")


def unpacked(packed: PackedRepo, blobs: Blobs, folder: Path) -> Path:
    with tarfile.open(blobs.path(packed.blob)) as tar:
        assert not [item for item in tar if not (item.isfile() or item.isdir())]
    untar(blobs.path(packed.blob), folder)
    git(folder, "fsck", "--strict")
    return folder


def test_head_travels_with_its_branch_history_and_tags(repo: Path, blobs: Blobs, tmp_path: Path) -> None:
    git(repo, "tag", "v1")
    wanted = commit(repo, "second")
    packed = pack_local_repo(repo, None, blobs)
    assert (packed.commit, packed.branch, packed.uncommitted) == (wanted, "main", ())
    bare = unpacked(packed, blobs, tmp_path / "bare")
    assert git(bare, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(bare, "rev-list", "--count", "HEAD") == "2"
    assert git(bare, "tag") == "v1"
    assert not list(bare.glob("hooks/*"))


@pytest.mark.parametrize(
    ("ref", "branch"),
    [("main", "main"), ("refs/heads/main", "main"), ("v1", None), ("HEAD", None), ("HEAD~1", None)],
)
def test_a_ref_is_resolved_as_git_does(repo: Path, blobs: Blobs, ref: str, branch: str | None) -> None:
    commit(repo, "second")
    git(repo, "tag", "--annotate", "--message=x", "v1")
    packed = pack_local_repo(repo, ref, blobs)
    assert packed.commit == git(repo, "rev-parse", f"{ref}^{{commit}}")
    assert packed.branch == branch


def test_a_detached_head_has_no_branch(repo: Path, blobs: Blobs, tmp_path: Path) -> None:
    git(repo, "checkout", "--quiet", "--detach")
    packed = pack_local_repo(repo, None, blobs)
    assert packed.branch is None
    assert git(unpacked(packed, blobs, tmp_path / "bare"), "symbolic-ref", "--short", "HEAD") == "tatin"


def test_depth_cuts_the_history(repo: Path, blobs: Blobs, tmp_path: Path) -> None:
    commit(repo, "second")
    packed = pack_local_repo(repo, None, blobs, depth=1)
    assert git(unpacked(packed, blobs, tmp_path / "bare"), "rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize("depth", [None, 1, 5])
def test_a_shallow_clone_travels_as_it_is(repo: Path, blobs: Blobs, tmp_path: Path, depth: int | None) -> None:
    """As a checkout in CI is."""
    for number in range(3):
        commit(repo, str(number))
    git(tmp_path, "clone", "--quiet", "--depth=2", f"file://{repo}", "shallow")
    packed = pack_local_repo(tmp_path / "shallow", None, blobs, depth=depth)
    count = git(unpacked(packed, blobs, tmp_path / "bare"), "rev-list", "--count", "HEAD")
    assert count == ("1" if depth == 1 else "2")


def test_uncommitted_files_stay_and_are_named(repo: Path, blobs: Blobs) -> None:
    before = pack_local_repo(repo, None, blobs)
    (repo / "a.txt").write_text("changed\n")
    (repo / "new file.txt").write_text("new\n")
    (repo / "staged").write_text("staged\n")
    git(repo, "add", "staged")
    packed = pack_local_repo(repo, None, blobs)
    assert packed.uncommitted == ("a.txt", "staged", "new file.txt")
    assert packed.blob == before.blob


def test_nothing_in_the_repository_changes(repo: Path, blobs: Blobs) -> None:
    (repo / "a.txt").write_text("changed\n")

    def state() -> dict[str, tuple[int, bytes]]:
        files = [path for path in repo.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    pack_local_repo(repo, None, blobs)
    assert state() == before


def test_the_same_commit_is_packed_once(repo: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack_local_repo(repo, None, blobs)
    git(repo, "gc", "--quiet", "--aggressive")
    monkeypatch.setattr("tatin_jobs.localrepo.fill_argv", lambda *_, **__: pytest.fail("packed again"))
    assert pack_local_repo(repo, None, blobs) == first


def test_a_note_that_is_broken_or_whose_blob_is_gone_is_no_harm(repo: Path, blobs: Blobs) -> None:
    first = pack_local_repo(repo, None, blobs)
    blobs.path(first.blob).unlink()
    assert blobs.path(pack_local_repo(repo, None, blobs).blob).is_file()
    for note in blobs.folder.glob(".repo-*"):
        note.write_text("../../etc/passwd")
    assert blobs.path(pack_local_repo(repo, None, blobs).blob).is_file()


def test_only_blobs_and_notes_are_left(repo: Path, blobs: Blobs) -> None:
    packed = pack_local_repo(repo, None, blobs)
    assert [name for name in os.listdir(blobs.folder) if not name.startswith(".repo-")] == [packed.blob]


def test_a_hook_of_the_repository_does_not_run(repo: Path, blobs: Blobs, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o755)
    git(repo, "config", "core.fsmonitor", str(evil))
    git(repo, "config", "uploadpack.packObjectsHook", str(evil))
    (repo / ".git/hooks/post-index-change").symlink_to(evil)
    pack_local_repo(repo, None, blobs)
    assert not (tmp_path / "ran").exists()


def test_the_environment_does_not_lead_to_another_repository(
    repo: Path, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a git hook that submits."""
    other = small_repository(tmp_path / "other")
    commit(other, "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    packed = pack_local_repo(repo, None, blobs)
    monkeypatch.undo()
    assert packed.commit == git(repo, "rev-parse", "HEAD")


def test_a_folder_that_is_no_repository_is_named(tmp_path: Path, blobs: Blobs) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(BadInput, match="not a git repository"):
        pack_local_repo(tmp_path / "plain", None, blobs)
    with pytest.raises(BadInput, match="not a folder"):
        pack_local_repo(tmp_path / "nothing", None, blobs)


def test_a_folder_inside_a_repository_tells_of_subdir(repo: Path, blobs: Blobs) -> None:
    (repo / "a/b").mkdir(parents=True)
    with pytest.raises(BadInput, match="not the top of one") as caught:
        pack_local_repo(repo / "a/b", None, blobs)
    assert "subdir: a/b" in (caught.value.try_ or "")


def test_an_empty_repository_says_so(tmp_path: Path, blobs: Blobs) -> None:
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(BadInput, match="no commit yet"):
        pack_local_repo(tmp_path / "empty", None, blobs)


@pytest.mark.parametrize(
    ("ref", "tells"),
    [("mian", "main"), ("--upload-pack=touch evil", "branch`"), ("\x1b[31m", "branch`"), ("", "branch`")],
)
def test_a_ref_that_is_not_there_names_the_near_ones(repo: Path, blobs: Blobs, ref: str, tells: str) -> None:
    """A20"""
    with pytest.raises(BadInput, match="has no ref") as caught:
        pack_local_repo(repo, ref, blobs)
    assert tells in (caught.value.try_ or "")
    assert all(char.isprintable() for char in caught.value.what)


def test_a_host_without_git_says_so(repo: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(blobs.folder))
    with pytest.raises(PartMissing, match="git is not installed"):
        pack_local_repo(repo, None, blobs)


@pytest.mark.parametrize("name", ["main", "feature/one", "fix-#12", "v1.2+x", "\u00fcber"])
def test_a_plain_branch_name_is_kept(name: str) -> None:
    assert usable_branch(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "-x",
        "a..b",
        "a//b",
        "a/",
        "a.",
        "a.lock",
        "a.lock/b",
        "a b",
        "a\nb",
        "a~1",
        "@{-1}",
        "a@{1}",
        "a/.b",
        "x" * 300,
    ],
)
def test_an_odd_branch_name_becomes_the_default(name: str | None) -> None:
    assert usable_branch(name) == "tatin"
