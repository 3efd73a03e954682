"""The patch: made in a real guest by a real git, applied with ``git apply`` on a fresh clone, the same tree."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tatin_jobs.home import Home
from tests.support.clones import Clone, cloned, commit, full_repository, git, sandbox_in, small_repository, tree_of
from worker.collect import CollectLimits, collect, snapshot
from worker.sandboxes.base import Sandbox

pytestmark = [pytest.mark.needs("bwrap", "git"), pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20
CHANGES = {
    "nothing": "true",
    "modified": "echo more >>change.txt",
    "modified in place, same size": "printf L | dd of=change.txt conv=notrunc status=none",
    "untracked": "echo new >new.txt; mkdir -p a/b; echo new >a/b/c.txt",
    "deleted": "rm gone.txt; rm -r dir",
    "renamed": "mkdir moved; mv 'old name.txt' moved/new.txt; echo more >>moved/new.txt",
    "binary": "head -c 5000 /dev/urandom >binary.dat; head -c 3000 /dev/urandom >new.bin; printf 'a\\0b' >nul",
    "modes": "chmod +x change.txt; chmod -x run.sh; echo x >new.sh; chmod +x new.sh",
    "symlinks": "ln -sf change.txt link; ln -s ../../nowhere out; ln -s /etc/passwd abs; rm a.txt; ln -s link a.txt",
    "a link becomes a file": "rm link; echo file >link",
    "a file becomes a folder": "rm a.txt; mkdir a.txt; echo x >a.txt/inner; rm -r dir; echo file >dir",
    "odd names": "echo x >$'new\\nline'; echo x >$'tab\\there'; echo x >'\u00fcn\u00efc\u00f6de \U0001f600'; "
    "echo x >./-rf; echo x >'a\"b'; "
    "echo x >'back\\slash'; echo x >' space '; echo x >'*'; echo x >':(top)x'; echo x >>$'odd \\t\\n name \u00fc'; "
    "echo x >$'\\xff\\xfe'",
    "names that differ in case only": "echo 1 >Case; echo 2 >case; echo 3 >A.TXT",
    "empty files": ": >new-empty; : >a.txt; echo x >empty",
    "line ends": "printf 'three\\r\\n' >>crlf.txt; printf 'three\\r\\n' >>windows.bat; printf ' more' >>'no newline'",
    "a folder of its own modes": "mkdir -m 700 secret; echo x >secret/file; chmod 600 secret/file",
    "unreadable": "echo x >locked; chmod 000 locked; mkdir shut; echo x >shut/in; chmod 000 shut",
    "staged": "echo more >>change.txt; echo new >new.txt; git add -A",
    "staged, then changed": "echo one >new.txt; git add -A; echo two >new.txt; rm a.txt",
    "removed from the index only": "git rm -q --cached a.txt",
    "committed": "echo more >>change.txt; echo new >new.txt; git add -A; git commit -qm work; echo later >>new.txt",
    "reset to the first commit": "git reset -q --hard HEAD~1",
    "amended": "echo more >>a.txt; git commit -qa --amend -m amended",
    "another branch": "git checkout -q -b other/one; echo more >>a.txt; git commit -qam work; git checkout -q -",
    "a branch without history": "git checkout -q --orphan fresh; git rm -rqf .; echo only >only.txt; "
    "git add -A; git commit -qm x",
    "detached": "git checkout -q --detach; echo more >>a.txt; git commit -qam work",
    "rebased": "echo 1 >x; git add x; git commit -qm x; git checkout -q -b side HEAD~1; echo 2 >y; git add y; "
    "git commit -qm y; git rebase -q @{-1}",
    "stashed": "echo more >>a.txt; git stash -q; echo other >>a.txt",
    "hidden from the index": "git update-index --assume-unchanged a.txt; git update-index --skip-worktree change.txt; "
    "echo more >>a.txt; echo more >>change.txt",
    "packed by gc": "echo more >>a.txt; git commit -qam work; git gc -q --prune=now",
    "an index that is locked": "touch .git/index.lock; echo more >>a.txt",
    "an index that is broken": "echo rubbish >.git/index; echo more >>a.txt",
    ".git removed": "rm -rf .git; echo more >>a.txt; rm gone.txt; echo new >new",
    ".git made anew": "rm -rf .git; git init -q; echo more >>a.txt; git add -A; git commit -qm all",
    ".git unreadable": "echo more >>a.txt; git commit -qam x; chmod 000 .git",
    ".git full of unreadable files": "echo more >>a.txt; git commit -qam x; "
    "find .git/objects -depth -exec chmod 000 {} +",
    ".git broken": "echo more >>a.txt; for f in .git/objects/pack/*; do chmod u+w $f; echo rubbish >$f; done",
    ".git a link": "mv .git ../elsewhere; ln -s ../elsewhere .git; echo more >>a.txt",
    "the index of the clone is gone": "rm /run/tatin/base.index; echo more >>a.txt",
    "a repository inside": "git init -q inner; cd inner; echo x >file; git add -A; git commit -qm inner",
    "a repository inside without a commit": "git init -q inner; echo x >inner/file",
    "repositories in one another": "git init -q i; git init -q i/j; echo 1 >i/one; echo 2 >i/j/two; git -C i/j add -A; "
    "git -C i/j commit -qm two; git -C i commit -q --allow-empty -m one",
    "a repository in a tracked folder": "git init -q dir; echo more >>dir/deeper/file.txt; echo x >dir/new; "
    "git -C dir add -A; git -C dir commit -qm x",
    "a bare repository inside": "git init -q --bare bare.git",
    "a worktree inside": "git worktree add -q tree; echo x >>tree/a.txt",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Sandbox, Home]]:
    async with sandbox_in(tmp_path_factory.mktemp("guest")) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_repository(tmp_path_factory.mktemp("source") / "repo")


@pytest_asyncio.fixture(loop_scope="module")
async def clone(guest: tuple[Sandbox, Home], source: Path, tmp_path: Path) -> Clone:
    return await cloned(*guest, source, tmp_path / "attempt-1")


@pytest.mark.parametrize("last", [False, True], ids=["by a file", "at once"])
@pytest.mark.parametrize("line", CHANGES.values(), ids=CHANGES)
async def test_the_patch_gives_the_same_tree_on_a_fresh_clone(clone: Clone, line: str, last: bool) -> None:
    await clone.sh(line)
    taken, collected = await clone.bring_back(last=last)
    assert (taken.patch_missing, taken.left_out) == (None, ())
    assert collected.incomplete is None
    assert clone.applied() == tree_of(clone.repo)


async def test_a_change_within_the_second_of_the_clone_is_seen(clone: Clone) -> None:
    """git keeps whole seconds and trusts an index that is younger than a file: the size and the second are the same."""
    await clone.sh("printf XXXX | dd of=change.txt conv=notrunc status=none")
    started = time.time()
    while int(time.time()) == int(started):  # the next second must have begun when the patch is made
        await clone.sandbox.run(["sleep", "0.1"])
    taken, _ = await clone.bring_back()
    assert taken.files_changed == 1
    assert clone.applied() == tree_of(clone.repo)


async def test_a_patch_that_is_all_that_is_kept_comes_with_the_snapshot(clone: Clone) -> None:
    await clone.sh("echo more >>a.txt; echo new >new.txt")
    taken = await snapshot(clone.sandbox, clone.spec(), last=True)
    assert taken.patch
    again = await snapshot(clone.sandbox, clone.spec(), last=True)  # by the next worker
    await clone.sh("rm -rf /run/tatin/snapshot")  # nothing of the guest is needed any more
    collected = await collect(clone.sandbox, clone.spec(), clone.folder, taken=taken)
    assert (clone.folder / "changes.patch").read_bytes() == taken.patch
    assert collected.patch_bytes == taken.patch_bytes == len(taken.patch)
    assert clone.applied() == tree_of(clone.repo)
    assert again == taken
    first = json.loads((clone.folder / "manifest.json").read_text())
    by_file, _ = await clone.bring_back()
    assert by_file == replace(taken, patch=None)
    assert json.loads((clone.folder / "manifest.json").read_text()) == first


@pytest.mark.parametrize(
    "line",
    [
        "echo x >../report.txt",
        "echo x >../.hidden",
        "mkdir ../empty; rmdir ../empty; ln -s nowhere ../link",
        "git commit -qam work",
        "head -c 300000 /dev/urandom >large.bin",
    ],
    ids=["an artifact", "a hidden one", "a link", "a commit", "a long patch"],
)
async def test_a_patch_that_is_long_or_not_all_that_is_kept_comes_by_a_file(clone: Clone, line: str) -> None:
    await clone.sh(f"echo more >>a.txt; {line}")
    taken, collected = await clone.bring_back(last=True)
    assert taken.patch is None
    assert (taken.patch_missing, collected.incomplete) == (None, None)
    assert clone.applied() == tree_of(clone.repo)


async def test_files_that_are_ignored_are_not_in_the_patch_but_can_be_artifacts(clone: Clone) -> None:
    await clone.sh("mkdir ignored; echo x >ignored/file; echo x >debug.log; echo '*.tmp' >>.gitignore; echo x >a.tmp")
    taken, collected = await clone.bring_back(artifact_globs=["work/repo/*.log", "work/repo/ignored/**"])
    assert taken.files_changed == 1
    assert {artifact.name for artifact in collected.artifacts} == {"repo/debug.log", "repo/ignored/file"}
    ignored = {b"ignored/file", b"debug.log", b"a.tmp"}
    assert clone.applied() == {path: found for path, found in tree_of(clone.repo).items() if path not in ignored}


async def test_lines_with_crlf_and_pointers_and_submodules_make_no_change_of_themselves(clone: Clone) -> None:
    await clone.sh("touch crlf.txt windows.bat big.lfs; git status --porcelain")
    assert "CRLF" not in await clone.sh("git diff --stat")
    taken, collected = await clone.bring_back()
    assert (taken.files_changed, taken.changed, collected.patch_bytes) == (0, False, 0)
    assert (clone.repo / "windows.bat").read_bytes() == b"one\r\ntwo\r\n"
    assert (clone.repo / "big.lfs").read_text().startswith("version https://git-lfs")
    assert list((clone.repo / "sub").iterdir()) == []


async def test_the_figures_are_those_of_the_patch(clone: Clone) -> None:
    await clone.sh(
        "echo 1 >new; echo 2 >>new; sed -i 1d change.txt; git add new; git commit -qm one; git commit -qam two"
    )
    taken, collected = await clone.bring_back()
    figures = (taken.files_changed, taken.lines_added, taken.lines_removed, taken.commits)
    assert figures == (2, 2, 1, 2)
    assert collected.patch_bytes == taken.patch_bytes == (clone.folder / "changes.patch").stat().st_size


async def test_the_agents_repository_is_left_as_it_was(clone: Clone) -> None:
    await clone.sh("git init -q inner; echo x >inner/file; echo more >>a.txt")
    before = await clone.sh("git status --porcelain; git -C inner status --porcelain; find . -name '.*'")
    await clone.bring_back()
    assert await clone.sh("git status --porcelain; git -C inner status --porcelain; find . -name '.*'") == before


async def test_the_bundle_brings_the_agents_commits_to_a_fresh_clone(clone: Clone) -> None:
    await clone.sh(
        "echo 1 >x; git add x; git commit -qm one; git checkout -qb side; echo 2 >y; git add y; git commit -qm two"
    )
    wanted = (await clone.sh("git rev-parse HEAD")).strip()
    taken, collected = await clone.bring_back()
    assert taken.commits == 2
    assert collected.bundle_bytes
    fresh = clone.fresh_clone()
    git(fresh, "fetch", "--quiet", str(clone.folder / "commits.bundle"), "side:from-agent")
    assert git(fresh, "rev-parse", "from-agent") == wanted


@pytest.mark.parametrize(
    ("keep", "name"),
    [
        ("git pack-refs --all", "main"),
        ("git checkout -q -b side; git branch -qf main HEAD~1; git pack-refs --all; git checkout -q main", "side"),
        ("git update-ref refs/mine HEAD; git reset -q --hard HEAD~1", "refs/mine"),
    ],
    ids=["packed", "packed beside the cloned branch", "directly below refs"],
)
async def test_commits_without_a_reflog_come_back_too(clone: Clone, keep: str, name: str) -> None:
    await clone.sh(f"git config core.logAllRefUpdates false; echo more >>a.txt; git commit -qam work; {keep}")
    wanted = (await clone.sh(f"test ! -e .git/logs; git rev-parse {name}")).strip()
    taken, _ = await clone.bring_back(last=True)
    assert (taken.commits, taken.left_out) == (1, ())
    fresh = clone.fresh_clone()
    git(fresh, "fetch", "--quiet", str(clone.folder / "commits.bundle"), f"{name}:from-agent")
    assert git(fresh, "rev-parse", "from-agent") == wanted


async def test_tags_of_the_clone_are_no_commits_of_the_agent(guest: tuple[Sandbox, Home], tmp_path: Path) -> None:
    source = full_repository(tmp_path / "repo")
    git(source, "tag", "first", "HEAD~1")
    git(source, "tag", "--annotate", "--message=second", "second")
    clone = await cloned(*guest, source, tmp_path / "attempt-1")
    assert (await clone.sh("echo more >>a.txt; git tag")).split() == ["first", "second"]
    taken, _ = await clone.bring_back(last=True)
    assert taken.patch, "it came the short way"


async def test_a_bundle_of_a_shallow_clone_fits_a_full_one(guest: tuple[Sandbox, Home], tmp_path: Path) -> None:
    source = small_repository(tmp_path / "repo")
    for number in range(4):
        (source / "a.txt").write_text(f"{number}\n")
        commit(source)
    clone = await cloned(*guest, source, tmp_path / "attempt-1", depth=2)
    assert (await clone.sh("git rev-list --count HEAD")).strip() == "2"
    await clone.sh("echo more >>a.txt; git commit -qam work")
    taken, _ = await clone.bring_back()
    assert taken.commits == 1
    assert clone.applied() == tree_of(clone.repo)
    git(clone.folder / "fresh", "fetch", "--quiet", str(clone.folder / "commits.bundle"), "main:from-agent")


async def test_a_sha256_repository_comes_and_goes(guest: tuple[Sandbox, Home], tmp_path: Path) -> None:
    source = tmp_path / "repo"
    source.mkdir()
    git(source, "init", "--quiet", "--initial-branch=main", "--object-format=sha256")
    (source / "a.txt").write_text("one\n")
    assert len(commit(source)) == 64
    clone = await cloned(*guest, source, tmp_path / "attempt-1")
    await clone.sh("echo more >>a.txt; git commit -qam work; rm -rf .git")
    taken, _ = await clone.bring_back()
    assert taken.patch_missing is None
    assert clone.applied() == tree_of(clone.repo)


async def test_a_patch_over_the_limit_is_kept_as_an_artifact_and_names_the_largest(clone: Clone) -> None:
    await clone.sh("head -c 3000000 /dev/urandom >large.bin; head -c 1000000 /dev/urandom >medium.bin; echo x >small")
    taken, collected = await clone.bring_back(CollectLimits(patch_bytes=MIB), last=True)
    assert collected.patch_bytes is None
    assert not (clone.folder / "changes.patch").exists()
    assert taken.patch_missing
    assert "artifacts/changes.patch" in taken.patch_missing
    assert taken.patch_missing.index("large.bin") < taken.patch_missing.index("medium.bin")
    assert [artifact.name for artifact in collected.artifacts] == ["changes.patch"]
    (clone.folder / "artifacts/changes.patch").rename(clone.folder / "changes.patch")
    assert clone.applied() == tree_of(clone.repo)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("rm -rf ~/work/repo", "the repository's folder was removed"),
        (
            "mv ~/work/repo ~/elsewhere; ln -s ~/elsewhere ~/work/repo",
            "the repository's folder was removed or replaced",
        ),
        ("echo x >~/work/new; rm -rf .git", "the repository's .git was removed"),
    ],
    ids=["the repository removed", "the repository a link", ".git removed, with nothing to send again"],
)
async def test_a_patch_that_cannot_be_made_says_why_and_the_rest_comes_back(clone: Clone, line: str, why: str) -> None:
    await clone.sh(f"echo kept >~/work/report.txt; {line}")
    taken, collected = await clone.bring_back(last=True, base_tar=None)
    assert taken.patch_missing
    assert why in taken.patch_missing
    assert taken.changed
    assert "report.txt" in {artifact.name for artifact in collected.artifacts}
    assert collected.patch_bytes is None


async def test_a_name_that_git_refuses_is_named_and_the_rest_is_in_the_patch(clone: Clone) -> None:
    await clone.sh("mkdir 'git~1'; echo x >'git~1/config'; echo more >>a.txt")
    taken, _ = await clone.bring_back(last=True)
    assert taken.patch_missing is None
    assert any("git~1" in text for text in taken.left_out)
    assert taken.files_changed == 1
