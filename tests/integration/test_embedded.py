"""The embedded Valkey: one server per home, adopted, revived, ended by the last; nothing acknowledged is lost (F32)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tatin_jobs import embedded
from tatin_jobs.embedded import embedded_server, revive, socket_path
from tatin_jobs.errors import StoreUnavailable
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from tatin_jobs.states import JobState
from tatin_jobs.store import open_store
from tests.support.store_server import servers
from tests.support.stores import LEASE_SECONDS, OFFER, make_job, submit
from tests.support.wait import until

pytestmark = pytest.mark.needs("valkey")

CLIENT = """
import sys
from pathlib import Path
from tatin_jobs.embedded import embedded_server
from tatin_jobs.home import Home
home = Home(Path(sys.argv[1]))
home.prepare()
with embedded_server(home) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.prepare()
    yield made
    for process in servers(made):
        process.kill()


def settings(home: Home) -> Settings:
    return Settings(home=home.root, worker_name="w1")


def start_client(home: Home, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(home.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


@contextmanager
def client(home: Home, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the server, and the socket that it was given."""
    with start_client(home, **environ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0


def test_the_server_is_private_keeps_everything_and_is_in_a_session_of_its_own(home: Home) -> None:
    """A43; Ctrl-C at a terminal stops jobs and not their queue."""
    with open_store(settings(home), home) as store:
        path = socket_path(home)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for folder in (home.root, home.store):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (server,) = servers(home)
        assert os.getsid(server.pid) == server.pid != os.getsid(0)
        assert server.net_connections(kind="inet") == []
        found = store.server_settings()
        assert (found["appendonly"], found["maxmemory-policy"]) == ("yes", "noeviction")
    assert servers(home) == []
    assert not path.exists()


def test_the_last_client_ends_the_server_and_no_other(home: Home) -> None:
    with client(home) as (other, path):
        with open_store(settings(home), home) as store:
            submit(store, make_job("job-1"))
            (server,) = servers(home)
        assert [one.pid for one in servers(home)] == [server.pid]
        assert Path(path).exists()
        leave(other)
        assert servers(home) == []
    with open_store(settings(home), home) as store:
        assert store.job("job-1").state is JobState.QUEUED


def test_clients_that_start_at_once_share_one_server(home: Home) -> None:
    """F32."""
    processes = [start_client(home) for _ in range(5)]
    paths = {process.stdout.readline() for process in processes if process.stdout}
    assert len(paths) == 1
    assert len(servers(home)) == 1
    for process in processes:
        leave(process)
        assert process.stdout is not None
        process.stdout.close()
    assert servers(home) == []


def test_a_client_that_is_killed_leaves_a_server_that_the_next_adopts(home: Home) -> None:
    """F32."""
    with client(home) as (process, _):
        (server,) = servers(home)
        process.kill()
        process.wait()
    assert servers(home) == [server]
    with embedded_server(home):
        assert servers(home) == [server]
    assert servers(home) == []


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(home: Home) -> None:
    """F20."""
    jobs = [make_job(f"job-{index}") for index in range(200)]
    with open_store(settings(home), home) as store:
        for job in jobs:
            submit(store, job)
        lease = store.claim("w1", OFFER, [], "n1", LEASE_SECONDS)
        assert lease is not None
        (server,) = servers(home)
        server.kill()
    with open_store(settings(home), home) as store:
        assert {job.id for job in store.list_jobs(limit=500)} == {job.id for job in jobs}
        assert store.job("job-0").token == lease.token
        assert store.misplaced() == []


def test_a_server_that_dies_under_its_clients_is_started_again(home: Home) -> None:
    """F20: nobody is there at night who would start it."""
    with open_store(settings(home), home) as store:
        submit(store, make_job("job-1"), make_job("job-2"))
        run = store.run_id()
        for number in (1, 2):
            (server,) = servers(home)
            server.kill()
            lease = store.claim("w1", OFFER, [], f"n{number}", LEASE_SECONDS)
            assert lease is not None
            assert lease.job.id == f"job-{number}"
        assert store.run_id() != run
        mine = psutil.Process().children()
        assert [child for child in mine if child.status() == psutil.STATUS_ZOMBIE] == []
    assert servers(home) == []


def test_a_thread_that_comes_late_starts_nothing_again(home: Home) -> None:
    with open_store(settings(home), home) as store:
        pass
    with pytest.raises(StoreUnavailable):
        store.release_due()
    revive(home, lambda: False)
    assert servers(home) == []


def test_a_process_that_a_left_over_note_names_is_not_touched(home: Home, tmp_path: Path) -> None:
    """F32: neither a foreign program nor the Valkey of another home, whatever number a crash left behind."""
    other = Home(tmp_path / "other")
    other.prepare()
    with subprocess.Popen(["sleep", "600"]) as sleeper, client(other):
        (foreign,) = servers(other)
        for pid in (sleeper.pid, foreign.pid):
            (home.store / "valkey.pid").write_text(str(pid))
            with embedded_server(home):
                assert len(servers(home)) == 1
            with embedded_server(home):
                (server,) = servers(home)
                server.kill()
                # All of its threads: the lock is theirs until the last of them is gone.
                until(lambda: not embedded._lives(home), what="its death")
                (home.store / "valkey.pid").write_text(str(pid))
        assert sleeper.poll() is None
        assert servers(other) == [foreign]
        sleeper.kill()
    for left in servers(other):
        left.kill()


def test_a_server_that_hangs_is_told_of_and_not_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """F22: another client's worker may be using it, and a person may have stopped it."""
    monkeypatch.setattr(embedded, "ANSWER_SECONDS", 0.3)
    with client(home) as (other, _):
        (server,) = servers(home)
        server.suspend()
        with pytest.raises(StoreUnavailable, match="cannot be used") as caught, embedded_server(home):
            pass
        assert str(server.pid) in (caught.value.seen or "")
        server.resume()
        with embedded_server(home):
            assert servers(home) == [server]
        leave(other)


def test_a_server_that_lost_its_socket_is_replaced_and_its_jobs_stay(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "ADOPT_SECONDS", 0.3)
    with client(home) as (process, path):
        with open_store(settings(home), home) as store:
            submit(store, make_job("job-1"))
        (server,) = servers(home)
        process.send_signal(signal.SIGKILL)
        process.wait()
        Path(path).unlink()
    with open_store(settings(home), home) as store:
        assert store.job("job-1").state is JobState.QUEUED
        (new,) = servers(home)
        assert new.pid != server.pid


@pytest.fixture
def deep_home(tmp_path: Path) -> Home:
    made = Home(tmp_path / ("d" * 60) / ("e" * 60))
    made.prepare()
    return made


def test_a_home_too_deep_for_a_socket_gets_it_in_a_private_folder(deep_home: Home, tmp_path: Path) -> None:
    """One server still, though the next client has another TMPDIR."""
    with open_store(settings(deep_home), deep_home) as store:
        submit(store, make_job("job-1"))
        path = socket_path(deep_home)
        assert path.parent.parent == Path(tempfile.gettempdir())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        elsewhere = tmp_path / "t"
        elsewhere.mkdir()
        with client(deep_home, TMPDIR=str(elsewhere)) as (other, seen):
            assert seen == str(path)
            assert len(servers(deep_home)) == 1
            leave(other)
    assert not path.parent.exists()


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_socket_folder_that_is_not_private_is_refused(deep_home: Home, tmp_path: Path, kind: str) -> None:
    """A43."""
    folder = Path(tempfile.gettempdir()) / f"tatin-{os.geteuid()}-{deep_home.id()}"
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o755)
    try:
        with pytest.raises(StoreUnavailable, match="is not private"), embedded_server(deep_home):
            pass
    finally:
        folder.unlink() if kind == "a link" else folder.rmdir()


@pytest.mark.parametrize("name", ["with space", "per%20cent", "hash#mark", "what?", "ü"])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / name)
    with open_store(settings(home), home) as store:
        submit(store, make_job("job-1"))
        assert store.job("job-1").id == "job-1"


def test_a_server_that_cannot_start_says_what_its_log_says(home: Home) -> None:
    folder = home.store / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("rubbish\n")
    with pytest.raises(StoreUnavailable, match="does not start") as caught, embedded_server(home):
        pass
    assert caught.value.seen
    assert caught.value.seen != "no log"
    assert servers(home) == []
