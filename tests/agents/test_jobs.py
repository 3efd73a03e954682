"""A whole job with each real agent: the attempt as the worker runs it, in bwrap, against the scripted model server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tatin_jobs.cli.readable import EventStream, event_lines
from tatin_jobs.demo.modelserver import ModelServer
from tatin_jobs.demo.scripts import SCRIPTS
from tatin_jobs.models import Model, Need, Verify
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Outcome, Reason
from tatin_jobs.tools import TOOLS
from tests.support.attempts import Bench, bench
from tests.support.parts import tools_home
from worker.sandboxes.bwrap.provider import BwrapProvider

pytestmark = [pytest.mark.needs("bwrap", "valkey", "git"), pytest.mark.timeout(120)]

VERIFY = Verify(run="grep -q '^| `src/` | ' TOUR.md")


def _fit_out(made: Bench) -> None:
    made.need = Need(cpus=2, memory_mib=3072, disk_mib=2000)
    made.home.tools.rmdir()
    made.home.tools.symlink_to(tools_home() / "tools")


@pytest.mark.parametrize("tool", [pytest.param(name, marks=pytest.mark.needs(name)) for name in TOOLS])
async def test_job_brings_back_what_the_agent_did_said_and_used(tmp_path: Path, tool: str) -> None:
    async with ModelServer(SCRIPTS["demo"]) as server:
        models = {"scripted": ModelProvider(base_url=server.base_url, api="both")}
        with bench(tmp_path, lambda home: BwrapProvider(home, home.id()), models=models) as made:
            _fit_out(made)
            model = Model(name="demo", provider="scripted")
            job, result = await made.run(tool=tool, command=None, model=model, verify=VERIFY, timeout_seconds=90)
            folder = made.job_folder(job)
            live = b"".join(chunk.data for chunk in made.store.read_log(job.id) if chunk.stream == "event")
            assert job.outcome is Outcome.SUCCEEDED, job.message
            assert result.agent.version == TOOLS[tool].version
            assert (result.agent.final_text or "").startswith("I wrote TOUR.md")
            assert (result.usage.turns, result.usage.tool_calls) == (5, 4)
            assert (result.usage.input_tokens or 0) > 1000
            assert result.network is not None
            assert result.network.denied == (), "the tool itself reaches for nothing but its model"
            assert [item.model for item in result.network.reached] == [True]
            assert "TOUR.md" in (folder / "changes.patch").read_text()
            assert any(path.is_file() for path in (folder / "transcript").rglob("*"))
            events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
            said = next(event["text"] for event in events if event["kind"] == "message")
            assert said == "I will look at what is here first."
            shown = [line for event in EventStream().feed(live) for line, _ in event_lines(event)]
            assert shown[0] == "I will look at what is here first."
            assert shown[1].split()[1].lower() == "bash"
            assert not any(line.startswith("{") for line in shown)


@pytest.mark.needs("claude")
async def test_claude_with_a_server_that_speaks_openai_only_is_refused_with_what_to_use(tmp_path: Path) -> None:
    models = {"scripted": ModelProvider(base_url="http://127.0.0.1:1")}
    with bench(tmp_path, lambda home: BwrapProvider(home, home.id()), models=models) as made:
        _fit_out(made)
        job, result = await made.run(tool="claude", command=None, model=Model(name="m", provider="scripted"))
    assert (job.outcome, job.reason) == (Outcome.FAILED, Reason.REFUSED)
    assert "speaks only Anthropic's API" in result.message
    assert "tool: opencode" in result.message
