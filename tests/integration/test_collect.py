"""Everything else that comes out of a guest: artifacts, transcripts, and what happens when it cannot."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tatin_jobs.errors import DiskFull
from tests.support.archives import below
from tests.support.clones import Clone, cloned, sandbox_in, small_repository
from tests.support.disks import small_disk
from tests.support.wait import until
from worker.collect import CollectLimits, CollectSpec, Unpackers, collect, snapshot
from worker.sandboxes.base import GUEST_HOME, GUEST_WORK

pytestmark = pytest.mark.needs("bwrap", "git")


@pytest.fixture
async def clone(tmp_path: Path) -> AsyncIterator[Clone]:
    async with sandbox_in(tmp_path) as made:
        yield await cloned(*made, small_repository(tmp_path / "repo"), tmp_path / "attempt-1")


async def test_all_of_work_comes_but_the_repositorys_own_files(clone: Clone) -> None:
    await clone.sh(
        "mkdir -p plots/a; echo 1 >plots/a/b.txt; echo 2 >.hidden; echo 3 >'two words'; : >empty", GUEST_WORK
    )
    await clone.sh("echo 4 >~/elsewhere; echo 5 >new.txt")
    _, collected = await clone.bring_back()
    found = {artifact.name: artifact for artifact in collected.artifacts}
    assert set(found) == {"plots/a/b.txt", ".hidden", "two words", "empty"}
    for name, artifact in found.items():
        data = (clone.folder / "artifacts" / name).read_bytes()
        assert (artifact.size_bytes, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (collected.refused, collected.incomplete) == ((), None)


async def test_patterns_choose_and_odd_names_do_not_confuse_them(clone: Clone) -> None:
    await clone.sh(
        r"cd ~/work; mkdir -p d/e; touch a.csv d/e/b.csv c.txt $'x\ny.csv' 'a b.csv' $'d/\xff.csv'; touch ~/z.csv"
    )
    _, collected = await clone.bring_back(artifact_globs=["work/**/*.csv", "../etc/passwd"])
    assert {artifact.name for artifact in collected.artifacts} == {"a.csv", "d/e/b.csv", "a b.csv"}
    assert len(collected.refused) == 3  # the pattern, and two names that are none here
    assert all(text.isprintable() for text in collected.refused)


async def test_transcripts_come_beside_the_artifacts(clone: Clone) -> None:
    await clone.sh("mkdir -p share/--tool; echo '{}' >share/--tool/session.json; ln -s /etc/passwd link", GUEST_HOME)
    _, collected = await clone.bring_back(
        transcript_paths=["/home/agent/share", "/home/agent/link", "/none", "relative"]
    )
    assert [item.name for item in collected.transcripts] == ["share/_-tool/session.json"], "an option no more"
    assert (clone.folder / "transcript/share/_-tool/session.json").read_text() == "{}\n"
    assert any("symbolic link" in text for text in collected.refused)


async def test_what_the_owner_may_not_read_comes_all_the_same(clone: Clone) -> None:
    await clone.sh("cd ~/work; mkdir -p shut/in; echo x >shut/in/file; echo y >locked; chmod 0 locked shut/in shut")
    _, collected = await clone.bring_back()
    assert {artifact.name for artifact in collected.artifacts} == {"shut/in/file", "locked"}
    assert collected.incomplete is None


async def test_a_file_of_50_gib_without_data_is_left_there_and_named(clone: Clone) -> None:
    """A07: nothing of it is even sent"""
    await clone.sh("cd ~/work; truncate -s 50G sparse; echo x >after; mkfifo pipe; ln -s / link")
    _, collected = await clone.bring_back()
    assert {artifact.name for artifact in collected.artifacts} == {"after"}
    assert sorted(text.split(":")[0] for text in collected.refused) == ["./work/link", "./work/pipe", "./work/sparse"]
    assert collected.incomplete is None


async def test_limits_of_the_whole_keep_what_came_before(clone: Clone) -> None:
    """A66"""
    await clone.sh("cd ~/work; for n in $(seq 200); do echo $n >f$n; done")
    taken, collected = await clone.bring_back(CollectLimits(files=50))
    assert len(collected.artifacts) == 49
    assert collected.incomplete == "over the limit of 50 files"
    assert collected.patch_bytes == taken.patch_bytes == 0


async def test_collecting_twice_gives_the_same(clone: Clone) -> None:
    await clone.sh("echo 1 >~/work/one; echo 2 >~/work/two; echo more >>a.txt")
    first = await clone.bring_back()
    manifest = (clone.folder / "manifest.json").read_text()
    assert await clone.bring_back() == first
    assert (clone.folder / "manifest.json").read_text() == manifest
    await clone.sh("rm ~/work/two")
    await clone.bring_back()
    assert [path.name for path in (clone.folder / "artifacts").iterdir()] == ["one"]
    names = [kept["name"] for kept in json.loads((clone.folder / "manifest.json").read_text())["files"]]
    assert names == ["changes.patch", "artifacts/one"]
    assert {path.name for path in clone.folder.iterdir()} == {"artifacts", "changes.patch", "manifest.json"}


async def test_children_are_used_again(clone: Clone) -> None:
    async with Unpackers() as unpackers:
        for _ in range(3):
            await clone.bring_back(unpackers=unpackers)
        (child,) = unpackers._idle
        child.kill()
        await child.wait()
        _, collected = await clone.bring_back(unpackers=unpackers)  # one that died meanwhile is no harm
    assert collected.incomplete is None
    assert child.returncode == -9


async def test_a_guest_that_takes_too_long_is_cut_off_also_when_bytes_are_always_there(clone: Clone) -> None:
    """F57: the time is over at the first byte"""
    await clone.sh("cd ~/work; for n in $(seq 60); do head -c 1000000 /dev/zero >f$n; done")
    await snapshot(clone.sandbox, clone.spec())
    collected = await collect(clone.sandbox, clone.spec(), clone.folder, timeout_seconds=0)
    assert collected.incomplete == "collecting took longer than 0 s"
    assert [path.name for path in below(clone.folder)] == ["manifest.json"]


@pytest.mark.parametrize("killed", ["warden", "bwrap"])
async def test_a_sandbox_that_dies_meanwhile_keeps_what_came_whole(clone: Clone, killed: str) -> None:
    """F53, F57"""
    await clone.sh("cd ~/work; for n in $(seq 40); do head -c 5000000 /dev/urandom >f$n; done")
    await snapshot(clone.sandbox, clone.spec())

    process = psutil.Process(clone.sandbox.warden)  # type: ignore[attr-defined]
    if killed == "bwrap":
        (process,) = process.children()
    staging = clone.folder / ".collecting"
    collecting = asyncio.create_task(collect(clone.sandbox, clone.spec(), clone.folder))
    await asyncio.to_thread(until, lambda: (staging / "artifacts").is_dir())
    process.kill()
    collected = await collecting
    assert collected.incomplete
    assert collected.patch_bytes == 0
    for artifact in collected.artifacts:
        assert (clone.folder / "artifacts" / artifact.name).stat().st_size == artifact.size_bytes


@pytest.mark.needs("root")
async def test_a_full_disk_leaves_nothing_half_published(clone: Clone) -> None:
    """F13"""
    await clone.sh("cd ~/work; for n in 1 2 3; do head -c 900000 /dev/urandom >f$n; done; echo more >>repo/a.txt")
    with small_disk(clone.folder, 2048):
        with pytest.raises(DiskFull, match="no room"):
            await clone.bring_back()
        assert below(clone.folder) == []
        await clone.sh("rm ~/work/f2 ~/work/f3")
        _, collected = await clone.bring_back()
        assert [artifact.name for artifact in collected.artifacts] == ["f1"]


async def test_a_repository_that_was_never_cloned_has_no_patch(tmp_path: Path) -> None:
    folder = tmp_path / "attempt-1"
    os.mkdir(folder)
    async with sandbox_in(tmp_path) as (sandbox, _):
        spec = CollectSpec(base_commit=None)
        await sandbox.run(["sh", "-c", "echo x >/home/agent/work/kept"])
        assert (await snapshot(sandbox, spec)).patch_missing == "No repository was cloned."
        collected = await collect(sandbox, spec, folder)
    assert (collected.patch_bytes, [item.name for item in collected.artifacts]) == (None, ["kept"])
