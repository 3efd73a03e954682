"""Pi's plan, and its reader on what the real one printed (``tests/recordings/pi``)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.states import Outcome, Reason
from tests.support.replay import RECORDINGS, replay
from worker.agents.base import AgentPlan, AgentTask, Api, ModelRoute
from worker.agents.pi import PiAdapter, PiReader

TOKEN = "token-of-the-attempt"


def plan(api: Api = "openai", provider: str = "ollama", context: int | None = None, **fields: Any) -> AgentPlan:
    config = fields.pop("config", {})
    spec = JobSpec(name="a", repo=Repo(path="."), tool="pi", prompt="p", model=Model(name="m"), **fields)
    route = ModelRoute("http://127.0.0.1:4017", TOKEN, "qwen3:30b", provider, api, context_tokens=context)
    home = "/home/agent"
    return PiAdapter().plan(AgentTask("a-1", spec, "/p.txt", f"{home}/work/repo", home, route, b"", config))


def loaded(made: AgentPlan, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.files[f"/home/agent/.pi/agent/{name}.json"])
    return found


def test_plan_runs_it_headless_with_the_prompt_on_stdin() -> None:
    made = plan(args=("--thinking", "high"))
    assert made.argv == [
        *("pi", "-p", "--mode", "json", "--provider", "tatin", "--model", "qwen3:30b"),
        *("--no-extensions", "--no-skills", "--no-prompt-templates", "--thinking", "high"),
    ]
    assert made.stdin_path == "/p.txt"
    assert made.env["PI_OFFLINE"] == "1"
    assert made.transcript_paths == ["/home/agent/.pi/agent/sessions"]


@pytest.mark.parametrize(
    ("api", "name", "address"),
    [
        ("openai", "openai-completions", "http://127.0.0.1:4017/v1"),
        ("anthropic", "anthropic-messages", "http://127.0.0.1:4017"),
    ],
)
def test_its_one_provider_is_the_route(api: Api, name: str, address: str) -> None:
    providers = loaded(plan(api), "models")["providers"]
    assert list(providers) == ["tatin"]
    provider = providers["tatin"]
    assert (provider["api"], provider["baseUrl"], provider["apiKey"]) == (name, address, "$TATIN_MODEL_TOKEN")
    assert provider["models"] == [{"id": "qwen3:30b", "name": "qwen3:30b"}]


def test_compatibility_is_asked_for_where_the_server_may_lack_something() -> None:
    compat = loaded(plan(), "models")["providers"]["tatin"]["compat"]
    assert compat == {"supportsDeveloperRole": False, "supportsReasoningEffort": False}
    assert loaded(plan(provider="openai"), "models")["providers"]["tatin"]["compat"]["supportsReasoningEffort"] is True
    assert "compat" not in loaded(plan("anthropic"), "models")["providers"]["tatin"]


def test_known_context_is_told() -> None:
    (model,) = loaded(plan(context=32_768), "models")["providers"]["tatin"]["models"]
    assert (model["contextWindow"], model["maxTokens"]) == (32_768, 8192)


def test_users_own_settings_are_kept_where_they_do_not_stand_in_the_way() -> None:
    theirs = {"retry": {"maxRetries": 9, "provider": {"maxRetries": 1}}, "defaultModel": "x", "theme": "dark"}
    made = loaded(plan(config=theirs, idle_timeout_seconds=60), "settings")
    assert made["retry"] == {"maxRetries": 9, "provider": {"maxRetries": 1, "timeoutMs": 660_000}}
    assert (made["defaultModel"], made["theme"], made["enableInstallTelemetry"]) == ("qwen3:30b", "dark", False)


@pytest.mark.parametrize(
    ("recording", "exit_status", "reason", "message"),
    [
        ("401", 0, Reason.AUTH, "Incorrect API key"),
        ("404", 0, Reason.PROVIDER, "The model does not exist"),
        ("429", 0, Reason.QUOTA, "Rate limit reached"),
        ("quota", 0, Reason.QUOTA, "You exceeded your current quota"),
        ("500", 0, Reason.PROVIDER, "The server had an error"),
        ("context", 0, Reason.AGENT, "maximum context length"),
        ("length", 0, Reason.AGENT, "reached its output limit"),
        ("no-text", 0, Reason.AGENT, "gave no final answer"),
        ("html", 0, Reason.PROVIDER, "answered with a web page"),
        ("empty", 0, Reason.PROVIDER, "answered with nothing"),
        ("bad-json", 0, Reason.PROVIDER, "malformed server-sent event"),
        ("cut", 0, Reason.PROVIDER, "other side closed"),
        ("unfinished", 0, Reason.PROVIDER, "other side closed"),
        ("error", 0, Reason.PROVIDER, "Overloaded"),
        ("well-done", 143, Reason.AGENT, "was killed by signal 15"),
    ],
)
def test_failure_has_its_reason_though_it_exits_with_0(
    recording: str, exit_status: int, reason: Reason, message: str
) -> None:
    _, verdict = replay("pi", recording, exit_status)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, reason)
    assert message in verdict.message


@pytest.mark.parametrize(("recording", "turns"), [("well-done", 5), ("messages-api", 2), ("retried", 5)])
def test_run_that_did_its_work_succeeded_with_its_last_text(recording: str, turns: int) -> None:
    events, verdict = replay("pi", recording, 0)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert verdict.final_text
    kinds = Counter(event.kind for event in events)
    assert kinds["usage"] == turns
    assert kinds["tool_call"] == kinds["tool_result"] == turns - 1
    assert kinds["retry"] == kinds["error"] == (recording == "retried")
    assert events[-1].kind == "final"
    figures = [event.data for event in events if event.kind == "usage"]
    assert all(figure["input_tokens"] > 100 and figure["output_tokens"] > 0 for figure in figures)
    assert all("cost_usd" not in figure for figure in figures), "no price is known, so none is claimed"


def test_thought_and_a_failed_tool_are_told() -> None:
    events, _ = replay("pi", "thinking", 0)
    assert "The user wants a file." in [event.text for event in events if event.kind == "reasoning"]
    (result,) = [event for event in events if event.kind == "tool_result"]
    assert result.data["failed"] is True
    (call,) = [event for event in events if event.kind == "tool_call"]
    assert (call.data["name"], call.text) == ("bash", "echo hello > hello.txt; exit 3")


def test_it_is_finished_when_it_has_settled() -> None:
    reader = PiReader()
    lines = (RECORDINGS / "pi/well-done.jsonl").read_bytes().splitlines(keepends=True)
    reader.feed(b"".join(lines[:-1]))
    assert not reader.finished
    reader.feed(lines[-1])
    assert reader.finished
