"""Where a repository says how agents are to work in it: ``AGENTS.md`` and ``CLAUDE.md``."""

from __future__ import annotations

from pathlib import PurePosixPath

from worker.agents.base import AgentTask

INSTRUCTION_FILES = ("AGENTS.md", "CLAUDE.md")


def instruction_paths(task: AgentTask) -> list[str]:
    """The instruction files of the working directory and of the folders above it, up to the repository's own; whether
    they are there is not known here."""
    folder = PurePosixPath(task.repo_path)
    depth = len(PurePosixPath(task.spec.repo.subdir).parts) if task.spec.repo.subdir else 0
    folders = [folder, *folder.parents][: depth + 1]
    return [str(place / name) for place in reversed(folders) for name in INSTRUCTION_FILES]
