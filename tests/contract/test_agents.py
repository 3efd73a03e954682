"""What every agent adapter promises, run for each one.

Another adapter costs one line in ``SAMPLES``: output of its tool that did its work, or None when any output will do.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tatin_jobs.errors import BadInput
from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.results import AgentFacts
from tatin_jobs.states import Outcome, Reason
from tatin_jobs.terminal import clean
from worker.agents import ADAPTERS, adapter
from worker.agents.base import AgentReader, AgentTask, ModelRoute, Verdict

RECORDINGS = Path(__file__).parents[1] / "recordings"
SAMPLES: dict[str, bytes] = {
    "claude": (RECORDINGS / "claude" / "well-done.jsonl").read_bytes(),
    "command": b"did it\n",
    "crush": (RECORDINGS / "crush" / "well-done.txt").read_bytes(),
    "opencode": (RECORDINGS / "opencode" / "well-done.jsonl").read_bytes(),
    "pi": (RECORDINGS / "pi" / "well-done.jsonl").read_bytes(),
}
PROMPT = 'Task: \'"$(x)" -- -v @file\n/help\n' + "é" * 70_000
TOKEN = "token-of-the-attempt"
ADDRESS = "http://127.0.0.1:4017"

for_each_tool = pytest.mark.parametrize("tool", sorted(ADAPTERS))


def task(tool: str, **fields: object) -> AgentTask:
    values = {"name": "a", "repo": Repo(path="."), "tool": tool, "command": "true", "prompt": PROMPT, **fields}
    spec = JobSpec.model_validate({"model": Model(name="m"), **values})
    route = ModelRoute(ADDRESS, TOKEN, "m", "ollama", adapter(tool).apis[0], context_tokens=32_768)
    return AgentTask("a-1", spec, "/run/tatin/prompt.txt", "/home/agent/work/repo", "/home/agent", route)


def told(reader: AgentReader, exit_status: int = 0, stderr: bytes = b"", *, changed: bool = False) -> Verdict:
    """The verdict, checked for what every verdict must be."""
    verdict = reader.verdict(exit_status, stderr, changed)
    if verdict.outcome is Outcome.SUCCEEDED:
        assert verdict.reason is None
    else:
        assert verdict.outcome is Outcome.FAILED
        assert verdict.reason is not None
        assert verdict.message
    assert len(verdict.message) < 1000
    assert clean(verdict.message).split("\n") == [verdict.message]
    AgentFacts(tool="t", final_text=verdict.final_text).model_dump_json()
    return verdict


def test_each_tool_has_a_sample() -> None:
    assert SAMPLES.keys() == ADAPTERS.keys()


def test_unknown_tool_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(BadInput, match="no agent tool 'clod'") as refused:
        adapter("clod")
    assert "claude, command, " in (refused.value.try_ or "")


@for_each_tool
def test_prompt_goes_by_file_and_never_by_argv_or_environment(tool: str) -> None:
    """One argument may have 131,071 bytes, and text that begins with - or @ would be taken for something else."""
    plan = adapter(tool).plan(task(tool))
    assert plan.stdin_path == "/run/tatin/prompt.txt"
    assert PROMPT[:20] not in str((plan.argv, plan.env, plan.files))
    assert all(len(word.encode()) < 131_072 for word in [*plan.argv, *plan.env.values()])


@for_each_tool
def test_token_is_in_no_argument(tool: str) -> None:
    """A72: arguments are seen by every process."""
    plan = adapter(tool).plan(task(tool))
    assert TOKEN not in str(plan.argv)
    assert TOKEN in plan.env.values()
    configured = [*plan.env.values(), *(data.decode() for data in plan.files.values())]
    assert any(ADDRESS in value for value in configured)
    assert not any(TOKEN in data.decode() for data in plan.files.values()), "files are kept with the transcript"


@for_each_tool
def test_plan_keeps_to_the_guests_home(tool: str) -> None:
    plan = adapter(tool).plan(task(tool))
    assert all(path.startswith("/home/agent/") for path in [*plan.files, *plan.transcript_paths])
    assert plan == adapter(tool).plan(task(tool)), "the same task gives the same plan"


@for_each_tool
def test_arguments_of_the_job_come_last(tool: str) -> None:
    assert list(adapter(tool).plan(task(tool, args=("--one", "two words"))).argv)[-2:] == ["--one", "two words"]


@for_each_tool
def test_proxy_of_the_job_does_not_stand_before_the_route(tool: str) -> None:
    assert "127.0.0.1" in adapter(tool).plan(task(tool)).env["NO_PROXY"]


@for_each_tool
def test_exit_0_having_done_nothing_is_a_failure(tool: str) -> None:
    verdict = told(adapter(tool).reader())
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, Reason.AGENT)


@for_each_tool
def test_missing_program_is_a_failure_that_says_so(tool: str) -> None:
    verdict = told(adapter(tool).reader(), 127, b"exec: no such file\n")
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, Reason.AGENT)
    assert "127 (command not found)" in verdict.message


@for_each_tool
def test_work_that_was_done_is_a_success(tool: str) -> None:
    reader = adapter(tool).reader()
    reader.feed(SAMPLES[tool])
    verdict = told(reader, changed=True)
    assert verdict.outcome is Outcome.SUCCEEDED
    assert verdict.final_text


@for_each_tool
def test_tool_that_has_said_its_last_word_is_known_to_have(tool: str) -> None:
    """So that a process which stays is ended; of a program that prints what it likes it cannot be known."""
    reader = adapter(tool).reader()
    assert not reader.finished
    reader.feed(SAMPLES[tool])
    assert reader.finished is (tool not in ("command", "crush"))


@for_each_tool
@pytest.mark.parametrize("exit_status", [1, 2, 126, 137, 143, 255])
def test_exit_status_that_is_not_0_is_never_a_success(tool: str, exit_status: int) -> None:
    """A70: whatever it printed."""
    reader = adapter(tool).reader()
    reader.feed(SAMPLES[tool])
    assert told(reader, exit_status, changed=True).outcome is Outcome.FAILED


@for_each_tool
@pytest.mark.parametrize("size", [1, 100, 4096])
def test_events_do_not_depend_on_how_the_stream_was_cut(tool: str, size: int) -> None:
    data = SAMPLES[tool]
    whole, pieces = adapter(tool).reader(), adapter(tool).reader()
    expected = whole.feed(data)
    assert [e for start in range(0, len(data), size) for e in pieces.feed(data[start : start + size])] == expected
    assert told(pieces, changed=True) == told(whole, changed=True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["error", "stop", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
_NAMES = (
    "type subtype result is_error errors content usage id stopReason toolName args role model num_turns message data"
    " part permission_denials error text tool callID state status input output name tokens cache read cost reason"
    " statusCode"
).split()
_TYPES = st.sampled_from(
    ["step_start", "step_finish", "text", "reasoning", "tool_use", "error", "message", "result", "assistant", "user",
     "system", "message_end", "turn_end", "tool_execution_start", "tool_execution_end", "auto_retry_start",
     "agent_settled"]
)  # fmt: skip
_EVENTS = st.builds(
    lambda kind, fields: json.dumps({**fields, "type": kind}).encode() + b"\n",
    _TYPES,
    st.dictionaries(
        st.sampled_from(_NAMES), _JSON | st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=5), max_size=5
    ),
)


@for_each_tool
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=60) | _EVENTS, max_size=8),
    stderr=st.binary(max_size=200),
    exit_status=st.integers(0, 255),
    changed=st.booleans(),
)
def test_reader_never_raises_on_hostile_output(
    tool: str, pieces: list[bytes], stderr: bytes, exit_status: int, changed: bool
) -> None:
    """A70: and each event can be written, and is as short as promised."""
    reader = adapter(tool).reader()
    for piece in pieces:
        for event in reader.feed(piece):
            assert len(event.text) <= 4096
            assert len(json.dumps({"text": event.text, **event.data})) < 50_000
    told(reader, exit_status, stderr, changed=changed)


@for_each_tool
@pytest.mark.parametrize("depth", [900, 950, 980, 990, 1000, 100_000])
def test_reader_never_raises_on_nested_output(tool: str, depth: int) -> None:
    reader = adapter(tool).reader()
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        nested = opened * depth + ("1" if opened != "[" else "") + closed * depth
        for line in (f'{{"type":"tool_use","part":{{"state":{{"input":{{"a":{nested}}}}}}}}}', nested):
            list(reader.feed(line.encode() + b"\n"))
    told(reader)


@for_each_tool
@pytest.mark.parametrize("line", [b"x" * 65_535 + b"\n", b"x" * 65_536], ids=["lines", "one-line"])
def test_gigabyte_of_output_is_read_in_bounded_memory(tool: str, line: bytes) -> None:
    """The reader sees it in pieces of 64 KiB, and keeps next to nothing of it."""
    reader = adapter(tool).reader()
    tracemalloc.start()
    try:
        for _ in range(2**30 // len(line)):
            reader.feed(line)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 * 2**20
    told(reader)


@for_each_tool
def test_flood_of_good_events_keeps_no_more_than_the_last(tool: str) -> None:
    reader = adapter(tool).reader()
    tracemalloc.start()
    try:
        for _ in range(min(2000, 10 * 2**20 // len(SAMPLES[tool]))):
            reader.feed(SAMPLES[tool])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 * 2**20
