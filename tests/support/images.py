"""An image of a home that nothing can boot, for what only looks at images."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tatin_jobs.home import Home
from worker.capacity import host_arch
from worker.images.store import FILES, ImageNote, publish


def publish_image(home: Home, **changes: Any) -> Path:
    """Publish ``tatin`` with every file that an image has, and a note with these ``changes``; its folder."""
    draft = home.images / ".building"
    draft.mkdir()
    for name in FILES:
        (draft / name).write_bytes(b"x")
    values: dict[str, Any] = {
        "name": "tatin",
        "digest": "a" * 64,
        "build_key": "k",
        "profile": "full",
        "arch": host_arch(),
        "debian": "13.1",
        "disk_mib": 100,
        "built_at": datetime.now(UTC),
        "parts": {"go": "go version go1.24.4 linux/amd64", "crush": None},
    }
    return publish(home, draft, ImageNote(**{**values, **changes})).folder
