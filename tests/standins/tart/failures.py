"""How Tart fails: the text on stderr and the exit code (the two tables of its error classes)."""

from __future__ import annotations

MISSING = 2
"""Exit code of: unknown VM, not running, already running."""
FAILED = 1
USAGE = 64


class TartFailure(Exception):
    """Ends the command with ``text`` on stderr and this exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def no_such_vm(name: str) -> TartFailure:
    return TartFailure(f'the specified VM "{name}" does not exist', MISSING)


def not_running(name: str) -> TartFailure:
    return TartFailure(f'VM "{name}" is not running', MISSING)


def unprefixed_in_validate(failure: TartFailure) -> TartFailure:
    """The same failure inside a command's ``validate()``: with ``Error:``, exit code 1, no usage."""
    return TartFailure(f"Error: {failure.text}", FAILED)


class UsageFailure(TartFailure):
    """Bad arguments, or a ValidationError: with a usage line; exit code 64."""

    def __init__(self, text: str, command: str = "") -> None:
        called = f"tart {command}".strip()
        super().__init__(
            f"Error: {text}\nUsage: {called} [options]\n  See '{called} --help' for more information.", USAGE
        )
