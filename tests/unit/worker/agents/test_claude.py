"""Claude Code's plan, and its reader on what the real one printed (``tests/recordings/claude``)."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.states import Outcome, Reason
from tests.support.replay import RECORDINGS, replay
from worker.agents.base import AgentPlan, AgentTask, ModelRoute
from worker.agents.claude import ClaudeAdapter, ClaudeReader

TOKEN = "token-of-the-attempt"
ROUTE = ModelRoute("http://127.0.0.1:4017", TOKEN, "claude-sonnet-4-5", "anthropic", "anthropic")


def plan(route: ModelRoute | None = ROUTE, start: bytes = b"Do it", **fields: Any) -> AgentPlan:
    config = fields.pop("config", {})
    spec = JobSpec(name="a", repo=Repo(path="."), tool="claude", prompt="p", model=Model(name="m"), **fields)
    home = "/home/agent"
    task = AgentTask("a-1", spec, "/run/tatin/prompt.txt", f"{home}/work/repo", home, route, start, config)
    return ClaudeAdapter().plan(task)


def settings(made: AgentPlan) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(made.files["/home/agent/.claude/settings.json"])
    return loaded


def test_plan_runs_it_headless_with_every_check_off() -> None:
    made = plan(args=("--max-turns", "9"))
    assert made.argv == [
        *("claude", "-p", "--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"),
        *("--model", "claude-sonnet-4-5", "--setting-sources", "user", "--strict-mcp-config", "--max-turns", "9"),
    ]
    assert made.env["IS_SANDBOX"] == "1"
    assert made.env["ANTHROPIC_API_KEY"] == TOKEN
    assert made.stdin_prefix == b""
    assert made.transcript_paths == ["/home/agent/.claude/projects"]


def test_subscriber_logs_in_with_the_token_of_the_attempt() -> None:
    env = plan(ModelRoute(ROUTE.base_url, TOKEN, "m", "anthropic", "anthropic", subscription=True)).env
    assert env["CLAUDE_CODE_OAUTH_TOKEN"] == TOKEN
    assert "ANTHROPIC_API_KEY" not in env


def test_every_model_that_it_may_ask_for_is_the_jobs_own() -> None:
    env = settings(plan(idle_timeout_seconds=60))["env"]
    models = {value for name, value in env.items() if name.endswith("_MODEL")}
    assert models == {"claude-sonnet-4-5"}
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4017"
    assert env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
    assert int(env["API_TIMEOUT_MS"]) > 60_000, "the job's idle_timeout is the one that counts"
    assert "CLAUDE_CODE_MAX_CONTEXT_TOKENS" not in env
    known = ModelRoute(ROUTE.base_url, TOKEN, "m", "ollama", "anthropic", context_tokens=32_768)
    assert settings(plan(known))["env"]["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "32768"


def test_users_own_settings_are_kept_where_they_do_not_stand_in_the_way() -> None:
    theirs = {
        "env": {"MY_TOOL": "1", "ANTHROPIC_BASE_URL": "http://elsewhere"},
        "permissions": {"deny": ["Bash(rm:*)"], "defaultMode": "plan"},
        "outputStyle": "Explanatory",
    }
    made = settings(plan(config=theirs))
    assert made["env"]["MY_TOOL"] == "1"
    assert made["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4017"
    assert made["permissions"] == {"deny": ["Bash(rm:*)"], "defaultMode": "bypassPermissions"}
    assert made["outputStyle"] == "Explanatory"


def test_repositorys_instructions_are_imported_by_the_memory_file() -> None:
    memory = plan().files["/home/agent/.claude/CLAUDE.md"].decode()
    assert memory.split() == ["@/home/agent/work/repo/AGENTS.md", "@/home/agent/work/repo/CLAUDE.md"]


@pytest.mark.parametrize(
    ("start", "prefix"), [(b"/help me", b"Task:\n"), (b" \n/x", b"Task:\n"), (b"a/b", b""), (b"", b"")]
)
def test_prompt_that_would_be_a_slash_command_gets_a_line_in_front(start: bytes, prefix: bytes) -> None:
    assert plan(start=start).stdin_prefix == prefix


def test_job_without_a_model_is_refused() -> None:
    with pytest.raises(AttemptError, match="Claude Code needs a model"):
        plan(None)


@pytest.mark.parametrize(
    ("recording", "exit_status", "reason", "message"),
    [
        ("401", 1, Reason.AUTH, "API Error: 401 Incorrect API key"),
        ("404", 1, Reason.PROVIDER, "issue with the selected model (fail-404)"),
        ("429", 1, Reason.QUOTA, "Rate limit reached"),
        ("quota", 1, Reason.QUOTA, "You exceeded your current quota"),
        ("500", 1, Reason.PROVIDER, "500 The server had an error"),
        ("context", 1, Reason.AGENT, "Prompt is too long"),
        ("length", 1, Reason.AGENT, "exceeded the 128000 output token maximum"),
        ("no-text", 0, Reason.AGENT, "gave no final answer"),
        ("html", 1, Reason.PROVIDER, "answered with a web page"),
        ("empty", 1, Reason.PROVIDER, "answered with nothing"),
        ("cut", 1, Reason.PROVIDER, "Connection lost mid-response"),
        ("unfinished", 1, Reason.PROVIDER, "Connection lost mid-response"),
        ("error", 1, Reason.PROVIDER, "Server error mid-response"),
        ("max-turns", 1, Reason.BUDGET, "reached its limit of turns: Reached maximum number of turns (2)"),
        ("slash", 0, Reason.AGENT, "asked no model: /help isn't available"),
        ("denied", 0, Reason.AGENT, "was denied what it needed: Bash"),
        ("well-done", 143, Reason.AGENT, "was killed by signal 15"),
    ],
)
def test_failure_has_its_reason_and_says_what_was_seen(
    recording: str, exit_status: int, reason: Reason, message: str
) -> None:
    _, verdict = replay("claude", recording, exit_status)
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, reason)
    assert message in verdict.message
    assert "\x1b" not in verdict.message


def test_run_that_did_its_work_succeeded_with_its_last_text() -> None:
    events, verdict = replay("claude", "well-done", 0)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert verdict.final_text is not None
    assert verdict.final_text.startswith("I wrote TOUR.md")
    assert Counter(event.kind for event in events) == {
        **{"message": 4, "tool_call": 4, "tool_result": 4, "usage": 5, "final": 1},
    }
    calls = [event for event in events if event.kind == "tool_call"]
    assert [call.data["name"] for call in calls] == ["Bash", "Read", "Bash", "Bash"]
    assert calls[1].text.endswith("README.md")
    results = [event for event in events if event.kind == "tool_result"]
    assert [result.data["name"] for result in results] == ["Bash", "Read", "Bash", "Bash"]
    assert "README.md" in results[0].text
    figures = [event.data for event in events if event.kind == "usage"]
    assert all(figure["input_tokens"] > 1000 and "output_tokens" not in figure for figure in figures)
    totals = events[-1].data
    assert totals["output_tokens"] > 100
    assert totals["turns"] == 5
    assert "cost_usd" not in totals, "the model is unknown to it, so its price is made up"


def test_thought_and_a_failed_tool_are_told() -> None:
    events, verdict = replay("claude", "thinking", 0)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert [event.text for event in events if event.kind == "reasoning"] == [
        "The user wants a file.",
        "Status 3, but the file is there.",
    ]
    (result,) = [event for event in events if event.kind == "tool_result"]
    assert result.data["failed"] is True


def test_retry_is_told_and_a_failure_that_was_got_over_is_none() -> None:
    events, verdict = replay("claude", "retried", 0)
    (retry,) = [event for event in events if event.kind == "retry"]
    assert retry.text.startswith("the model is asked again (1 of ")
    assert retry.data == {"status": 500}
    assert verdict.outcome is Outcome.SUCCEEDED


def test_subscribers_limit_is_a_quota_that_says_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """F49. The moment stands in the error's own parameters; the text has it by the minute only."""
    recorded = (RECORDINGS / "claude/usage-limit.jsonl").read_text()
    resets_at = datetime.fromtimestamp(int(recorded.split('"resetsAt":')[1].split(",")[0]), UTC)
    monkeypatch.setattr("worker.agents.claude.datetime", _Then)
    _, verdict = replay("claude", "usage-limit", 1)
    assert verdict.reason is Reason.QUOTA
    assert "You've hit your 5-hour limit" in verdict.message
    assert verdict.reset_at == resets_at


class _Then(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime(2026, 11, 25, tzinfo=UTC)


def test_denial_that_it_worked_around_is_said_and_no_failure() -> None:
    _, verdict = replay("claude", "denied", 0, changed=True)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert verdict.message == "Claude Code was denied: Bash"


def test_it_is_finished_with_its_result_unless_it_goes_on() -> None:
    reader = ClaudeReader()
    *before, result = (RECORDINGS / "claude/well-done.jsonl").read_bytes().splitlines(keepends=True)
    reader.feed(b"".join(before))
    assert not reader.finished
    reader.feed(result)
    assert reader.finished
    reader.feed(before[1])
    assert not reader.finished, "a background task woke it"


def test_run_that_was_cut_off_says_how_it_ended() -> None:
    reader = ClaudeReader()
    reader.feed(b'{"type":"system","subtype":"init"}\n')
    assert "did nothing" in reader.verdict(0, b"", True).message
    assert "was killed by signal 9" in reader.verdict(137, b"", True).message
