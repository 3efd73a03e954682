"""Crush's plan, and its reader on what its source says that it prints (the recording is of the stand-in)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.states import Outcome, Reason
from tests.support.replay import RECORDINGS
from worker.agents.base import AgentTask, Api, ModelRoute
from worker.agents.crush import SESSION_MARK, CrushAdapter, CrushReader

WELL_DONE = (RECORDINGS / "crush/well-done.txt").read_bytes()


def config(api: Api = "openai", context: int | None = None, theirs: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = JobSpec(name="a", repo=Repo(path="."), tool="crush", prompt="p", model=Model(name="m"))
    route = ModelRoute("http://127.0.0.1:4017", "token", "qwen3", "ollama", api, context_tokens=context)
    task = AgentTask("a-1", spec, "/p.txt", "/home/agent/work/repo", "/home/agent", route, b"", theirs or {})
    made: dict[str, Any] = json.loads(CrushAdapter().plan(task).files["/home/agent/.config/crush/crush.json"])
    return made


@pytest.mark.parametrize(
    ("api", "kind", "address"),
    [("openai", "openai-compat", "http://127.0.0.1:4017/v1"), ("anthropic", "anthropic", "http://127.0.0.1:4017")],
)
def test_its_one_provider_is_the_route(api: Api, kind: str, address: str) -> None:
    made = config(api)
    provider = made["providers"]["tatin"]
    assert (provider["type"], provider["base_url"], provider["api_key"]) == (kind, address, "$TATIN_MODEL_TOKEN")
    assert {chosen["model"] for chosen in made["models"].values()} == {"qwen3"}
    assert made["options"]["disable_metrics"] is True


def test_known_context_and_the_users_own_configuration_are_in_it() -> None:
    made = config(context=32_768, theirs={"mcp": {"x": {}}, "options": {"disable_metrics": False, "debug": True}})
    (model,) = made["providers"]["tatin"]["models"]
    assert (model["context_window"], model["default_max_tokens"]) == (32_768, 8192)
    assert made["mcp"] == {"x": {}}
    assert (made["options"]["disable_metrics"], made["options"]["debug"]) == (True, True)


def session(*parts: dict[str, Any]) -> bytes:
    made = {"meta": {"cost": 0.5}, "messages": [{"role": "assistant", "parts": list(parts)}]}
    return b"\n" + SESSION_MARK + b"\n" + json.dumps(made).encode() + b"\n"


@pytest.mark.parametrize(
    ("output", "exit_status", "stderr", "reason", "message"),
    [
        (b"", 1, b"  ERROR\n\n  no prompt provided.\n", Reason.AGENT, "exited with 1: no prompt provided"),
        (b"", 1, b"agent processing failed: 429 Too Many Requests: slow down\n", Reason.QUOTA, "429"),
        (b"half" + session({"type": "finish", "reason": "canceled"}), 0, b"", Reason.AGENT, "ended with 'canceled'"),
        (b"half" + session({"type": "finish", "reason": "max_tokens"}), 0, b"", Reason.AGENT, "output limit"),
        (session({"type": "finish", "reason": "end_turn"}), 0, b"", Reason.AGENT, "gave no final answer"),
    ],
)
def test_failure_has_its_reason(output: bytes, exit_status: int, stderr: bytes, reason: Reason, message: str) -> None:
    reader = CrushReader()
    reader.feed(output)
    verdict = reader.verdict(exit_status, stderr, True)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, reason)
    assert message in verdict.message


def test_final_text_is_the_last_messages_and_the_cost_the_sessions() -> None:
    reader = CrushReader()
    events = reader.feed(b"First.\nSecond." + session({"type": "text", "text": "Second."}))
    assert reader.verdict(0, b"", True).final_text == "Second."
    assert [event.text for event in events if event.kind == "message"] == ["First.", "Second."]
    assert events[-1].data == {"cost_usd": 0.5}


def test_session_that_never_ends_is_read_a_few_times_only() -> None:
    """A62: each try reads all that came so far."""
    reader = CrushReader()
    reader.feed(SESSION_MARK + b"\n")
    for _ in range(20_000):
        assert reader.feed(b"x}\n") == []
    assert reader.feed(json.dumps({"messages": []}).encode() + b"\n") == []
