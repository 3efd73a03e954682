"""The adapter of Crush with a STAND-IN for Crush (``tests/support/stand_in_crush.py``), which cannot be had here, in
bwrap; and one test that wants the real one.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tatin_jobs.states import Outcome, Reason
from tatin_jobs.tools import TOOLS
from tests.support import stand_in_crush
from tests.support.agents import AgentBench, agent_bench
from tests.support.model_route import KEY

pytestmark = [pytest.mark.needs("bwrap", "git"), pytest.mark.timeout(60)]


def install_stand_in(folder: Path) -> Home:
    """A home whose Crush is the stand-in."""
    home = Home(folder / "tools-home")
    home.prepare()
    program = home.tools / "crush" / TOOLS["crush"].version / TOOLS["crush"].program
    program.parent.mkdir(parents=True)
    shutil.copy(stand_in_crush.__file__, program)
    for path in (*program.parents[:3], program):
        path.chmod(0o755)
    return home


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[AgentBench]:
    async with agent_bench("crush", tmp_path, tools=install_stand_in(tmp_path)) as made:
        yield made


async def test_stand_in_works_tells_what_it_did_and_leaves_its_session(bench: AgentBench) -> None:
    prompt = "/help -v '\"$(id)`\n" + "é" * 500_000 + "\nTHE-END"
    ran = await bench.run("hello", prompt=prompt)
    assert ran.verdict is not None
    assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
    assert ran.verdict.final_text == "All done: the file was written."
    assert [event.kind for event in ran.events] == ["message", "usage", "tool_call", "tool_result", "usage", "final"]
    call = ran.events[2]
    assert (call.text, call.data["name"]) == ("echo hello > hello.txt", "bash")
    assert await bench.shell("git status --short") == "?? hello.txt\n", "nothing else was written into the repository"
    assert bench.server.requests[0].body["messages"][0]["content"] == prompt, "a megabyte, byte for byte"
    assert await bench.shell(f"grep -c hello.txt {ran.transcripts[0]}/stand-in.json") == "1\n"
    assert await bench.shell(f"grep -rl {KEY} /home/agent /run/tatin /tmp || true") == "", "the key is in the guest"


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        ("fail-401", Reason.AUTH, "Incorrect API key"),
        ("fail-404", Reason.PROVIDER, "The model does not exist"),
        ("fail-429", Reason.QUOTA, "Rate limit reached"),
        ("fail-context", Reason.AGENT, "maximum context length"),
        ("fail-no-text", Reason.AGENT, "gave no final answer"),
    ],
)
async def test_failure_of_the_model_is_told(bench: AgentBench, model: str, reason: Reason, said: str) -> None:
    ran = await bench.run(model)
    assert ran.verdict is not None
    assert (ran.verdict.outcome, ran.verdict.reason) == (Outcome.FAILED, reason), ran.verdict
    assert said in ran.verdict.message


@pytest.mark.needs("crush")
async def test_real_crush_does_its_work(tmp_path: Path) -> None:
    async with agent_bench("crush", tmp_path) as bench:
        ran = await bench.run("hello")
        assert ran.verdict is not None
        assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
        assert "tool_call" in ran.kinds()
