"""The host's own memory of its sandboxes: one fsynced file each, from before create until after verified destroy (I5).

It survives what the store does not, and says which job and token a left-over sandbox belonged to.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from tatin_jobs.models import Frozen, Need
from tatin_jobs.results import sync_folder


class Entry(Frozen):
    """What is known of one sandbox."""

    sandbox: str
    job: str
    attempt: int
    token: str
    need: Need


class Journal:
    """The entries under one home's ``journal`` folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: Entry) -> None:
        """Note a sandbox that is about to be made; on the disk when this returns."""
        path = self._path(entry.sandbox)
        draft = path.with_suffix(".draft")
        with draft.open("w") as file:
            file.write(entry.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(self._folder)

    def remove(self, sandbox: str) -> None:
        """Forget a sandbox that is verified gone; safe to call twice."""
        self._path(sandbox).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """All that is noted. A file that cannot be read is left where it is: its sandbox is found by its name."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(Entry.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError):
                continue
        return found

    def _path(self, sandbox: str) -> Path:
        return self._folder / f"{sandbox}.json"
