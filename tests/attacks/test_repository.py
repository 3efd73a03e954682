"""A20-A27: addresses, refs and servers that want to be more than a repository. (A24 is in test_planted_git.py.)"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import RepositoryError
from tatin_jobs.home import Home
from tatin_jobs.models import Repo
from tatin_jobs.repoaddress import Address
from tatin_jobs.states import Reason
from tests.support.archives import below
from tests.support.clones import commit, git, sandbox_in, small_repository
from tests.support.git_server import GitServer, git_server
from worker.repository import Repositories, clone_into
from worker.repository.address import pinned, public_addresses
from worker.repository.mirror import FetchLimits
from worker.sandboxes.base import GUEST_REPO

pytestmark = pytest.mark.needs("git")
ENVIRON = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.prepare()
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    small_repository(tmp_path / "served" / "repo")
    with git_server(tmp_path / "served") as made:
        yield made


def repositories(home: Home, environ: dict[str, str] | None = None, **options: Any) -> Repositories:
    return Repositories(home, **{"private_addresses": True, "environ": environ or ENVIRON, **options})


@pytest.mark.parametrize("ref", ["--upload-pack=touch evil", "-cfoo", "-", "a\nb", "a\0b", "\x1b[31m"])
async def test_a20_a_ref_that_is_an_option_is_refused_before_anything_is_asked(
    home: Home, server: GitServer, ref: str
) -> None:
    """A20"""
    with pytest.raises(RepositoryError, match="no name of a ref"):
        await repositories(home).prepare(Repo(url=server.url(), ref=ref), ref_commit=None)
    assert server.requests == []


@pytest.mark.parametrize("where", ["ref_commit", "commit"])
async def test_a20_a_commit_from_a_record_is_a_full_one_or_refused(home: Home, server: GitServer, where: str) -> None:
    """A20: records come from the store"""
    bad = "--upload-pack=touch evil"
    repo = Repo(url=server.url(), commit=bad if where == "commit" else None)
    with pytest.raises(RepositoryError, match="no full commit id"):
        await repositories(home).prepare(repo, ref_commit=bad if where == "ref_commit" else None)
    assert server.requests == []


@pytest.mark.parametrize("name", ["../id", "/etc/passwd", "", "0" * 63])
async def test_a33_a_blob_is_named_by_its_digest_only(home: Home, name: str) -> None:
    """A33"""
    with pytest.raises(RepositoryError, match="names no packed repository"):
        await repositories(home).prepare(Repo(blob=name, commit="1" * 40), ref_commit=None)


@pytest.mark.parametrize("url", ["ext::sh -c touch% evil", "file:///etc", "/etc", "ssh://-oProxyCommand=evil/x"])
async def test_a21_other_ways_to_a_repository_are_refused(home: Home, url: str) -> None:
    """A21"""
    with pytest.raises(RepositoryError):
        await repositories(home).prepare(Repo(url=url), ref_commit=None)


async def test_a21_git_itself_refuses_what_gets_past_us(home: Home, tmp_path: Path) -> None:
    """A21: an address that the worker's own configuration turns into another"""
    evil = tmp_path / "evil"
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "ext::touch {evil} %S"]\n\tinsteadOf = https://example.invalid/\n')
    mine = repositories(home, {**ENVIRON, "GIT_CONFIG_GLOBAL": str(config), "GIT_ALLOW_PROTOCOL": "ext:file"})
    with pytest.raises(RepositoryError, match="protocol that is not allowed"):
        await mine.prepare(Repo(url="https://example.invalid/x"), ref_commit=None)
    assert "evil" not in os.listdir(tmp_path)


async def test_a35_the_environment_does_not_point_git_elsewhere(home: Home, server: GitServer, tmp_path: Path) -> None:
    """A35: nor does it run anything"""
    evil = f"touch {tmp_path}/evil"
    more = {
        name: evil for name in ("GIT_ASKPASS", "SSH_ASKPASS", "GIT_EDITOR", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND")
    }
    where = {name: str(tmp_path) for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")}
    counted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": evil}
    prepared = await repositories(home, {**ENVIRON, **more, **where, **counted}).prepare(
        Repo(url=server.url()), ref_commit=None
    )
    assert prepared.tar.is_file()
    assert "evil" not in os.listdir(tmp_path)


async def test_a22_credentials_in_an_address_reach_no_process_and_no_file(
    home: Home, server: GitServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A22"""
    caplog.set_level("DEBUG")
    url = server.url().replace("://", "://tatin:hunter2@")
    with pytest.raises(RepositoryError, match="credentials in it") as caught:
        await repositories(home).prepare(Repo(url=url), ref_commit=None)
    assert "hunter2" not in str(caught.value) + caplog.text
    assert server.requests == []
    assert not [path for path in below(home.root) if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.mark.needs("bwrap")
async def test_a22_the_guests_clone_knows_no_credentials(home: Home, server: GitServer, tmp_path: Path) -> None:
    """A22: the worker's own helper has them"""
    server.password = "hunter2"
    config = tmp_path / "gitconfig"
    config.write_text('[credential]\n\thelper = "!f() { echo username=tatin; echo password=hunter2; }; f"\n')
    mine = repositories(home, {**ENVIRON, "GIT_CONFIG_GLOBAL": str(config)})
    prepared = await mine.prepare(Repo(url=server.url()), ref_commit=None)
    async with sandbox_in(tmp_path) as (sandbox, _):
        await clone_into(sandbox, prepared)
        seen = await sandbox.run(["grep", "-r", "-a", "-e", "hunter2", "-e", "helper", ".git"], cwd=GUEST_REPO)
        assert (seen.exit_status, seen.stdout) == (1, b"")


@pytest.mark.parametrize(
    "modules",
    [
        '[submodule "../../evil"]\n\tpath = sub\n\turl = https://example.invalid/x\n',
        '[submodule "x"]\n\tpath = sub\n\turl = -u./evil\n',
        '[submodule "x"]\n\tpath = -sub\n\turl = https://example.invalid/x\n',
    ],
)
async def test_a23_a_repository_of_submodule_tricks_is_not_taken(home: Home, server: GitServer, modules: str) -> None:
    """A23: CVE-2018-11235, CVE-2018-17456: git's own check of the objects, asked for at each fetch"""
    repo = server.root / "repo"
    (repo / ".gitmodules").write_text(modules)
    git(repo, "add", ".gitmodules")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repo, "commit", "--quiet", "--message=evil")
    with pytest.raises(RepositoryError, match="objects that git does not accept"):
        await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)


async def test_a23_nothing_is_checked_out_on_the_host(home: Home, server: GitServer) -> None:
    """A23: a name that only a check-out would bring to light"""
    (server.root / "repo" / "only-in-a-work-tree.txt").write_text("x\n")
    commit(server.root / "repo")
    await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
    assert not [path for path in below(home.root) if "only-in" in path.name]


async def test_a26_a_server_that_never_ends_is_given_up(
    home: Home, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A26"""
    server.endless = True
    monkeypatch.setattr("worker.repository.mirror.LISTING_SECONDS", 1.0)
    with pytest.raises(RepositoryError, match="took longer than 1 s") as caught:
        await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
    assert caught.value.reason is Reason.NETWORK


async def test_a26_a_server_that_says_nothing_is_given_up(home: Home) -> None:
    """A26: and git is dead afterwards"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        mine = repositories(home, limits=FetchLimits(seconds=0.5))
        with pytest.raises(RepositoryError, match="took longer"):
            async with asyncio.timeout(20):
                await mine.prepare(Repo(url=url, commit="1" * 40, ref="1" * 40), ref_commit=None)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
    assert url not in listed


async def test_a27_a_redirect_is_not_followed(home: Home, server: GitServer, tmp_path: Path) -> None:
    """A27"""
    with git_server(server.root) as elsewhere:
        server.redirect = f"http://127.0.0.1:{elsewhere.port}"
        with pytest.raises(RepositoryError, match="redirected to another address"):
            await repositories(home).prepare(Repo(url=server.url()), ref_commit=None)
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "localhost",
            "0.0.0.0",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("2130706433", "0x7f.1", "127.1", "0177.0.0.1"),
    ],
)
async def test_a27_addresses_of_this_host_and_its_lan_are_not_asked(home: Home, host: str) -> None:
    """A27: in each way of writing them"""
    mine = repositories(home, private_addresses=False)
    with pytest.raises(RepositoryError, match="private network, which jobs may not reach") as caught:
        await mine.prepare(Repo(url=f"http://{host}/repo"), ref_commit=None)
    assert "private_repos = true" in (caught.value.try_ or "")


async def test_a27_a_name_that_leads_elsewhere_the_second_time_is_still_the_first(
    home: Home, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A27: git is told the addresses that were looked at, so that a name server cannot change its mind"""
    address = Address(f"http://rebound.example:{server.port}/repo", "http", "rebound.example", server.port)

    async def found(_: Address) -> tuple[str, ...]:
        return ("127.0.0.1",)

    monkeypatch.setattr("worker.repository.repositories.public_addresses", found)
    prepared = await repositories(home, private_addresses=False).prepare(Repo(url=address.url), ref_commit=None)
    assert prepared.tar.is_file()  # the name itself leads nowhere
    assert pinned(Address("ssh://h/x", "ssh", "h", 22), ("192.0.2.1",)) == ()


async def test_a27_a_name_that_does_not_resolve_is_left_to_git() -> None:
    """A27: it may be one of the SSH configuration, or a proxy's"""
    assert await public_addresses(Address("ssh://alias.invalid/x", "ssh", "alias.invalid", 22)) == ()
