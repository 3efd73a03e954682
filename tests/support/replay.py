"""What a reader makes of what the real tool printed (``tests/recordings``)."""

from __future__ import annotations

from pathlib import Path

from worker.agents import adapter
from worker.agents.base import AgentEvent, Verdict

RECORDINGS = Path(__file__).parents[1] / "recordings"


def replay(tool: str, name: str, exit_status: int, *, changed: bool = False) -> tuple[list[AgentEvent], Verdict]:
    """The events and the verdict of one recorded run."""
    reader = adapter(tool).reader()
    events = reader.feed((RECORDINGS / tool / f"{name}.jsonl").read_bytes())
    stderr = RECORDINGS / tool / f"{name}.stderr"
    return events, reader.verdict(exit_status, stderr.read_bytes() if stderr.exists() else b"", changed)
