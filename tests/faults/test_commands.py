"""Every command on an id that nobody knows or that fits two jobs, on a store of a newer Tatin, and on a Redis that
refuses or hangs: one clear error with what to try, the documented exit code, within seconds, and nothing half-done."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tatin_jobs.cli import COMMANDS, main
from tatin_jobs.store import Store, connect, opening
from tests.faults.harness.servers import Server, server
from tests.support.ports import free_port
from tests.support.stores import client_of, dump, make_job, submit

pytestmark = pytest.mark.needs("valkey", "git")

JOB = "job-unknown1"
WITH_ID: dict[str, list[str]] = {
    "show": ["show", JOB],
    "logs": ["logs", JOB],
    "logs -f": ["logs", "-f", JOB],
    "wait": ["wait", JOB],
    "cancel": ["cancel", JOB],
    "retry": ["retry", JOB],
    "hold": ["hold", JOB],
    "release": ["release", JOB],
    "artifacts": ["artifacts", JOB],
    "diff": ["diff", JOB],
    "report": ["report", JOB],
    "attach": ["attach", JOB],
}
WITHOUT_ID: dict[str, list[str]] = {
    "run": ["run", "job.yaml"],
    "submit": ["submit", "job.yaml"],
    "list": ["list"],
    "report of a day": ["report"],
    "workers": ["workers"],
    "worker": ["worker"],
    "drain": ["drain", "somebody"],
    "prune": ["prune"],
}
EVERY = {**WITH_ID, **WITHOUT_ID}
ASK_NO_STORE = {"up", "ssh", "down", "delete", "status", "image", "schema", "version"}
"""What needs none; ``doctor`` has a test of its own, for it tells of a bad store and goes on."""


def test_every_command_is_in_the_table() -> None:
    assert {arguments[0] for arguments in EVERY.values()} == set(COMMANDS) - ASK_NO_STORE - {"doctor"}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("commands") / "server") as made:
        yield made


@pytest.fixture
def store(valkey: Server) -> Iterator[Store]:
    client = valkey.client()
    client.flushall()
    client.close()
    made = Store(connect(valkey.url))
    made.prepare()
    submit(made, make_job("job-twin1aaaaa"), make_job("job-twin2aaaaa"))
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to call commands from, with a job file; the store is what each test says."""
    for name in [*COMMANDS, "REDIS_URL", "DEBUG"]:
        monkeypatch.delenv(f"TATIN_{name.upper()}", raising=False)
    monkeypatch.setenv("TATIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TATIN_WORKER_NAME", "here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("repo: https://example.invalid/app.git\ntool: command\ncommand: x\nprompt: y\n")
    return tmp_path / "home"


@pytest.fixture
def called(home: Path, store: Store, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands are told of."""
    monkeypatch.setenv("TATIN_REDIS_URL", valkey.url)
    return store


def _told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the error; nothing may be on stdout."""
    code = main(arguments)
    shown = capsys.readouterr()
    assert shown.out == "", "an error is no output"
    assert "Traceback" not in shown.err
    assert "A fault in Tatin itself" not in shown.err
    return code, shown.err


@pytest.mark.parametrize("name", WITH_ID)
def test_an_unknown_id(name: str, home: Path, called: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """F42."""
    before = dump(called)
    code, error = _told(WITH_ID[name], capsys)
    assert code == 2
    assert JOB in error
    assert "tatin list" in error
    assert dump(called) == before


@pytest.mark.parametrize("name", WITH_ID)
def test_an_ambiguous_id(name: str, home: Path, called: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """F42."""
    before = dump(called)
    code, error = _told([part.replace(JOB, "job-twin") for part in WITH_ID[name]], capsys)
    assert code == 2
    assert "job-twin1aaaaa" in error
    assert "job-twin2aaaaa" in error
    assert "write more of it" in error
    assert dump(called) == before


@pytest.mark.parametrize("name", EVERY)
def test_a_store_of_a_newer_tatin(name: str, home: Path, called: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """F12."""
    client_of(called).hset("tatin:meta", "schema", "99")
    before = dump(called)
    code, error = _told(EVERY[name], capsys)
    assert code == 3
    assert "another version of Tatin" in error
    assert dump(called) == before
    assert _blobs(home) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_store_that_refuses(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F21: the address is named without its password, and what to set."""
    monkeypatch.setenv("TATIN_REDIS_URL", f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    code, error = _told(EVERY[name], capsys)
    assert code == 3
    assert "TATIN_REDIS_URL" in error
    assert "hunter2" not in error
    assert _blobs(home) == []


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", EVERY)
def test_a_store_that_hangs(
    name: str, home: Path, silent: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F22: the time limit of a call (5 s) is made short here, and nothing waits for more than one."""
    monkeypatch.setattr(opening, "connect", functools.partial(connect, timeout_seconds=0.2))
    monkeypatch.setenv("TATIN_REDIS_URL", f"redis://127.0.0.1:{silent}/0")
    code, error = _told(EVERY[name], capsys)
    assert code == 3
    assert "Timeout" in error
    assert _blobs(home) == []


@pytest.mark.parametrize("json_wanted", [False, True])
def test_doctor_says_it_of_each_kind(
    json_wanted: bool, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F21, F28: as a finding, beside all others."""
    monkeypatch.setenv("TATIN_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert main(["doctor", *(["--json"] if json_wanted else [])]) == 3
    shown = capsys.readouterr().out
    if json_wanted:
        (row,) = [row for row in json.loads(shown)["findings"] if row["name"] == "store"]
        assert not row["ok"]
        assert "TATIN_REDIS_URL" in row["fix"]
    else:
        assert "✗ store" in shown


def _blobs(home: Path) -> list[str]:
    """What a submit that failed would have left."""
    with suppress(FileNotFoundError):
        return [path.name for path in (home / "blobs").iterdir() if not path.name.startswith(".")]
    return []
