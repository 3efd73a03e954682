"""Every exception that Tatin raises on purpose, and the exit code each one ends a command with.

    TatinError                 1    something failed
      BadInput                 2    a job file, setting, id or flag is wrong
        BadJobFile             2    carries every complaint about the file at once
        UnknownId              2
        AmbiguousId            2
        WrongState             2    the job is not in a state that allows this
      Missing                  3    something that is needed is not there
        StoreUnavailable       3    Redis or Valkey does not answer, or refuses
        PartMissing            3    a program, image or tool is not on this host
      AttemptError             1    an attempt cannot go on; carries the Reason that its result will state
        SandboxError                reason sandbox
          HostBusy                  the same; the job waits, and no retry is counted
        RepositoryError             reason repo
        ProviderError               reason provider
        DiskFull                    reason disk
        CommandTimeout              reason agent (the caller knows better and says so)
      LeaseLost                1    a newer attempt holds the job; stop and keep what there is as superseded
        Forgotten              1    the store does not know the job any more (it was emptied): nobody else has it

Exit codes of the commands: 0 all succeeded, 1 some failed, 2 bad use or bad job file, 3 something needed is missing,
75 still held (quota), 124 timed out, 130 cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tatin_jobs.states import Reason

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_USE = 2
EXIT_MISSING = 3
EXIT_HELD = 75
EXIT_TIMED_OUT = 124
EXIT_CANCELLED = 130


class TatinError(Exception):
    """The root: what failed, what was seen, what to try.

    Args:
        what: one full sentence that names the thing it failed on.
        seen: the evidence (an exit status, a line of a program's stderr); None when ``what`` says it all.
        try_: what the reader can do; None when there is nothing.
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, seen: str | None = None, try_: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.seen = seen
        self.try_ = try_

    def __str__(self) -> str:
        lines = [self.what]
        if self.seen:
            lines.append(f"Seen: {self.seen}")
        if self.try_:
            lines.append(f"Try: {self.try_}")
        return "\n".join(lines)


class BadInput(TatinError):
    """Something the user wrote is wrong; nothing was done."""

    exit_code = EXIT_BAD_USE


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with a job file.

    ``file`` is the path as the user gave it, ``line`` counts from 1 (None: the whole file), ``field`` is dotted
    (``resources.memory``; empty: the document), ``value`` is what stands there, cleaned and shortened for display.
    """

    file: str
    line: int | None
    field: str
    message: str
    value: str | None = None
    try_: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        field = f" {self.field}:" if self.field else ""
        text = f"{where}:{field} {self.message}"
        return f"{text} Try: {self.try_}" if self.try_ else text


class BadJobFile(BadInput):
    """A job file cannot be used; ``complaints`` holds everything wrong with it, in the order of its lines."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n".join(str(complaint) for complaint in self.complaints))


class UnknownId(BadInput):
    """No job or batch has an id that starts so."""


class AmbiguousId(BadInput):
    """More than one job or batch has an id that starts so."""


class WrongState(BadInput):
    """The job exists, but what was asked cannot be done in the state that it is in."""


class Missing(TatinError):
    """Something that is needed is not there: a worker, an image, a program, the store."""

    exit_code = EXIT_MISSING


class StoreUnavailable(Missing):
    """Redis or Valkey cannot be reached, hangs, or refuses to write. What was asked may or may not have happened."""


class PartMissing(Missing):
    """A program, an image or an agent tool is not on this host."""


class AttemptError(TatinError):
    """An attempt cannot go on. ``reason`` is what its result will state."""

    reason: Reason = Reason.WORKER

    def __init__(
        self, what: str, *, seen: str | None = None, try_: str | None = None, reason: Reason | None = None
    ) -> None:
        super().__init__(what, seen=seen, try_=try_)
        if reason is not None:
            self.reason = reason


class SandboxError(AttemptError):
    """The sandbox could not be made, reached or destroyed, or died. A command that fails in it is no SandboxError."""

    reason = Reason.SANDBOX


class HostBusy(SandboxError):
    """The host cannot make this sandbox now, and can later. ``wait_seconds``: when to try again."""

    def __init__(self, what: str, *, seen: str | None = None, wait_seconds: float) -> None:
        super().__init__(what, seen=seen)
        self.wait_seconds = wait_seconds


class RepositoryError(AttemptError):
    """The repository, or the ref wanted of it, cannot be had."""

    reason = Reason.REPO


class ProviderError(AttemptError):
    """The model's provider failed or refused."""

    reason = Reason.PROVIDER


class DiskFull(AttemptError):
    """The host has no room left."""

    reason = Reason.DISK


class CommandTimeout(AttemptError):
    """A command in the guest passed its time limit; every process it started is dead when this is raised."""

    reason = Reason.AGENT


class LeaseLost(TatinError):
    """The store refused a write because a newer attempt holds the job, or the job is finished."""


class Forgotten(LeaseLost):
    """The store does not know the job any more: it was emptied. Nobody else runs it."""
