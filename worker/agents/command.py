"""``tool: command``: any program as the agent.

A list is an argument list, a string a ``sh -c`` line (the job's ``args`` are then its ``$1``, ``$2`` ...). It runs in
the repository with the prompt on stdin, and its path in ``TATIN_PROMPT_FILE``. When the job names a model, the route to
it stands in the environment under the names that the usual clients read:

    TATIN_MODEL, TATIN_MODEL_BASE_URL, TATIN_MODEL_TOKEN      always; the address without /v1
    OPENAI_BASE_URL (with /v1), OPENAI_API_KEY                when the provider speaks OpenAI's dialect
    ANTHROPIC_BASE_URL (without /v1), ANTHROPIC_API_KEY       when it speaks Anthropic's
    ANTHROPIC_BASE_URL, CLAUDE_CODE_OAUTH_TOKEN               when the worker's key is a Claude subscription's
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec
from tatin_jobs.states import Outcome, Reason
from worker.agents.base import (
    NO_PROXY,
    AgentAdapter,
    AgentEvent,
    AgentPlan,
    AgentReader,
    AgentTask,
    ModelRoute,
    Verdict,
)
from worker.agents.text import exit_text, last_line

TAIL_BYTES = 4096


class CommandReader(AgentReader):
    """Keeps the end of what was printed; that is the final text."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._printed = False

    def feed(self, data: bytes) -> list[AgentEvent]:
        self._printed = self._printed or bool(data.strip())
        self._tail += data[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]
        return []

    def verdict(self, exit_status: int, stderr_tail: bytes, changed: bool) -> Verdict:
        final_text = self._tail.decode("utf-8", "replace").strip() or None
        if exit_status != 0:
            seen = last_line(stderr_tail)
            message = f"The command {exit_text(exit_status)}" + (f": {seen}" if seen else ".")
            return Verdict(Outcome.FAILED, Reason.AGENT, message, final_text)
        printed = self._printed or bool(stderr_tail.strip())
        if not printed and not changed:
            message = "The command exited with 0 but printed nothing and changed nothing."
            return Verdict(Outcome.FAILED, Reason.AGENT, message)
        return Verdict(Outcome.SUCCEEDED, final_text=final_text)


class CommandAdapter(AgentAdapter):
    name: ClassVar[str] = "command"
    needs_model: ClassVar[bool] = False
    tool_packages: ClassVar[Sequence[str]] = ()

    def plan(self, task: AgentTask) -> AgentPlan:
        env = {"TATIN_PROMPT_FILE": task.prompt_path}
        if task.route:
            env |= task.unless_set(NO_PROXY) | route_environment(task.route)
        return AgentPlan(argv=_argv(task.spec), env=env, stdin_path=task.prompt_path)

    def reader(self) -> AgentReader:
        return CommandReader()


def route_environment(route: ModelRoute) -> dict[str, str]:
    """The model route as the environment that clients read."""
    env = {
        "TATIN_MODEL": route.model,
        "TATIN_MODEL_BASE_URL": route.base_url,
        "TATIN_MODEL_TOKEN": route.token,
    }
    if route.subscription:
        return env | {"ANTHROPIC_BASE_URL": route.base_url, "CLAUDE_CODE_OAUTH_TOKEN": route.token}
    if route.api == "anthropic":
        return env | {"ANTHROPIC_BASE_URL": route.base_url, "ANTHROPIC_API_KEY": route.token}
    return env | {"OPENAI_BASE_URL": f"{route.base_url}/v1", "OPENAI_API_KEY": route.token}


def _argv(spec: JobSpec) -> list[str]:
    if not spec.command:
        raise AttemptError("A job with `tool: command` needs a `command`.", reason=Reason.AGENT)
    if isinstance(spec.command, str):
        return ["sh", "-c", spec.command, *(["sh", *spec.args] if spec.args else [])]
    return [*spec.command, *spec.args]
