"""Repositories over a real git server: fetched once, the commit that was wanted, and errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import DiskFull, RepositoryError
from tatin_jobs.home import Home
from tatin_jobs.localrepo import pack_local_repo
from tatin_jobs.models import Repo
from tatin_jobs.states import Reason
from tests.support.archives import below, untar
from tests.support.clones import commit, git, sandbox_in, small_repository
from tests.support.disks import small_disk
from tests.support.git_server import GitServer, git_server
from tests.support.wait import until
from worker.repository import PreparedRepo, Repositories, clone_into
from worker.repository.mirror import FetchLimits
from worker.repository.small import SMALL_TAR_BYTES
from worker.sandboxes.base import GUEST_REPO

pytestmark = pytest.mark.needs("git")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.prepare()
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three commits on ``main``, tag ``v1`` on the first, branch ``side/one`` on the second."""
    repo = small_repository(tmp_path / "served" / "repo")
    git(repo, "tag", "--annotate", "--message=one", "v1")
    (repo / "a.txt").write_text("two\n")
    commit(repo)
    git(repo, "branch", "side/one")
    (repo / "a.txt").write_text("three\n")
    commit(repo)
    return repo


@pytest.fixture
def server(source: Path) -> Iterator[GitServer]:
    with git_server(source.parent) as made:
        yield made


def repositories(home: Home, **options: object) -> Repositories:
    """With no configuration of the person who runs the tests."""
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(home.root)}
    return Repositories(home, private_addresses=True, environ=environ, **options)  # type: ignore[arg-type]


# Which commit


@pytest.mark.parametrize(
    ("ref", "revision", "branch"),
    [
        (None, "main", "main"),
        ("HEAD", "main", "main"),
        ("main", "main", "main"),
        ("side/one", "side/one", "side/one"),
        ("refs/heads/side/one", "side/one", "side/one"),
        ("v1", "v1^{commit}", "tatin"),
        ("refs/tags/v1", "v1^{commit}", "tatin"),
    ],
)
async def test_a_ref_becomes_its_commit_and_branch(
    home: Home, source: Path, server: GitServer, tmp_path: Path, ref: str | None, revision: str, branch: str
) -> None:
    prepared = await repositories(home).prepare(Repo(url=server.url(), ref=ref), ref_commit=None)
    assert prepared.commit == git(source, "rev-parse", revision)
    bare = untar(prepared.tar, tmp_path / "bare")
    assert git(bare, "rev-parse", "HEAD") == prepared.commit
    assert git(bare, "symbolic-ref", "--short", "HEAD") == branch
    git(bare, "fsck", "--strict")


async def test_a_full_commit_that_no_ref_names_is_fetched(home: Home, source: Path, server: GitServer) -> None:
    first = git(source, "rev-parse", "HEAD~1")
    git(source, "branch", "--delete", "--force", "side/one")
    git(source, "config", "uploadpack.allowAnySHA1InWant", "false")
    prepared = await repositories(home).prepare(Repo(url=server.url(), ref=first), ref_commit=None)
    assert prepared.commit == first


async def test_the_commit_of_the_batch_counts_whatever_the_branch_is_now(
    home: Home, source: Path, server: GitServer
) -> None:
    was = git(source, "rev-parse", "HEAD")
    commit(source, "later")
    prepared = await repositories(home).prepare(Repo(url=server.url(), ref="main"), ref_commit=was)
    assert prepared.commit == was


@pytest.mark.parametrize(
    ("ref", "tells"),
    [("mian", "main"), ("one", "side/one"), ("V1", "v1"), ("nothing-like-it", "git ls-remote")],
)
async def test_an_unknown_ref_names_the_near_ones(home: Home, server: GitServer, ref: str, tells: str) -> None:
    with pytest.raises(RepositoryError, match="has no ref") as caught:
        await repositories(home).prepare(Repo(url=server.url(), ref=ref), ref_commit=None)
    assert tells in (caught.value.try_ or "")
    assert caught.value.reason is Reason.REPO


async def test_a_short_commit_is_asked_for_in_full(home: Home, source: Path, server: GitServer) -> None:
    short = git(source, "rev-parse", "HEAD")[:10]
    with pytest.raises(RepositoryError) as caught:
        await repositories(home).prepare(Repo(url=server.url(), ref=short), ref_commit=None)
    assert "40 digits" in (caught.value.try_ or "")


async def test_a_commit_that_is_not_there_is_named(home: Home, server: GitServer) -> None:
    with pytest.raises(RepositoryError, match=f"has no commit {'1' * 40}"):
        await repositories(home).prepare(Repo(url=server.url(), ref="1" * 40), ref_commit=None)


async def test_an_empty_repository_is_said_to_be_empty(home: Home, server: GitServer, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", str(server.root / "empty"))
    with pytest.raises(RepositoryError, match="is empty"):
        await repositories(home).prepare(Repo(url=server.url("empty")), ref_commit=None)


async def test_depth_brings_that_much_history(home: Home, server: GitServer, tmp_path: Path) -> None:
    for depth in (1, 2):
        prepared = await repositories(home).prepare(Repo(url=server.url(), depth=depth), ref_commit=None)
        bare = untar(prepared.tar, tmp_path / f"bare-{depth}")
        assert git(bare, "rev-list", "--count", "HEAD") == str(depth)


# How often


async def test_fifty_jobs_at_once_fetch_once(home: Home, server: GitServer) -> None:
    mine = repositories(home)
    found = await asyncio.gather(*(mine.prepare(Repo(url=server.url()), ref_commit=None) for _ in range(50)))
    assert len(set(found)) == 1
    assert server.count("fetch") == 1
    asked = len(server.requests)
    await mine.prepare(Repo(url=server.url()), ref_commit=found[0].commit)
    assert len(server.requests) == asked  # nothing is asked for what was resolved and packed


async def test_a_new_commit_fetches_no_more_than_it_needs(home: Home, source: Path, server: GitServer) -> None:
    mine = repositories(home)
    await mine.prepare(Repo(url=server.url()), ref_commit=None)
    wanted = commit(source, "later")
    assert (await mine.prepare(Repo(url=server.url()), ref_commit=None)).commit == wanted
    assert server.count("fetch") == 2
    assert len(list(home.repos.glob("*.git"))) == 1


async def test_a_job_that_is_cancelled_does_not_take_the_fetch_from_the_others(home: Home, server: GitServer) -> None:
    mine = repositories(home)
    first, second = (asyncio.create_task(mine.prepare(Repo(url=server.url()), ref_commit=None)) for _ in range(2))
    await asyncio.to_thread(until, lambda: server.requests)
    first.cancel()
    assert (await second).tar.is_file()
    assert first.cancelled()


@pytest.mark.parametrize("depth", [None, 1])
async def test_what_a_killed_git_left_is_in_nobodys_way(
    home: Home, source: Path, server: GitServer, depth: int | None
) -> None:
    """F01: a fetch that is cancelled, or whose worker is killed, ends by SIGKILL, and git's locks stay."""
    repo = Repo(url=server.url(), depth=depth)
    await repositories(home).prepare(repo, ref_commit=None)
    (mirror,) = home.repos.glob("*.git")
    left = [
        mirror / name for name in ("shallow.lock", "packed-refs.lock", "refs/tatin/x.lock", "objects/pack/tmp_pack_x")
    ]
    for path in left:
        path.touch()
    wanted = commit(source, "later")
    assert (await repositories(home).prepare(repo, ref_commit=None)).commit == wanted
    assert [path for path in left if path.exists()] == []


async def test_a_cancelled_shallow_fetch_does_not_fail_the_next(home: Home, source: Path, server: GitServer) -> None:
    """The same with a real git, killed while it holds the lock."""
    (source / "large").write_bytes(os.urandom(8 * 2**20))
    commit(source, "large")
    repo = Repo(url=server.url(), depth=1)
    for _ in range(20):
        one = asyncio.create_task(repositories(home).prepare(repo, ref_commit=None))
        if await asyncio.to_thread(_appears, home, one):
            one.cancel()
            await asyncio.wait([one])
            break
        await one
        shutil.rmtree(home.repos)
        home.prepare()
    else:
        pytest.fail("git was never seen with its lock")
    assert list(home.repos.glob("*.git/shallow.lock"))
    assert (await repositories(home).prepare(repo, ref_commit=None)).tar.is_file()


def _appears(home: Home, task: asyncio.Task[PreparedRepo]) -> bool:
    """Whether a lock of git's was seen before the fetch was over."""
    while not task.done():
        if list(home.repos.glob("*.git/shallow.lock")):
            return True
    return False


async def test_a_mirror_that_was_half_made_is_made_anew(home: Home, server: GitServer) -> None:
    mine = repositories(home)
    prepared = await mine.prepare(Repo(url=server.url()), ref_commit=None)
    prepared.tar.unlink()
    (mirror,) = home.repos.glob("*.git")
    (mirror / "HEAD").unlink()
    assert (await mine.prepare(Repo(url=server.url()), ref_commit=None)).tar.is_file()


async def test_what_was_not_used_for_long_is_pruned(home: Home, server: GitServer) -> None:
    mine = repositories(home, packed_bytes=1)
    prepared = await mine.prepare(Repo(url=server.url()), ref_commit=None)
    assert prepared.tar.is_file()  # over the size, but just used
    now = prepared.tar.stat().st_mtime
    await mine.prune(now + 7200)
    assert not prepared.tar.exists()
    assert list(home.repos.glob("*.git"))
    await mine.prune(now + 70 * 86_400)
    assert not list(home.repos.glob("*.git"))


# What goes wrong


async def test_a_private_repository_ends_at_once_and_asks_nobody(home: Home, server: GitServer) -> None:
    server.password = "secret"
    with pytest.raises(RepositoryError, match="private or does not exist") as caught:
        async with asyncio.timeout(30):
            await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
    assert "credential helper" in (caught.value.try_ or "")
    assert caught.value.reason is Reason.REPO


async def test_a_credential_helper_of_the_worker_is_asked(home: Home, server: GitServer, tmp_path: Path) -> None:
    server.password = "secret"
    config = tmp_path / "gitconfig"
    config.write_text('[credential]\n\thelper = "!f() { echo username=tatin; echo password=secret; }; f"\n')
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": str(config)}
    mine = Repositories(home, private_addresses=True, environ=environ)
    prepared = await mine.prepare(Repo(url=server.url()), ref_commit=None)
    assert prepared.origin == server.url()
    assert not [path for path in below(home.root) if path.is_file() and b"secret" in path.read_bytes()]


async def test_a_repository_that_is_not_there_says_so(home: Home, server: GitServer) -> None:
    with pytest.raises(RepositoryError, match="no repository at") as caught:
        await repositories(home).prepare(Repo(url=server.url("nothing")), ref_commit=None)
    assert caught.value.reason is Reason.REPO


async def test_a_server_that_is_down_may_be_tried_again(home: Home, server: GitServer) -> None:
    with pytest.raises(RepositoryError, match="did not answer") as caught:
        await repositories(home).prepare(Repo(url="http://127.0.0.1:1/repo"), ref_commit=None)
    assert caught.value.reason is Reason.NETWORK


async def test_a_blob_that_is_not_here_is_said_to_be_missing(home: Home) -> None:
    with pytest.raises(RepositoryError, match="not on this worker"):
        await repositories(home).prepare(Repo(blob="0" * 64, commit="1" * 40, path="/somewhere"), ref_commit=None)


@pytest.mark.needs("root")
async def test_a_full_disk_is_the_reason_and_leaves_no_half_pack(home: Home, source: Path, server: GitServer) -> None:
    """F13"""
    (source / "large").write_bytes(os.urandom(3 * 2**20))
    commit(source)
    with small_disk(home.repos):
        with pytest.raises(DiskFull):
            await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
        assert not [path for path in below(home.repos) if "packed" in path.parts and path.is_file()]


async def test_a_repository_over_the_size_is_refused(home: Home, source: Path, server: GitServer) -> None:
    """A26"""
    (source / "large").write_bytes(os.urandom(3 * 2**20))
    commit(source)
    with pytest.raises(RepositoryError, match=r"larger than the 1(\.0)? ?MiB"):
        await repositories(home, limits=FetchLimits(pack_bytes=2**20)).prepare(Repo(url=server.url()), ref_commit=None)


# In the guest


@pytest.mark.needs("bwrap")
@pytest.mark.parametrize("size", [10, 2 * SMALL_TAR_BYTES], ids=["as files", "as a tar"])
async def test_the_guests_clone_is_one_as_from_git_clone(
    home: Home, source: Path, server: GitServer, tmp_path: Path, size: int
) -> None:
    (source / "more").write_bytes(os.urandom(size))
    commit(source)
    prepared = await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
    async with sandbox_in(tmp_path) as (sandbox, _):
        await clone_into(sandbox, prepared)
        line = (
            "git status --porcelain --branch; git log --oneline | wc -l; git remote get-url origin; git tag; git fsck"
        )
        seen = await sandbox.run(["sh", "-ec", line], cwd=GUEST_REPO)
    assert seen.exit_status == 0, seen.stderr
    assert seen.stdout.decode().split() == ["##", "main", "4", server.url(), "v1"]


@pytest.mark.needs("bwrap")
async def test_a_tar_that_is_none_is_an_error_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(b"rubbish" * 1000)
    async with sandbox_in(tmp_path) as (sandbox, _):
        with pytest.raises(RepositoryError, match="could not be unpacked"):
            await clone_into(sandbox, PreparedRepo(tmp_path / "tar", "1" * 40, None))
        with pytest.raises(RepositoryError, match="was removed"):
            await clone_into(sandbox, PreparedRepo(tmp_path / "nothing", "1" * 40, None))


@pytest.mark.needs("bwrap")
async def test_a_local_path_comes_by_its_blob(home: Home, source: Path, tmp_path: Path) -> None:
    packed = pack_local_repo(source, "side/one", Blobs(home.blobs))
    prepared = await repositories(home).prepare(Repo(blob=packed.blob, commit=packed.commit), ref_commit=None)
    async with sandbox_in(tmp_path) as (sandbox, _):
        await clone_into(sandbox, prepared)
        seen = await sandbox.run(["git", "log", "--format=%H %D", "-1"], cwd=GUEST_REPO)
    assert seen.stdout.decode().strip() == f"{packed.commit} HEAD -> side/one"
