"""OpenCode's plan, and its reader on what the real one printed (``tests/recordings/opencode``)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.states import Outcome, Reason
from worker.agents.base import AgentEvent, AgentTask, ModelRoute, Verdict
from worker.agents.opencode import OpenCodeAdapter, OpenCodeReader

RECORDINGS = Path(__file__).parents[3] / "recordings" / "opencode"
ROUTE = ModelRoute("http://127.0.0.1:4017", "token-of-the-attempt", "qwen3-coder", "ollama")


def task(route: ModelRoute | None = ROUTE, repo: Repo = Repo(path="."), **fields: Any) -> AgentTask:  # noqa: B008
    spec = JobSpec(name="a", repo=repo, tool="opencode", prompt="-v 'quoted' \n/help", model=Model(name="m"), **fields)
    return AgentTask("a-1", spec, "/run/tatin/prompt.txt", "/home/agent/work/repo", "/home/agent", route)


def config(planned: AgentTask) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(OpenCodeAdapter().plan(planned).env["OPENCODE_CONFIG_CONTENT"])
    return loaded


def test_plan_runs_it_headless_with_the_prompt_on_stdin() -> None:
    plan = OpenCodeAdapter().plan(task(args=("--variant", "high")))
    assert plan.argv == [
        *("opencode", "run", "--auto", "--format", "json", "-m", "tatin/qwen3-coder", "--title", "a-1"),
        *("--variant", "high"),
    ]
    assert plan.stdin_path == "/run/tatin/prompt.txt"
    assert plan.env["TATIN_MODEL_TOKEN"] == "token-of-the-attempt"
    assert "token-of-the-attempt" not in plan.env["OPENCODE_CONFIG_CONTENT"]
    assert [Path(path).name for path in plan.transcript_paths] == ["opencode.db", "opencode.db-wal", "opencode.db-shm"]


def test_config_has_the_route_as_its_only_provider() -> None:
    made = config(task(idle_timeout_seconds=60))
    assert made["enabled_providers"] == ["tatin"] == list(made["provider"])
    assert made["model"] == made["small_model"] == "tatin/qwen3-coder"
    provider = made["provider"]["tatin"]
    assert provider["npm"] == "@ai-sdk/openai-compatible"
    assert provider["options"]["baseURL"] == "http://127.0.0.1:4017/v1"
    assert provider["options"]["apiKey"] == "{env:TATIN_MODEL_TOKEN}"
    assert provider["options"]["chunkTimeout"] == provider["options"]["headerTimeout"] > 60_000
    anthropic = ModelRoute("http://127.0.0.1:4017", "token", "m", "anthropic", "anthropic")
    assert config(task(anthropic))["provider"]["tatin"]["npm"] == "@ai-sdk/anthropic"


def test_name_of_a_model_stays_text_in_the_config() -> None:
    name = 'a"}, "plugin": ["evil"], "x": {"\\'
    assert config(task(ModelRoute("http://127.0.0.1:1", "t", name, "ollama")))["model"] == f"tatin/{name}"
    assert "plugin" not in config(task(ModelRoute("http://127.0.0.1:1", "t", name, "ollama")))


def test_instruction_files_are_those_from_the_repository_down_to_the_subdir() -> None:
    repo = "/home/agent/work/repo"
    inner = AgentTask("a-1", task(repo=Repo(path=".", subdir="a/b")).spec, "/p", f"{repo}/a/b", "/home/agent", ROUTE)
    assert config(inner)["instructions"] == [
        f"{folder}/{name}" for folder in (repo, f"{repo}/a", f"{repo}/a/b") for name in ("AGENTS.md", "CLAUDE.md")
    ]


def test_switches_of_the_job_go_before_ours() -> None:
    plan = OpenCodeAdapter().plan(task(env={"OPENCODE_DISABLE_PROJECT_CONFIG": "0", "NO_PROXY": "mine"}))
    assert not plan.env.keys() & {"OPENCODE_DISABLE_PROJECT_CONFIG", "NO_PROXY"}
    assert plan.env["OPENCODE_DISABLE_MODELS_FETCH"] == "1"


def test_job_without_a_model_is_refused() -> None:
    with pytest.raises(AttemptError, match="needs a model") as refused:
        OpenCodeAdapter().plan(task(None))
    assert refused.value.reason is Reason.REFUSED


def read(recording: str, exit_status: int) -> tuple[list[AgentEvent], Verdict]:
    reader = OpenCodeReader()
    events = reader.feed((RECORDINGS / f"{recording}.jsonl").read_bytes())
    stderr = RECORDINGS / f"{recording}.stderr"
    return events, reader.verdict(exit_status, stderr.read_bytes() if stderr.exists() else b"", False)


@pytest.mark.parametrize(
    ("recording", "exit_status", "reason", "message"),
    [
        ("status-401", 1, Reason.AUTH, "APIError 401: Incorrect API key"),
        ("status-404", 1, Reason.PROVIDER, "APIError 404: The model does not exist"),
        ("status-429", 1, Reason.QUOTA, "APIError 429: Rate limit reached"),
        ("status-500", 1, Reason.PROVIDER, "APIError 500: The server had an error"),
        ("web-page", 1, Reason.PROVIDER, "answered with a web page"),
        ("empty-answer", 1, Reason.PROVIDER, "answered with nothing"),
        ("connection-cut", 1, Reason.PROVIDER, "connection was closed"),
        ("stream-unfinished", 1, Reason.PROVIDER, "Connection reset by server"),
        ("bad-json", 1, Reason.PROVIDER, "JSON parsing failed"),
        ("context-too-long", 1, Reason.AGENT, "ContextOverflowError: This model's maximum context length"),
        ("output-limit", 0, Reason.AGENT, "the model reached its output limit"),
        ("no-text", 0, Reason.AGENT, "gave no final answer"),
        ("permission-refused", 0, Reason.AGENT, "permission requested: external_directory (/etc/*)"),
        ("endless-loop", 137, Reason.AGENT, "was killed by signal 9"),
        ("endless-loop", 0, Reason.AGENT, "its last step never ended"),
        ("killed-in-a-tool", 0, Reason.AGENT, "did nothing"),
        ("well-done", 1, Reason.AGENT, "exited with 1"),
    ],
)
def test_failure_has_its_reason_and_says_what_was_seen(
    recording: str, exit_status: int, reason: Reason, message: str
) -> None:
    _, verdict = read(recording, exit_status)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, reason)
    assert message in verdict.message
    assert "\x1b" not in verdict.message


def test_run_that_did_its_work_succeeded_with_its_last_text() -> None:
    events, verdict = read("well-done", 0)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert verdict.final_text is not None
    assert verdict.final_text.startswith("I wrote TOUR.md")
    assert Counter(event.kind for event in events) == {"message": 4, "tool_call": 4, "tool_result": 4, "usage": 5}
    calls = [event for event in events if event.kind == "tool_call"]
    assert [call.data["name"] for call in calls] == ["bash", "read", "bash", "bash"]
    assert calls[0].text == "git ls-files | cut -d/ -f1 | sort | uniq -c"
    assert calls[1].text == "README.md"
    results = [event for event in events if event.kind == "tool_result"]
    assert "1 README.md" in results[0].text
    assert not any(result.data["failed"] for result in results)
    figures = [event.data for event in events if event.kind == "usage"]
    assert all(figure["input_tokens"] > 1000 and figure["output_tokens"] > 0 for figure in figures)
    assert all("cost_usd" not in figure for figure in figures), "no price is known, so none is claimed"


def test_refused_tool_is_told_as_failed() -> None:
    events, _ = read("permission-refused", 0)
    (result,) = [event for event in events if event.kind == "tool_result"]
    assert result.data["failed"] is True


def test_error_that_a_later_step_got_over_is_no_failure() -> None:
    reader = OpenCodeReader()
    reader.feed((RECORDINGS / "status-500.jsonl").read_bytes())
    reader.feed((RECORDINGS / "well-done.jsonl").read_bytes())
    assert reader.verdict(0, b"", True).outcome is Outcome.SUCCEEDED


def test_error_event_tells_the_status() -> None:
    events, _ = read("status-429", 1)
    assert events == [AgentEvent("error", "OpenCode stopped with APIError 429: Rate limit reached.", {"status": 429})]


def test_run_that_printed_nothing_did_nothing() -> None:
    verdict = OpenCodeReader().verdict(0, b"", True)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, Reason.AGENT)
    assert "did nothing" in verdict.message


def test_final_answer_on_a_last_line_without_newline_counts() -> None:
    reader = OpenCodeReader()
    reader.feed((RECORDINGS / "well-done.jsonl").read_bytes().rstrip(b"\n"))
    assert reader.verdict(0, b"", True).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"description": "List", "command": "ls"}, "ls"),
        ({"limit": 5, "filePath": "a.py"}, "a.py"),
        ({"todos": [1], "options": {"a": 1}, "number": 3, "name": "x"}, "todos=[…], options={…}, number=3, name=x"),
        ({str(number): number for number in range(50)}, ", ".join(f"{number}={number}" for number in range(10))),
    ],
)
def test_tool_call_is_shown_by_what_a_person_wants_to_see(arguments: dict[str, Any], text: str) -> None:
    line = {"type": "tool_use", "part": {"tool": "t", "callID": "c", "state": {"input": arguments}}}
    call, _ = OpenCodeReader().feed(json.dumps(line).encode() + b"\n")
    assert call == AgentEvent("tool_call", text, {"name": "t", "id": "c"})
