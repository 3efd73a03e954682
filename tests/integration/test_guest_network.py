"""The network of a whole attempt: what each step reaches, what its programs are told, what result and log say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.models import InputFile, Job, Network, NetworkPolicy, Verify
from tatin_jobs.results import DeniedFacts
from tatin_jobs.states import Outcome, Reason
from tests.support.attempts import Bench, bench, make_repository
from tests.support.egress import host, http_answer
from tests.support.git_server import git_server
from tests.support.registry import registry
from tests.support.wait import until
from worker.control import Control, Stop
from worker.sandboxes.base import GUEST_WORK
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.fake import FakeProvider

pytestmark = pytest.mark.needs("bwrap", "git", "valkey")

FETCH = """python3 -c '
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.reason)
' """
"""A shell line that fetches an address as most programs would."""


def _bench(tmp_path: Path, **gateway: Any) -> Any:
    gateway.setdefault("trusted_networks", ["127.0.0.0/8"])
    return bench(tmp_path, lambda home: BwrapProvider(home, home.id()), gateway=gateway)


@pytest.fixture
def bench_(tmp_path: Path) -> Iterator[Bench]:
    with _bench(tmp_path) as made:
        yield made


def _allow(*rules: str) -> NetworkPolicy:
    return NetworkPolicy(mode="allowlist", allow=rules)


def _told(made: Bench, job: Job) -> str:
    chunks = made.store.read_log(job.id)
    return b"".join(chunk.data for chunk in chunks if chunk.stream == "tatin").decode()


async def test_a_job_reaches_what_it_allows_and_nothing_else(bench_: Bench) -> None:
    async with host(http_answer(b"the page"), address="127.0.0.2") as there:
        command = f"{FETCH} http://{there.where}/; {FETCH} http://other.example/"
        job, result = await bench_.run(command=command, network=Network(mode="allowlist", allow=(there.where,)))
    assert (bench_.job_folder(job) / "agent.log").read_text() == "the page\n403 Blocked by Tatin\n"
    assert result.network is not None
    (reached,) = result.network.reached
    assert (reached.where, reached.connections, reached.failed, reached.received_bytes) == (there.where, 1, 0, 8)
    assert result.network.denied == (DeniedFacts(where="other.example:80", why="not allowed", times=1),)
    assert job.summary is not None
    assert job.summary.blocked == 1
    assert "blocked: other.example:80 (not allowed); to allow it, add to network.allow" in _told(bench_, job)
    assert "blocked: other.example:80" in (bench_.job_folder(job) / "events.jsonl").read_text()


async def test_a_job_that_says_nothing_of_a_network_is_told_how_to_get_one(bench_: Bench) -> None:
    job, result = await bench_.run(command=f"{FETCH} http://docs.example.com/")
    assert (bench_.job_folder(job) / "agent.log").read_text() == "403 Blocked by Tatin\n"
    assert "write in the job: network: {allow: ['docs.example.com:80']}" in _told(bench_, job)
    assert result.network is not None
    assert (result.network.mode, result.network.reached) == ("none", ())


async def test_each_step_has_its_own_policy(bench_: Bench) -> None:
    async with host(http_answer(b"reached"), address="127.0.0.2") as there:
        line = f"{FETCH} http://{there.where}/"
        network = Network(setup=_allow(there.where), verify=NetworkPolicy(mode="open"))
        job, _ = await bench_.run(setup=line, command=line, verify=Verify(run=line), network=network)
    folder = bench_.job_folder(job)
    said = [(folder / name).read_text() for name in ("setup/output.log", "agent.log", "verify/output.log")]
    assert said == ["reached\n", "403 Blocked by Tatin\n", "reached\n"]


async def test_a_second_sandbox_for_verify_has_its_network_too(bench_: Bench) -> None:
    async with host(http_answer(b"reached"), address="127.0.0.2") as there:
        line = f"echo done > done.txt; {FETCH} http://{there.where}/"
        network = Network(verify=_allow(there.where))
        job, result = await bench_.run(command=line, verify=Verify(run=line, where="fresh"), network=network)
    folder = bench_.job_folder(job)
    assert (folder / "agent.log").read_text() == "403 Blocked by Tatin\n"
    assert (folder / "verify" / "output.log").read_text() == "reached\n"
    assert result.network is not None
    assert [item.why for item in result.network.denied] == ["no network"]


async def test_a_private_address_is_refused_whatever_a_job_allows(tmp_path: Path) -> None:
    """A27: the settings of the worker decide."""
    async with host(stay=True, address="127.0.0.2") as there:
        with _bench(tmp_path, trusted_networks=[]) as made:
            job, _ = await made.run(command=f"{FETCH} http://{there.where}/", network=Network(mode="open"))
            assert (made.job_folder(job) / "agent.log").read_text() == "403 Blocked by Tatin\n"
            assert 'under [gateway]: trusted_networks = ["127.0.0.2/32"]' in _told(made, job)
        assert there.connections == 0


async def test_the_variables_of_the_job_go_before_ours_but_the_model_is_never_behind_the_proxy(bench_: Bench) -> None:
    command = 'echo "$HTTPS_PROXY $https_proxy $NO_PROXY $no_proxy"'
    job, _ = await bench_.run(command=command, env={"HTTPS_PROXY": "http://own:1", "NO_PROXY": "own"})
    said = (bench_.job_folder(job) / "agent.log").read_text()
    assert said == "http://own:1 http://127.0.0.1:4018 own,127.0.0.1,localhost 127.0.0.1,localhost\n"


async def test_an_input_can_say_where_a_tool_fetches_from(bench_: Bench) -> None:
    """It is there before the tool is asked what its list stands for."""
    config = b"[global]\nindex-url = https://packages.example/simple\n"
    blob = bench_.context.blobs.add_bytes(config)
    _, result = await bench_.run(
        inputs=(InputFile(name="pip.conf", blob=blob, size_bytes=len(config)),),
        env={"PIP_CONFIG_FILE": f"{GUEST_WORK}/pip.conf"},
        network=Network(mode="allowlist", allow=("pip",)),
    )
    assert result.network is not None
    assert result.network.lists["pip"] == ("packages.example:443",)


async def test_a_lost_lease_ends_the_network(bench_: Bench) -> None:
    """A78: an attempt that is no longer the newest reaches nothing any more."""
    sender = """
import socket, time
link = socket.create_connection(("127.0.0.1", 4018))
link.sendall(b"CONNECT {0} HTTP/1.1\\r\\nHost: {0}\\r\\n\\r\\n")
while True:
    link.sendall(b"x")
    time.sleep(0.01)
"""
    control = Control()
    async with host(until=b"never") as there:
        blob = bench_.context.blobs.add_bytes(sender.replace("{0}", there.where).encode())
        inputs = (InputFile(name="sender.py", blob=blob, size_bytes=len(sender)),)
        network = Network(mode="allowlist", allow=(there.where,))
        running = asyncio.create_task(
            bench_.run(control, command="python3 ../sender.py", inputs=inputs, network=network)
        )
        await asyncio.to_thread(until, lambda: len(there.got) > 3, timeout=30)
        control.interrupt(Stop.LOST, "a newer attempt holds the job")
        await running
        size = len(there.got)
        await asyncio.sleep(0.1)
        assert len(there.got) == size


async def test_lists_are_asked_of_the_tools_with_what_the_job_sets(bench_: Bench) -> None:
    """The tools' own answers: here pip's, set up by the job's own variables, git's, and of a tool that is not there."""
    env = {"PIP_INDEX_URL": "https://packages.example/simple", "PIP_EXTRA_INDEX_URL": "http://more.example:8081/x"}
    network = Network(mode="allowlist", allow=("pip", "git", "go"))
    job, result = await bench_.run(env=env, network=network)
    assert result.network is not None
    assert set(result.network.lists["pip"]) == {"packages.example:443", "more.example:8081"}
    assert result.network.lists["go"] == ()
    told = _told(bench_, job)
    assert "allow go allows nothing: there is no go in the sandbox" in told
    assert "allow git allows nothing: the job's repository has no address" in told


async def test_git_clones_through_the_gateway(bench_: Bench, tmp_path: Path) -> None:
    """From a real git server, which is on loopback: git goes there itself unless it is told not to."""
    make_repository(tmp_path / "served" / "repo")
    with git_server(tmp_path / "served") as server:
        line = f"env -u NO_PROXY -u no_proxy git clone --quiet {server.url()} ../clone && ls ../clone"
        network = Network(mode="allowlist", allow=(f"127.0.0.1:{server.port}",))
        job, result = await bench_.run(command=line, network=network)
    assert "README.md" in (bench_.job_folder(job) / "agent.log").read_text()
    assert result.network is not None
    assert result.network.reached[0].received_bytes > 100


async def test_a_certificate_of_the_settings_is_in_every_guest(tmp_path: Path) -> None:
    pem = _certificate()
    (tmp_path / "ca.pem").write_text(pem)
    with _bench(tmp_path, ca_certificate=tmp_path / "ca.pem") as made:
        names = "SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CURL_CA_BUNDLE NODE_EXTRA_CA_CERTS"
        job, _ = await made.run(
            command=f'for name in {names}; do eval "tail -n 1 \\"\\$$name\\""; done; cat $SSL_CERT_FILE'
        )
        said = (made.job_folder(job) / "agent.log").read_text()
    assert said.splitlines()[:6] == ["-----END CERTIFICATE-----"] * 6
    assert said.endswith(pem)
    assert said.count("BEGIN CERTIFICATE") > 2, "the guest's own are there as well"


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_certificate_that_cannot_be_used_ends_the_attempt_and_says_so(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "ca.pem").write_text(text)
    with _bench(tmp_path, ca_certificate=tmp_path / "ca.pem") as made:
        job, _ = await made.run()
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.WORKER)
    assert "ca.pem' of this worker's settings cannot be used" in job.message


async def test_where_nothing_keeps_a_guest_in_the_result_says_so(tmp_path: Path) -> None:
    with bench(tmp_path, lambda home: FakeProvider(home.sandboxes, home.id())) as made:
        _, result = await made.run()
    assert result.sandbox is not None
    assert result.sandbox.egress_warning == "its guests also reach every network that their host reaches"


INSTALL = """
python3 -m venv ../venv
../venv/bin/pip install --quiet --disable-pip-version-check --retries 0 six
../venv/bin/python -c 'import six; print("installed")'
git ls-remote https://other.example/app.git
"""
TRY_TO_INSTALL = """
wheels="$(python3 -c 'import ensurepip; print(ensurepip.__path__[0])')/_bundled /usr/share/python-wheels"
python3 "$(find $wheels -name 'pip-*.whl' | tail -n 1)/pip" install --retries 0 --target ../packages six || echo refused
"""
"""The pip that every Python brings along, without an environment: making one takes longer than the rest."""


@pytest.mark.needs("registry")
async def test_a_package_is_installed_and_everything_else_is_refused(tmp_path: Path) -> None:
    """The real pip, and the registry that this machine's pip is set up to use."""
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id()), gateway=registry().settings.model_dump()) as made:
        network = Network(mode="allowlist", allow=("pip",))
        job, result = await made.run(command=INSTALL, network=network, timeout_seconds=120)
        said = (made.job_folder(job) / "agent.log").read_text()
    assert "installed" in said
    assert "403" in said
    assert result.network is not None
    assert result.network.reached
    assert {item.where for item in result.network.reached} <= set(result.network.lists["pip"])
    assert [item.where for item in result.network.denied] == ["other.example:443"]


@pytest.mark.needs("registry")
async def test_a_registry_at_a_private_address_is_refused_without_the_settings(tmp_path: Path) -> None:
    """A27: the same install, by a worker whose settings trust nothing but what is public."""
    if registry().is_public:
        pytest.skip("this machine finds its registry at a public address")
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id())) as made:
        network = Network(mode="allowlist", allow=("pip",))
        job, result = await made.run(command=TRY_TO_INSTALL, network=network, timeout_seconds=120)
        assert (made.job_folder(job) / "agent.log").read_text().endswith("refused\n")
    assert result.network is not None
    assert result.network.reached == ()
    assert "private address" in [item.why for item in result.network.denied]


def _certificate() -> str:
    """A real one: the first of this machine's own."""
    whole = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    return whole[: whole.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
