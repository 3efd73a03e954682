"""A24: a guest's tree full of planted commands. None runs on the host, and none changes the patch."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.attacks.conftest import ProviderOf
from tests.support.clones import Clone, cloned, full_repository, sandbox_in

pytestmark = pytest.mark.needs("git")

EVIL = "/home/agent/evil"
"""A program of the agent's that notes that it ran."""
SNAPSHOT = "/run/tatin/snapshot"
LIES = f"cp -r .git ~/lies; git --git-dir=$HOME/lies config core.fsmonitor {EVIL}"
PLANT = {
    "fsmonitor": f"git config core.fsmonitor {EVIL}",
    "hooks": "for h in pre-commit post-checkout post-index-change reference-transaction; do "
    f"cp {EVIL} .git/hooks/$h; done",
    "a hooks folder elsewhere": f"mkdir ~/hooks; cp {EVIL} ~/hooks/post-index-change; "
    "git config core.hooksPath ~/hooks",
    "textconv": f"git config diff.evil.textconv {EVIL}; echo '* diff=evil' >.git/info/attributes",
    "an external diff": f"git config diff.external {EVIL}; git config diff.evil.command {EVIL}; "
    "echo '* diff=evil' >.git/info/attributes",
    "a clean filter": f"git config filter.evil.clean {EVIL}; git config filter.evil.process {EVIL}; "
    "git config filter.evil.required true; echo '* filter=evil' >.git/info/attributes",
    "lfs": f"git config filter.lfs.clean {EVIL}; git config filter.lfs.process {EVIL}; "
    "git config filter.lfs.required true",
    "a signing program": f"git config commit.gpgSign true; git config gpg.program {EVIL}; "
    f"git config gpg.ssh.program {EVIL}",
    "an include": f"printf '[core]\\n\\tfsmonitor = {EVIL}\\n' >~/more; git config include.path ~/more",
    "the user's configuration": f"printf '[core]\\n\\tfsmonitor = {EVIL}\\n\\tattributesFile = ~/attributes\\n"
    f"[filter \"evil\"]\\n\\tclean = {EVIL}\\n' >~/.gitconfig; echo '* filter=evil' >~/attributes; "
    "mkdir -p ~/.config/git; cp ~/.gitconfig ~/.config/git/config; cp ~/attributes ~/.config/git/attributes",
    "a work tree elsewhere": "mkdir ~/other; git config core.worktree ~/other",
    "a pager and an editor": f"git config core.pager {EVIL}; git config core.editor {EVIL}; "
    f"git config pager.diff {EVIL}",
    "aliases": f"git config alias.add '!{EVIL}'; git config alias.diff-index '!{EVIL}'",
    "a bare repository inside": f"git init -q --bare bare; git --git-dir=bare config core.fsmonitor {EVIL}",
    "a repository inside": f"git init -q inner; git -C inner config core.fsmonitor {EVIL}; echo x >inner/file; "
    f"git -C inner config filter.evil.clean {EVIL}; echo '* filter=evil' >inner/.gitattributes",
    "programs on the path": "mkdir -p ~/.local/bin; for p in git tar find sh cp grep awk rm mkdir cat wc; do "
    f"/bin/cp {EVIL} ~/.local/bin/$p; done",
    "replaced objects": "new=$(echo lies | git hash-object -w --stdin); git replace $(git rev-parse HEAD:a.txt) $new",
    "grafts": "git rev-parse HEAD >.git/info/grafts 2>/dev/null",
    "alternates": "mkdir -p .git/objects/info; echo /etc >.git/objects/info/alternates",
    "excludes": "echo '*' >.git/info/exclude; git config core.excludesFile /home/agent/all; echo '*' >~/all",
    "other meanings of files": "git config core.fileMode false; git config core.symlinks false; "
    "git config core.autocrlf true; "
    "git config core.ignoreCase true; git config diff.noprefix true; git config core.quotePath false; "
    "git config diff.mnemonicPrefix true; git config diff.renames copies; git config diff.context 0",
    "another repository behind the snapshot's": f"{LIES}; echo ~/lies >{SNAPSHOT}/git/commondir",
    "the same where nobody can list it": f"{LIES}; echo ~/lies >{SNAPSHOT}/git/commondir; chmod 311 {SNAPSHOT}/git",
    "attributes for the snapshot": f"mkdir {SNAPSHOT}/git/info; echo '* text eol=crlf' >{SNAPSHOT}/git/info/attributes",
    "objects for the snapshot": f"cp -r .git/objects/. {SNAPSHOT}/git/objects; "
    f"for f in {SNAPSHOT}/git/objects/pack/*; do chmod u+w $f; echo rubbish >$f; done",
    "the snapshot's folder a link": f"mv {SNAPSHOT}/git ~/git; ln -s ~/git {SNAPSHOT}/git; "
    "mkdir ~/git/info; echo '* text eol=crlf' >~/git/info/attributes",
    "a link in the snapshot's folder": f"rm -r {SNAPSHOT}/git/refs; ln -s ~/work/repo/.git/refs {SNAPSHOT}/git",
    "files in the snapshot's folder": f"cd {SNAPSHOT}; mkdir changes.patch compared; mkfifo errors; : >'.[!.]*'",
    "an index of lies": "git update-index --assume-unchanged change.txt run.sh; git update-index --skip-worktree a.txt",
    "a split index": "git update-index --split-index; git config core.untrackedCache true; "
    "git update-index --untracked-cache",
    "a sparse checkout": "git config core.sparseCheckout true; echo /dir >.git/info/sparse-checkout",
    "unknown extensions": "git config core.repositoryFormatVersion 1; git config extensions.worktreeConfig true; "
    f"printf '[core]\\n\\tfsmonitor = {EVIL}\\n' >.git/config.worktree; git config extensions.nonsense yes || true",
}
PIPES = {
    "a branch": "mkfifo .git/refs/heads/pipe",
    "a branch by a link": "mkfifo ~/pipe; ln -s ~/pipe .git/refs/heads/pipe",
    "the head": "rm .git/HEAD; mkfifo .git/HEAD",
    "the head by a link": "rm .git/HEAD; mkfifo ~/pipe; ln -s ~/pipe .git/HEAD",
    "packed branches": "rm .git/packed-refs; mkfifo .git/packed-refs",
    "packed branches by a link": "rm .git/packed-refs; mkfifo ~/pipe; ln -s ~/pipe .git/packed-refs",
}
"""A pipe, which nobody writes into, in the place of what git reads."""
PIPES_ELSEWHERE = {
    "more objects": "mkdir -p .git/objects/info; mkfifo .git/objects/info/alternates",
    "an index of packs": "mkfifo .git/objects/pack/multi-pack-index",
    "ignored files": "mkdir in; echo x >in/x; mkfifo in/.gitignore",
    "attributes": "mkdir in; echo x >in/x; mkfifo in/.gitattributes",
    "a repository inside": "mkdir -p in/.git; echo x >in/x; mkfifo in/.git/HEAD",
    "several": "mkdir in; mkfifo .git/objects/pack/multi-pack-index in/.gitignore in/.gitattributes",
    "a pipe by a link": "mkfifo ~/pipe; mkdir -p .git/objects/info; ln -s ~/pipe .git/objects/info/commit-graph",
    "a folder that may not be written": "mkdir in; mkfifo in/.gitignore in/.gitattributes; chmod 500 in",
}
SHORT_SECONDS = 20
WORK = "echo more >>change.txt; chmod +x a.txt; rm -f gone.txt; echo new >new.txt; printf 'x\\r\\n' >crlf-new.txt"


@pytest.fixture
async def clone(tmp_path: Path, provider_of: ProviderOf) -> AsyncIterator[Clone]:
    async with sandbox_in(tmp_path, provider_of) as made:
        yield await cloned(*made, full_repository(tmp_path / "repo"), tmp_path / "attempt-1")


@contextmanager
def host_programs() -> Iterator[set[str]]:
    """The command lines of everything that this process starts outside the sandbox meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.is_set():
            for child in me.children():
                try:
                    seen.add(" ".join(child.cmdline()))
                except psutil.Error:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("last", [False, True], ids=["by a file", "at once"])
@pytest.mark.parametrize("plant", PLANT.values(), ids=PLANT)
async def test_a24_what_is_planted_neither_runs_nor_changes_the_patch(clone: Clone, plant: str, last: bool) -> None:
    """A24."""
    await try_plant(clone, plant, last=last)


async def try_plant(clone: Clone, plant: str, *, last: bool = False) -> None:
    """What the shell line ``plant`` leaves in the guest does not run, and the patch is true to the tree."""
    await clone.sh(f"printf '#!/bin/sh\\necho ran >>/home/agent/ran\\ncat\\n' >{EVIL}; chmod +x {EVIL}")
    await clone.sh(f"{WORK}; {plant}")
    await clone.sh("/bin/rm -f ~/ran", cwd="/")
    taken, collected = await clone.bring_back(last=last)
    assert (taken.patch_missing, taken.left_out, collected.incomplete) == (None, (), None)
    await clone.sh("test ! -e /home/agent/ran", cwd="/")
    assert clone.applied() == await clone.tree()


@pytest.mark.parametrize("plant", PIPES.values(), ids=PIPES)
async def test_a24_a_pipe_among_the_refs_holds_nothing_up(clone: Clone, plant: str) -> None:
    """A24."""
    await clone.sh(f"{WORK}; git add -A; git commit -qm work; {plant}")
    taken, collected = await clone.bring_back(last=True, timeout_seconds=SHORT_SECONDS)
    assert (taken.patch_missing, taken.commits, taken.left_out, collected.incomplete) == (None, 1, (), None)
    assert clone.applied() == await clone.tree()


@pytest.mark.parametrize("last", [False, True], ids=["by a file", "at once"])
@pytest.mark.parametrize("plant", PIPES_ELSEWHERE.values(), ids=PIPES_ELSEWHERE)
async def test_a24_a_pipe_that_git_waits_for_is_removed(clone: Clone, plant: str, last: bool) -> None:
    """A24."""
    await clone.sh(f"{WORK}; git add -A; git commit -qm work; {plant}")
    taken, collected = await clone.bring_back(last=last, timeout_seconds=SHORT_SECONDS, pipes_seconds=0.2)
    assert (taken.patch_missing, taken.commits, taken.left_out, collected.incomplete) == (None, 1, (), None)
    assert clone.applied() == await clone.tree()


async def test_a24_a_link_in_the_place_of_the_snapshot_changes_no_mode_behind_it(clone: Clone) -> None:
    """A24: what is made writable to be removed is never what a link leads to."""
    await clone.sh(f"{WORK}; rm -rf {SNAPSHOT}; ln -s ~/work/repo {SNAPSHOT}")
    before = await clone.tree()
    await clone.bring_back()
    assert clone.applied() == before


async def test_a24_the_host_starts_the_unpacker_and_nothing_else(clone: Clone) -> None:
    """A24."""
    plant = "; ".join(PLANT[name] for name in ("fsmonitor", "hooks", "textconv", "a clean filter"))
    await clone.sh(f"printf '#!/bin/sh\\n' >{EVIL}; chmod +x {EVIL}; {WORK}; {plant}; cp -r .git ~/work/planted")
    with host_programs() as seen:
        await clone.bring_back()
    ours = {line for line in seen if "worker.unpacker" not in line and "bwrap" not in line}
    assert not {line for line in ours if line and "python" not in line.split()[0]}
    assert any("worker.unpacker" in line for line in seen)


async def test_a25_a_patch_is_bytes_that_nobody_applied(clone: Clone) -> None:
    """A25: links, odd names and binary are in it as the guest made them; the host made none of them."""
    await clone.sh("ln -s /etc/passwd to-passwd; mkdir -p 'a/..b'; echo x > 'a/..b/c'")
    await clone.sh("head -c 3000000 /dev/urandom > blob")
    taken, collected = await clone.bring_back()
    patch = (clone.folder / "changes.patch").read_bytes()
    assert taken.patch_missing is None
    assert b"new file mode 120000" in patch
    assert b"GIT binary patch" in patch
    assert collected.patch_bytes == len(patch)
    assert [path for path in clone.folder.rglob("*") if path.is_symlink()] == []
    assert {path.name for path in clone.folder.iterdir()} <= {"changes.patch", "artifacts", "manifest.json"}
