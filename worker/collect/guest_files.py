"""Files of Tatin's in the guest that an earlier step writes and collecting reads."""

from __future__ import annotations

from typing import Final

from worker.sandboxes.base import GUEST_RUN

BASE_INDEX_NAME: Final = "base.index"
"""git's index as it was right after the clone: what did not change since need not be read again."""
SNAPSHOT_NAME: Final = "snapshot"
"""The folder of the patch, the bundle and the repository folder that they are made with."""
SNAPSHOT_FOLDERS: Final = {f"{GUEST_RUN}/{SNAPSHOT_NAME}/git/{name}/.keep": b"" for name in ("objects", "refs")}
"""They go in with the prompt, which saves ``snapshot.sh`` a program that makes them."""
