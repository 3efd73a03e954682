"""Agents that print what a real Claude Code printed, for attempts in the fake sandbox; named by ``module:Class``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tests.support.replay import RECORDINGS
from worker.agents.base import AgentAdapter, AgentPlan, AgentReader, AgentTask
from worker.agents.claude import ClaudeReader


class _Replayed(AgentAdapter):
    name: ClassVar[str] = "replayed"
    needs_model: ClassVar[bool] = False
    tool_packages: ClassVar[Sequence[str]] = ()
    prints_events: ClassVar[bool] = True
    recording: ClassVar[str]
    afterwards: ClassVar[str]

    def plan(self, task: AgentTask) -> AgentPlan:
        return AgentPlan(argv=["sh", "-c", f"cat '{RECORDINGS}/claude/{self.recording}.jsonl'; {self.afterwards}"])

    def reader(self) -> AgentReader:
        return ClaudeReader()


class Lingering(_Replayed):
    """Does its work, says its last word, and stays."""

    recording = "well-done"
    afterwards = "echo done > done.txt; sleep 60"


class Limited(_Replayed):
    """Meets its subscriber's limit."""

    recording = "usage-limit"
    afterwards = "exit 1"
