"""The command line: ``main`` finds the command, and is the one place where an error becomes a message and an exit code.

A command is a module beside this one with one function; it is imported when it is called, so that starting is fast.
Each parses, calls one function, prints. What a program reads goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tatin_jobs.errors import EXIT_CANCELLED, BadInput, BadJobFile, TatinError
from tatin_jobs.terminal import clean

COMMANDS: dict[str, str] = {
    "run": "run",
    "submit": "submit",
    "list": "list_jobs",
    "show": "show",
    "logs": "logs",
    "wait": "wait",
    "cancel": "cancel",
    "retry": "retry",
    "hold": "hold",
    "release": "release",
    "artifacts": "artifacts",
    "diff": "diff",
    "report": "report",
    "worker": "worker",
    "workers": "workers",
    "drain": "drain",
    "up": "up",
    "ssh": "ssh",
    "down": "down",
    "delete": "delete",
    "status": "status",
    "attach": "attach",
    "image": "image",
    "doctor": "doctor",
    "prune": "prune",
    "schema": "schema",
    "version": "version",
}
"""Command -> its module in this package, in the order of the help; the function in it is called ``command``."""

SCHEMA_VERSION = 1
"""Of every JSON that a command prints."""


class LazyGroup(TyperGroup):
    """Imports a command's module when somebody asks for it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            advice = f"tatin {near[0]}" if near else "tatin --help"
            raise BadInput(f"There is no command {args[0][:60]!r}.", try_=advice)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = import_module(f"tatin_jobs.cli.{COMMANDS[cmd_name]}")
            one = typer.Typer(add_completion=False, rich_markup_mode=None)
            one.command(cmd_name, context_settings=getattr(module, "CONTEXT", None))(module.command)
            self.commands[cmd_name] = typer.main.get_command(one)
        return self.commands.get(cmd_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from tatin_jobs import __version__

        print(f"tatin {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    name="tatin",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="A job file is described in docs/job-file.md; exit codes and JSON in docs/cli.md.")
def tatin(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run coding agents unattended in disposable sandboxes on your own machines."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code, as ``tatin_jobs.errors`` lists them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    as_json = "--json" in arguments
    try:
        code = app(arguments or ["--help"], prog_name="tatin", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_CANCELLED
    except (BrokenPipeError, SystemExit) as error:  # Typer turns the first into the second
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        return _reader_is_gone()
    except TatinError as error:
        if os.environ.get("TATIN_DEBUG"):
            raise
        return _tell(error, as_json)
    except typer.TyperException as error:
        return _tell(_usage(error), as_json)
    except Exception as error:
        if os.environ.get("TATIN_DEBUG"):
            raise
        return _tell(_fault(error), as_json)
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> BadInput:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tatin"
    message = error.format_message()
    return BadInput(message if message.endswith((".", "?")) else f"{message}.", try_=f"{command} --help")


def _fault(error: Exception) -> TatinError:
    """What was not foreseen: the system's own refusal by its words, anything else as our fault."""
    if isinstance(error, OSError):
        name = f" '{error.filename}'" if error.filename else ""
        return TatinError(f"The system refused{name}.", seen=error.strerror or str(error))
    return TatinError(
        "A fault in Tatin itself.",
        seen=f"{type(error).__name__}: {str(error)[:500]}",
        try_="run it again with TATIN_DEBUG=1 to see where, and report that.",
    )


def _tell(error: TatinError, as_json: bool) -> int:
    text = json.dumps(error_json(error)) if as_json else clean(str(error))
    try:
        print(text, file=sys.stderr)
    except OSError:
        pass  # nobody reads it; the exit code says it
    return error.exit_code


def error_json(error: TatinError) -> dict[str, Any]:
    """The one JSON shape of an error."""
    fields: dict[str, Any] = {
        "what": error.what,
        "seen": error.seen,
        "try": error.try_,
        "exit_code": error.exit_code,
    }
    if isinstance(error, BadJobFile):
        fields["complaints"] = [
            {
                "file": complaint.file,
                "line": complaint.line,
                "field": complaint.field,
                "message": complaint.message,
                "value": complaint.value,
                "try": complaint.try_,
            }
            for complaint in error.complaints
        ]
    return {"schema_version": SCHEMA_VERSION, "error": fields}


def _reader_is_gone() -> int:
    """``tatin list | head``: no message, and none from the interpreter when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
