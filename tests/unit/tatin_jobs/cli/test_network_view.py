"""The network of an attempt, as `tatin show` tells it."""

from __future__ import annotations

from datetime import UTC, datetime

from tatin_jobs.cli.network_view import network_fields
from tatin_jobs.results import AgentFacts, DeniedFacts, NetworkFacts, ReachedFacts, Result, SandboxFacts
from tatin_jobs.states import JobState, Outcome

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def result(network: NetworkFacts | None, warning: str = "") -> Result:
    return Result(
        job="job-1",
        batch="b-1",
        name="job",
        attempt=1,
        state=JobState.FINISHED,
        accepted=True,
        outcome=Outcome.SUCCEEDED,
        worker="w",
        tatin_version="0",
        repo="r",
        created_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        agent=AgentFacts(tool="command"),
        sandbox=SandboxFacts(
            kind="tart",
            name="n",
            separate_kernel=True,
            egress_control=True,
            egress_warning=warning,
            sudo=True,
            cpus=1,
            memory_mib=1,
        ),
        network=network,
    )


def test_what_was_reached_and_what_was_blocked_is_listed() -> None:
    network = NetworkFacts(
        mode="allowlist",
        allow=("pip", "a.example"),
        lists={"pip": ("index.example:443",)},
        reached=(
            ReachedFacts(where="127.0.0.1:11434", connections=2, sent_bytes=2048, received_bytes=10, model=True),
            ReachedFacts(where="index.example:443", connections=1, failed=1, sent_bytes=0, received_bytes=0),
        ),
        denied=(DeniedFacts(where="b.example:443", why="not allowed", times=3),),
    )
    assert list(network_fields(result(network))) == [
        ("network", "allowlist: pip, a.example"),
        ("", "pip stood for index.example:443"),
        ("reached", "127.0.0.1:11434 (model): 2 calls, 2.0 KiB sent, 10 B received"),
        ("", "index.example:443: 1 connection (1 failed), 0 B sent, 0 B received"),
        ("blocked", "b.example:443: not allowed, 3 times"),
    ]


def test_long_lists_end_in_a_count() -> None:
    denied = tuple(DeniedFacts(where=f"h{number}.example:443", why="no network", times=1) for number in range(25))
    fields = list(network_fields(result(NetworkFacts(mode="none", denied=denied))))
    assert len(fields) == 22
    assert fields[-1] == ("", "... and 5 more in result.json")


def test_a_sandbox_that_does_not_keep_its_guest_in_is_told_first() -> None:
    (first,) = network_fields(result(None, "its guests also reach every port of this host"))
    assert first == (
        "! network",
        "not all of the job's rules held in tart: its guests also reach every port of this host",
    )
