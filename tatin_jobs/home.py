"""TATIN_HOME: the one folder that holds everything of one worker or client, and where each thing lies in it.

    <home>/id            eight hex digits drawn once: this home's part of every sandbox name
    <home>/tatin.toml    the worker's settings
    <home>/worker.lock   held by the one worker of this home
    <home>/claim         the nonces of its newest claims
    <home>/reach.json    whether the worker, as a service of launchd, reaches its guests
    <home>/store/        the embedded Valkey: its lock, append-only file and log
    <home>/jobs/<id>/attempt-<n>/   results
    <home>/blobs/<sha256>           prompts over 64 KiB, inputs, packed local repositories
    <home>/repos/        bare mirrors, one per repository address
    <home>/tools/<tool>/<version>   agent CLIs at pinned versions
    <home>/images/       what virtual machines are made from
    <home>/machines/     the worker's SSH key, frozen states of virtual machines, the accelerator that was found
    <home>/kept/         one note for each virtual machine that nobody runs and no sweep may touch
    <home>/sandboxes/    what the providers of this host keep
    <home>/journal/      one fsynced line per sandbox, from before create until after destroy; what the guest of one
                         that survives its worker has reached

The folder is private (mode 0700): the socket of the embedded store is in it or beside it, and whoever can reach that
socket can run jobs as this user.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import BadInput
from tatin_jobs.spread import spread


@dataclass(frozen=True)
class Home:
    """The paths under one TATIN_HOME. Making a Home touches nothing; ``prepare`` makes the folders."""

    root: Path

    @property
    def settings_file(self) -> Path:
        return self.root / "tatin.toml"

    @property
    def worker_lock(self) -> Path:
        return self.root / "worker.lock"

    @property
    def claim_note(self) -> Path:
        return self.root / "claim"

    @property
    def reach(self) -> Path:
        return self.root / "reach.json"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def repos(self) -> Path:
        return self.root / "repos"

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def sandboxes(self) -> Path:
        return self.root / "sandboxes"

    @property
    def kept(self) -> Path:
        return self.root / "kept"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    def attempt(self, job: str, attempt: int) -> Path:
        """Where the results of one attempt lie."""
        return self.jobs / job / f"attempt-{attempt}"

    def prepare(self) -> None:
        """Make the folders that are missing; safe to call at any time and by several processes at once.

        Raises:
            BadInput: the folder cannot be made or is somebody else's.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.root.stat().st_uid != os.geteuid():
                raise BadInput(
                    f"TATIN_HOME '{self.root}' belongs to another user.", try_="set TATIN_HOME to a folder of yours."
                )
            self.root.chmod(0o700)
            for folder in (
                self.store,
                self.jobs,
                self.blobs,
                self.repos,
                self.tools,
                self.images,
                self.machines,
                self.sandboxes,
                self.journal,
            ):
                folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.jobs, self.sandboxes):
                spread(folder)
        except OSError as error:
            raise BadInput(
                f"TATIN_HOME '{self.root}' cannot be used.",
                seen=str(error),
                try_="set TATIN_HOME to a folder of yours.",
            ) from error

    def id(self) -> str:
        """The eight hex digits of this home, drawn on first use."""
        path = self.root / "id"
        if not path.exists():
            draft = self.root / f".id-{os.getpid()}-{secrets.token_hex(4)}"
            draft.write_text(secrets.token_hex(4))
            try:
                os.link(draft, path)  # whole or not at all, and the first of two processes wins
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text().strip()
