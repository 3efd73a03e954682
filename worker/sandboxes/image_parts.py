"""Whether a guest's image holds what its job needs."""

from __future__ import annotations

from collections.abc import Sequence

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import Sandbox


def check_parts(sandbox: Sandbox, needed: Sequence[str]) -> None:
    """Fine for a guest without an image: its tools were looked for on the host.

    Raises:
        SandboxError: the image was built without a part that the job's agent is.
    """
    lacking = [part for part in needed if sandbox.image and not sandbox.parts.get(part)]
    if lacking:
        raise SandboxError(
            f"The image '{sandbox.image}' was built without {', '.join(lacking)}.",
            try_="build it with that part, or give the job another image or sandbox.",
        )
