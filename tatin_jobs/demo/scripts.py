"""What the scripted model says, turn by turn: data, and which turn a request is at.

A turn is chosen by the number of tool results in the request and by nothing else, so the same request always gets the
same answer, and several agents may use one server at once. Calls are written in OpenCode's words and put into those of
the agent that asks (``Call.fitted``), so one script drives every agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool call: the tool's name as the agent offers it, and its arguments."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def fitted(self, tools: Mapping[str, frozenset[str]]) -> Call:
        """This call to the tool that the agent has for it, with its names of the arguments; arguments that it does not
        have are left out. ``tools``: name -> names of arguments. Unchanged when it offers nothing of the kind."""
        names = {name.casefold(): name for name in tools}
        tool = next((names[name] for name in (self.tool, *SYNONYMS.get(self.tool, ())) if name in names), None)
        if tool is None:
            return self
        known = tools[tool]
        arguments = {}
        for name, value in self.arguments.items():
            found = next((other for other in (name, *SYNONYMS.get(name, ())) if other in known), None)
            if found or not known:
                arguments[found or name] = value
        return Call(tool, arguments)


SYNONYMS: Mapping[str, Sequence[str]] = {
    "read": ("view",),  # Crush
    "filePath": ("file_path", "path"),  # Claude, Crush; Pi
    "oldString": ("old_string", "oldText"),
    "newString": ("new_string", "newText"),
}
"""OpenCode's name of a tool or argument -> what others call it."""


@dataclass(frozen=True)
class Turn:
    """One answer of the model: some thought, some text, a tool call, or all. ``{result}`` in ``text`` stands for what
    the newest tool call returned."""

    text: str = ""
    call: Call | None = None
    reasoning: str = ""


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
"""Drives any agent on any git repository that has a README.md: looks round, then writes TOUR.md from its real files."""

HELLO = (
    Turn("", _bash("echo hello > hello.txt", "Write hello.txt")),
    Turn("All done: the file was written."),
)
"""The shortest script that changes something."""

THINKING = (
    Turn("", _bash("echo hello > hello.txt; exit 3", "Write hello.txt"), "The user wants a file."),
    Turn("It is done, though the command failed.", reasoning="Status 3, but the file is there."),
)
"""A model that thinks aloud, and a tool call that fails."""

SCRIPTS: Mapping[str, tuple[Turn, ...]] = {"demo": DEMO, "hello": HELLO, "thinking": THINKING}


def turn_for(script: tuple[Turn, ...], tool_results: Sequence[str]) -> Turn:
    """The turn that follows these tool results, oldest first; the last one again when the script is over."""
    turn = script[min(len(tool_results), len(script) - 1)]
    newest = tool_results[-1].strip() if tool_results else ""
    return replace(turn, text=turn.text.replace("{result}", newest))
