"""The egress gateway in front of a virtual machine: real package managers of the image, the registries that this
machine uses, and everything else refused, to root too."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
import pytest

from tatin_jobs.home import Home
from tatin_jobs.models import Job, Network, NetworkPolicy, Verify
from tatin_jobs.results import NetworkFacts, Result
from tatin_jobs.states import Outcome
from tests.support.attempts import Bench
from tests.support.registry import registry
from tests.vms.benches import vm_bench
from worker.guest_network import PROXY
from worker.sandboxes.base import Sandbox
from worker.sandboxes.qemu.sandbox import QemuSandbox

pytestmark = [pytest.mark.needs("git", "valkey"), pytest.mark.timeout(900)]

PIP = "pip download --quiet --disable-pip-version-check --retries 0 --no-deps --dest /tmp/got six"
CURL = "curl --silent --show-error --max-time 60"
TRIES = {
    "pip": PIP,
    "npm": "npm view --fetch-retries=0 left-pad version",
    "pip of root": f"sudo -n {PIP}",
    "elsewhere": f"{CURL} https://elsewhere.example/",
}


def _trying(*names: str) -> str:
    """A shell line that says of each whether it came through; what they print goes to the log of errors."""
    return "; ".join(f"if {TRIES[name]} >&2; then echo '{name}: yes'; else echo '{name}: no'; fi" for name in names)


def _said(made: Bench, job: Job, name: str) -> dict[str, str]:
    lines = (made.job_folder(job) / name).read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line.endswith((": yes", ": no")))


def _network(result: Result) -> NetworkFacts:
    assert result.network is not None
    return result.network


@pytest.mark.needs("registry")
async def test_a_job_gets_packages_by_the_lists_of_the_images_tools_and_nothing_else(
    vm_homes: tuple[Home, Home], tmp_path: Path
) -> None:
    """pip alone in setup, pip and npm for the agent, nothing in verify; and the result has the evidence."""
    network = Network(
        mode="allowlist",
        allow=("pip", "npm"),
        setup=NetworkPolicy(mode="allowlist", allow=("pip",)),
        verify=NetworkPolicy(mode="none"),
    )
    address = next(text for text in registry().addresses if ":" not in text)
    past = f"if {CURL} --insecure --noproxy '*' https://{address}/ >&2; then echo 'past it: yes'; fi"
    with vm_bench(tmp_path, vm_homes[1], gateway=registry().settings.model_dump()) as made:
        job, result = await made.run(
            setup=_trying("pip", "npm"),
            command=f"{_trying(*TRIES)}; {past}",
            verify=Verify(run=_trying("pip", "elsewhere")),
            network=network,
            timeout_seconds=500,
        )
        assert job.outcome is Outcome.SUCCEEDED, job.message
        setup, agent, verify = (
            _said(made, job, name) for name in ("setup/output.log", "agent.log", "verify/output.log")
        )
    assert setup == {"pip": "yes", "npm": "no"}
    assert agent == {"pip": "yes", "npm": "yes", "pip of root": "yes", "elsewhere": "no"}
    assert verify == {"pip": "no", "elsewhere": "no"}
    found = _network(result)
    assert set(found.lists) == {"pip", "npm"}
    allowed = {where for hosts in found.lists.values() for where in hosts}
    reached = {item.where: item for item in found.reached}
    assert set(reached) <= allowed
    for tool in ("pip", "npm"):
        assert [where for where in found.lists[tool] if where in reached and reached[where].received_bytes > 1000]
    refused = {(item.where, item.why) for item in found.denied}
    assert ("elsewhere.example:443", "not allowed") in refused
    assert ("elsewhere.example:443", "no network") in refused, "in verify"
    assert {where for where, _ in refused} <= {"elsewhere.example:443"} | allowed


_REACH = """
import json, socket, sys, threading
reached = []
def reach(host, port):
    try:
        socket.create_connection((host, port), 5).close()
        reached.append(f"{host} {port}")
    except OSError:
        pass
threads = [threading.Thread(target=reach, args=place) for place in json.loads(sys.argv[1])]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("reached", json.dumps(reached))
"""


async def test_a_job_without_a_network_reaches_neither_host_nor_neighbour(
    sandbox: Sandbox, vm_homes: tuple[Home, Home], tmp_path: Path
) -> None:
    """A42, A50, A51: the host's ports under every address that it has for itself and for its guests, metadata, and the
    way in of another machine that runs beside it; by root, past the gateway and through it."""
    assert isinstance(sandbox, QemuSandbox)
    own = {item.address for items in psutil.net_if_addrs().values() for item in items if item.family == socket.AF_INET}
    with socket.create_server(("0.0.0.0", 0)) as listener:
        ports = [listener.getsockname()[1], sandbox.link.endpoint.port]
        places = [(host, port) for host in ("10.0.2.2", "10.0.2.3", *sorted(own - {"127.0.0.1"})) for port in ports]
        places += [("169.254.169.254", 80), ("10.0.2.16", 22), ("127.0.0.1", listener.getsockname()[1])]
        for _, port in places[:2]:
            socket.create_connection(("127.0.0.1", port), 2).close()  # the host reaches them, so the probe could
        with vm_bench(tmp_path, vm_homes[1]) as made:
            through = f"curl --silent --output /dev/null --write-out '%{{http_code}} ' --noproxy '' --proxy {PROXY}"
            urls = " ".join(f"http://{host}:{port}/" for host, port in places)
            line = f"sudo -n python3 -c '{_REACH}' '{json.dumps(places)}'; for u in {urls}; do {through} $u; done"
            job, result = await made.run(command=line, timeout_seconds=300)
            log = (made.job_folder(job) / "agent.log").read_text().splitlines()
    assert log[0] == "reached []"
    assert set(log[1].split()) == {"403"}
    found = _network(result)
    assert (found.mode, found.reached) == ("none", ())
    assert {item.why for item in found.denied} == {"no network"}
