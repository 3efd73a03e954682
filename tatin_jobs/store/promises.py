"""What Tatin needs of a server of somebody else's so that no job is lost in it (F28): for ``doctor`` and the worker."""

from __future__ import annotations

from dataclasses import dataclass

from tatin_jobs.store.store import Store


@dataclass(frozen=True)
class Promise:
    """One setting of the server: whether it will do, what was seen, and what to set."""

    name: str
    kept: bool
    seen: str
    fix: str


def store_promises(store: Store) -> list[Promise]:
    """One for persistence and one for eviction. A server that tells nothing is believed."""
    found = store.server_settings()
    lasting, policy = found["appendonly"] == "yes", found["maxmemory-policy"]
    return [
        Promise(
            "store keeps jobs when it restarts",
            lasting,
            f"appendonly {found['appendonly']}",
            "" if lasting else "set `appendonly yes` on that server",
        ),
        Promise(
            "store evicts nothing",
            policy in ("noeviction", ""),
            f"maxmemory-policy {policy or 'unknown'}",
            "" if policy in ("noeviction", "") else "set `maxmemory-policy noeviction` on that server",
        ),
    ]
