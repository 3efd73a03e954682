"""The host's own memory of its sandboxes: one fsynced file each, from before create until after verified destroy (I5).

It survives what the store does not, and says which job and token a left-over sandbox belonged to; of one that survives
its worker, also what the next worker must know to go on with its attempt.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError

from tatin_jobs.models import Frozen, Need
from tatin_jobs.results import AgentFacts, CommandFacts, NetworkFacts, StepTime, sync_folder
from worker.collect.spec import Snapshot


class Going(Frozen):
    """The agent of this attempt was started: what was known by then. Written only where a sandbox survives its worker.
    The model's token is the attempt's own and worth nothing elsewhere; the file is readable by this user alone."""

    started: float
    """Monotonic seconds of this boot of the host."""
    agent: AgentFacts
    steps: tuple[StepTime, ...]
    setup: CommandFacts | None
    commit: str | None
    base_tar: str | None
    transcript_paths: tuple[str, ...]
    route_token: str | None
    allow_lists: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """What each ready-made list of the job stands for: asked before the repository was there, and not again."""
    snapshot: Snapshot | None = None
    """Of the agent's work, once that is over: verify may have changed more since."""


class Entry(Frozen):
    """What is known of one sandbox."""

    sandbox: str
    job: str
    attempt: int
    token: str
    need: Need
    going: Going | None = None
    adoptions: int = 0
    """How many workers went on with it after the one that made it."""


class Journal:
    """The entries under one home's ``journal`` folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: Entry) -> None:
        """Note a sandbox that is about to be made; on the disk when this returns."""
        _write_whole(self._path(entry.sandbox), entry.model_dump_json(), durable=True)
        sync_folder(self._folder)

    def note_network(self, sandbox: str, facts: NetworkFacts) -> None:
        """What the guest has reached and been refused so far, for who adopts it; nothing is written of a sandbox that
        is gone. Not synced: after a crash of the host nobody adopts anything."""
        if not self._path(sandbox).exists():
            return
        _write_whole(self._network_path(sandbox), facts.model_dump_json(), durable=False)

    def network(self, sandbox: str) -> NetworkFacts | None:
        """What ``note_network`` wrote last; None where nothing can be read."""
        try:
            return NetworkFacts.model_validate_json(self._network_path(sandbox).read_bytes())
        except (OSError, ValidationError):
            return None

    def clear_drafts(self) -> None:
        """Remove what a worker began to write and did not live to, and what it wrote of sandboxes that are gone; only
        when no worker of this home writes."""
        for path in self._folder.glob("*.draft"):
            path.unlink(missing_ok=True)
        for path in self._folder.glob("*.network"):
            if not self._path(path.stem).exists():
                path.unlink(missing_ok=True)

    def remove(self, sandbox: str) -> None:
        """Forget a sandbox that is verified gone; safe to call twice."""
        self._path(sandbox).unlink(missing_ok=True)
        self._network_path(sandbox).unlink(missing_ok=True)

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

    def _network_path(self, sandbox: str) -> Path:
        return self._folder / f"{sandbox}.network"


def _write_whole(path: Path, text: str, *, durable: bool) -> None:
    """All of it or nothing. ``durable``: the text is on the disk before the name is."""
    draft = path.with_name(f"{path.name}.draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    draft.replace(path)
