"""``tool: command``: its command line, its environment, and when exit 0 is no success."""

from __future__ import annotations

from typing import Any

import pytest

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec, Model, Repo
from tatin_jobs.states import Outcome, Reason
from worker.agents.base import AgentTask, ModelRoute
from worker.agents.command import CommandAdapter, CommandReader

PROMPT = "/run/tatin/prompt.txt"


def task(*, route: ModelRoute | None = None, **fields: Any) -> AgentTask:
    spec = JobSpec(name="a", repo=Repo(path="."), tool="command", prompt="p", **fields)
    return AgentTask("a-1", spec, PROMPT, "/home/agent/work/repo", "/home/agent", route)


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ("make fix", (), ["sh", "-c", "make fix"]),
        ('echo "$1" "$2"', ("a b", "-c"), ["sh", "-c", 'echo "$1" "$2"', "sh", "a b", "-c"]),
        (("./agent", "--yes"), ("--fast",), ["./agent", "--yes", "--fast"]),
        (("./agent", "$HOME; rm -rf /"), (), ["./agent", "$HOME; rm -rf /"]),
    ],
)
def test_string_is_a_shell_line_and_list_is_argv(
    command: str | tuple[str, ...], args: tuple[str, ...], argv: list[str]
) -> None:
    assert list(CommandAdapter().plan(task(command=command, args=args)).argv) == argv


def test_prompt_comes_on_stdin_and_by_its_path() -> None:
    plan = CommandAdapter().plan(task(command="true"))
    assert plan.stdin_path == PROMPT
    assert plan.env == {"TATIN_PROMPT_FILE": PROMPT}


def test_job_without_a_command_is_refused() -> None:
    with pytest.raises(AttemptError, match="needs a `command`") as refused:
        CommandAdapter().plan(task())
    assert refused.value.reason is Reason.AGENT


@pytest.mark.parametrize(
    ("api", "names"),
    [
        ("openai", {"OPENAI_BASE_URL": "http://127.0.0.1:4017/v1", "OPENAI_API_KEY": "token"}),
        ("anthropic", {"ANTHROPIC_BASE_URL": "http://127.0.0.1:4017", "ANTHROPIC_API_KEY": "token"}),
    ],
)
def test_model_route_stands_in_the_environment(api: Any, names: dict[str, str]) -> None:
    route = ModelRoute("http://127.0.0.1:4017", "token", "m", "ollama", api)
    plan = CommandAdapter().plan(task(command="true", model=Model(name="m"), route=route, env={"no_proxy": "mine"}))
    assert plan.env == {
        "TATIN_PROMPT_FILE": PROMPT,
        "TATIN_MODEL": "m",
        "TATIN_MODEL_BASE_URL": "http://127.0.0.1:4017",
        "TATIN_MODEL_TOKEN": "token",
        "NO_PROXY": "127.0.0.1,localhost",
        **names,
    }


def verdict(exit_status: int, stdout: bytes = b"", stderr: bytes = b"", *, changed: bool = False) -> tuple[Any, ...]:
    reader = CommandReader()
    reader.feed(stdout)
    told = reader.verdict(exit_status, stderr, changed)
    return told.outcome, told.reason, told.message


NOTHING = "The command exited with 0 but printed nothing and changed nothing."


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (verdict(0), (Outcome.FAILED, Reason.AGENT, NOTHING)),
        (verdict(0, b" \n", b"\n"), (Outcome.FAILED, Reason.AGENT, NOTHING)),
        (verdict(0, changed=True), (Outcome.SUCCEEDED, None, "")),
        (verdict(0, b"a report\n"), (Outcome.SUCCEEDED, None, "")),
        (verdict(0, b"", b"a report\n"), (Outcome.SUCCEEDED, None, "")),
        (
            verdict(3, b"x", b"first\n\x1b[31mno such file\n", changed=True),
            (Outcome.FAILED, Reason.AGENT, "The command exited with 3: no such file"),
        ),
        (verdict(127), (Outcome.FAILED, Reason.AGENT, "The command exited with 127 (command not found).")),
        (verdict(143), (Outcome.FAILED, Reason.AGENT, "The command was killed by signal 15 (SIGTERM).")),
    ],
)
def test_verdict_on_how_it_ended(ended: tuple[Any, ...], told: tuple[Any, ...]) -> None:
    assert ended == told


def test_final_text_is_the_end_of_what_was_printed() -> None:
    reader = CommandReader()
    for _ in range(100):
        reader.feed(b"x" * 1000)
    reader.feed(b"\nthe end \xff\n")
    final = reader.verdict(0, b"", False).final_text
    assert final is not None
    assert final.endswith("x\nthe end �")
    assert len(final) <= 4096
