"""The real OpenCode CLI in a bwrap sandbox, talking through ``serve`` and the model route to the scripted model server.

Its slow failures (it retries silently for a minute) are in ``tests/recordings/opencode`` and read by the unit tests;
here are only those that end at once, or that Tatin ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tatin_jobs.demo.modelserver import ModelServer
from tatin_jobs.demo.scripts import SCRIPTS
from tatin_jobs.home import Home
from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Outcome, Reason
from tatin_jobs.tools import find_tool
from tests.support.model_route import KEY, TOKEN, key_file
from tests.support.parts import tools_home
from worker.agents import adapter
from worker.agents.base import AgentEvent, AgentTask, ModelRoute, Verdict
from worker.followed import Followed, run_followed
from worker.gateway import ModelGateway, RouteUsage
from worker.sandboxes.base import (
    GUEST_HOME,
    GUEST_REPO,
    GUEST_RUN,
    RunChunk,
    Sandbox,
    SandboxSpec,
    StartSpec,
    ToolMount,
)
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.transfer import push_files

pytestmark = [pytest.mark.needs("bwrap", "opencode", "git"), pytest.mark.timeout(180)]

HOME_ID = "0a1b2c3d"
PORT = 4017
REPOSITORY = """
set -e
git init --quiet
printf '# Small\\n\\nA small one.\\n' > README.md
mkdir src .opencode
echo 'print(1)' > src/a.py
echo 'Always mention the word SENTINEL.' > AGENTS.md
echo '{}' > .opencode/opencode.json
echo '{"provider": {"tatin": {"options": {"baseURL": "http://127.0.0.1:1"}}}, "agent": {"build": {"prompt": "EVIL"}}}' \
  > opencode.json
git add -A
git -c user.name=a -c user.email=a@b commit --quiet -m First
"""


@dataclass
class Ran:
    """A run of OpenCode that has ended."""

    verdict: Verdict | None
    """None when it was ended from outside."""
    followed: Followed
    events: list[AgentEvent]
    usage: RouteUsage
    output: bytes
    transcripts: tuple[str, ...]


class Bench:
    """One sandbox with a repository in it."""

    def __init__(self, sandbox: Sandbox, server: ModelServer, provider: ModelProvider) -> None:
        self.sandbox = sandbox
        self.server = server
        self._provider = provider

    async def shell(self, line: str, cwd: str = GUEST_REPO) -> str:
        """What the line prints; it must end well."""
        done = await self.sandbox.run(["sh", "-c", line], cwd=cwd)
        assert done.exit_status == 0, done.stderr
        return done.stdout.decode()

    async def run(self, model: str, *, prompt: str = "Task:\nWrite TOUR.md.", idle_seconds: int = 60) -> Ran:
        """What the runner does in its step ``agent``."""
        spec = JobSpec(
            name="tour",
            repo=Repo(path="."),
            tool="opencode",
            model=Model(name=model),
            idle_timeout_seconds=idle_seconds,
        )
        assert spec.model is not None
        route = ModelRoute(f"http://127.0.0.1:{PORT}", TOKEN, model, "scripted")
        opencode = adapter("opencode")
        plan = opencode.plan(AgentTask("tour-1", spec, f"{GUEST_RUN}/prompt.txt", GUEST_REPO, GUEST_HOME, route))
        reader, events, output, stderr = opencode.reader(), [], bytearray(), bytearray()

        def read(chunk: RunChunk) -> None:
            if chunk.stream == "stdout":
                output.extend(chunk.data)
                events.extend(reader.feed(chunk.data))
            else:
                stderr.extend(chunk.data)

        async with ModelGateway(self._provider, spec.model, TOKEN) as gateway:
            await self.sandbox.serve(PORT, gateway.protocol)
            await push_files(self.sandbox, {f"{GUEST_RUN}/prompt.txt": prompt.encode(), **plan.files})
            followed = await run_followed(
                self.sandbox,
                StartSpec(
                    argv=plan.argv, env=plan.env, cwd=GUEST_REPO, stdin_path=plan.stdin_path, timeout_seconds=150
                ),
                read,
                idle_seconds=idle_seconds,
                other_activity=lambda: gateway.usage.last_activity,
            )
            await self.sandbox.kill_all()
        verdict = None
        if followed.exit_status is not None and not followed.stalled:
            verdict = reader.verdict(followed.exit_status, bytes(stderr), True)
        return Ran(verdict, followed, events, gateway.usage, bytes(output), tuple(plan.transcript_paths))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    home = Home(tmp_path / "home")
    home.prepare()
    tool = find_tool(Home(tools_home()), "opencode")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ModelServer(SCRIPTS["demo"], key=KEY))
        bwrap = BwrapProvider(home, HOME_ID)
        spec = SandboxSpec(
            name=f"tatin-{HOME_ID}-opencode-1",
            cpus=2,
            memory_mib=3072,
            disk_mib=2000,
            tools=(ToolMount(tool.folder, tool.guest_folder),),
        )
        sandbox = await bwrap.create(spec)
        stack.push_async_callback(bwrap.destroy, spec.name)
        made = Bench(sandbox, server, ModelProvider(base_url=server.base_url, key_file=key_file(tmp_path)))
        await made.shell(f"mkdir -p {GUEST_REPO}", GUEST_HOME)
        await made.shell(REPOSITORY)
        yield made


async def test_demo_writes_its_tour_and_leaves_a_transcript(bench: Bench) -> None:
    ran = await bench.run("demo", prompt="Task:\n/help -v '\"$(id)`\n" + "é" * 100_000 + "\nTHE-END")
    assert ran.verdict is not None
    assert ran.verdict.outcome is Outcome.SUCCEEDED, ran.verdict
    assert ran.verdict.final_text is not None
    assert "| `src/` | 1 | 1 |" in ran.verdict.final_text
    assert "| `src/` | 1 | 1 |" in await bench.shell("cat TOUR.md")
    assert await bench.shell("git status --short") == "?? TOUR.md\n", "nothing else was written into the repository"
    assert ran.usage.calls == sum(event.kind == "usage" for event in ran.events) == 5
    assert ran.usage.errors == {}
    assert ran.usage.refused == 0
    asked = [request.body for request in bench.server.requests]
    assert all("SENTINEL" in str(body) for body in asked), "AGENTS.md was read"
    assert not any("EVIL" in str(body) for body in asked), "the repository's configuration was read"
    user = next(message for message in asked[0]["messages"] if message["role"] == "user")
    assert "/help -v '\"$(id)`\n" in str(user["content"]).replace("\\n", "\n")
    assert str(user["content"]).count("é") == 100_000
    assert {request.headers["Authorization"] for request in bench.server.requests} == {f"Bearer {KEY}"}
    kept = (await bench.shell(f"ls {' '.join(ran.transcripts)}")).split()
    assert ran.transcripts[0] in kept
    found = await bench.shell("grep -c 'A tour of this repository' $(ls " + " ".join(ran.transcripts) + ")")
    assert any(not line.endswith(":0") for line in found.splitlines()), "the transcript holds the session"
    assert await bench.shell(f"grep -rl {KEY} /home/agent /run/tatin /tmp || true") == "", "the key is in the guest"
    assert await bench.shell("grep -rl SENTINEL /home/agent || true") != "", "that search can find something"


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        ("fail-401", Reason.AUTH, "401"),
        ("fail-length", Reason.AGENT, "output limit"),
        ("fail-no-text", Reason.AGENT, "no final answer"),
        ("fail-bad-json", Reason.PROVIDER, "JSON"),
        ("fail-context", Reason.AGENT, "ContextOverflowError"),
    ],
)
async def test_failure_of_the_model_is_told(bench: Bench, model: str, reason: Reason, said: str) -> None:
    ran = await bench.run(model)
    assert ran.verdict is not None
    assert (ran.verdict.outcome, ran.verdict.reason) == (Outcome.FAILED, reason)
    assert said in ran.verdict.message


@pytest.mark.parametrize(("model", "reason"), [("fail-hang", Reason.PROVIDER), ("fail-quota", Reason.QUOTA)])
async def test_agent_that_waits_for_its_model_is_stopped_and_the_model_blamed(
    bench: Bench, model: str, reason: Reason
) -> None:
    """OpenCode itself would wait for minutes (headers that never come) or an hour (``Retry-After: 3600``)."""
    ran = await bench.run(model, idle_seconds=15)
    assert ran.followed.stalled
    assert ran.usage.calls == 1, "it did not give up the call before it was stopped"
    blamed = ran.usage.blame(stalled=True)
    assert blamed is not None
    assert blamed[0] is reason
