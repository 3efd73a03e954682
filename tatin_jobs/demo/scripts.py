"""What the scripted model says, turn by turn: data, and which turn a request is at.

A turn is chosen by the number of tool results in the request and by nothing else, so the same request always gets the
same answer, and several agents may use one server at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool call: the tool's name as the agent offers it, and its arguments."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One answer of the model: some text, a tool call, or both. ``{result}`` in ``text`` stands for what the newest
    tool call returned."""

    text: str = ""
    call: Call | None = None


def _bash(command: str, description: str) -> Call:
    return Call("bash", {"command": command, "description": description})


_WRITE_TOUR = r"""
{
  echo "# A tour of this repository"
  echo
  echo "Commits: $(git rev-list --count HEAD). The newest: $(git log -1 --format=%s)"
  echo
  echo "| folder | files | lines | last changed |"
  echo "| --- | ---: | ---: | --- |"
  git -c core.quotePath=false ls-files | cut -s -d/ -f1 | sort -u | while IFS= read -r folder; do
    files=$(git ls-files -z -- "$folder" | tr -cd '\0' | wc -c | tr -d ' ')
    lines=$(git ls-files -z -- "$folder" | xargs -0 cat -- | wc -l | tr -d ' ')
    newest=$(git log -1 --format=%cs -- "$folder")
    printf '| `%s/` | %s | %s | %s |\n' "$folder" "$files" "$lines" "$newest"
  done
} > TOUR.md
""".strip()

DEMO = (
    Turn(
        "I will look at what is here first.", _bash("git ls-files | cut -d/ -f1 | sort | uniq -c", "List the top level")
    ),
    Turn("Now the README, for what the project says of itself.", Call("read", {"filePath": "README.md", "limit": 40})),
    Turn(
        "I will write the tour from the files themselves.", _bash(_WRITE_TOUR, "Write TOUR.md, a line for each folder")
    ),
    Turn("", _bash("cat TOUR.md && wc -l TOUR.md", "Read it again and count its lines")),
    Turn("I wrote TOUR.md, a line for each top-level folder, counted from the files in git:\n\n{result}"),
)
"""Drives OpenCode on any git repository that has a README.md: looks round, then writes TOUR.md from its real files."""

HELLO = (
    Turn("", _bash("echo hello > hello.txt", "Write hello.txt")),
    Turn("All done: the file was written."),
)
"""The shortest script that changes something."""

SCRIPTS: Mapping[str, tuple[Turn, ...]] = {"demo": DEMO, "hello": HELLO}


def turn_for(script: tuple[Turn, ...], tool_results: list[str]) -> Turn:
    """The turn that follows these tool results, oldest first; the last one again when the script is over."""
    turn = script[min(len(tool_results), len(script) - 1)]
    newest = tool_results[-1].strip() if tool_results else ""
    return Turn(turn.text.replace("{result}", newest), turn.call)
