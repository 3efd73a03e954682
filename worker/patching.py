"""The agent's patch onto a clean clone, in the guest: git reads it there and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tatin_jobs.errors import CommandTimeout
from tatin_jobs.states import Reason
from tatin_jobs.terminal import clean_line
from worker.sandboxes.base import GUEST_REPO, Sandbox
from worker.sandboxes.transfer import feed

SECONDS = 600
_ENV = {"LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
_APPLY = ("git", "-c", "core.hooksPath=/dev/null", "apply", "--whitespace=nowarn", "-")


async def apply_patch(sandbox: Sandbox, patch: Path) -> str | None:
    """Apply a patch, a file on the host that is not empty, to the guest's repository.

    None when it applied; else why not, in a cleaned line, and the clone is as it was.

    Raises:
        SandboxError: the sandbox died. CommandTimeout: it took longer than ``SECONDS``.
    """
    try:
        async with asyncio.timeout(SECONDS), sandbox.exec(_APPLY, env=_ENV, cwd=GUEST_REPO) as process:
            status, stderr = await feed(process, [patch])
    except TimeoutError as error:
        what = f"Applying the patch in sandbox '{sandbox.name}' took longer than {SECONDS} s."
        raise CommandTimeout(what, reason=Reason.VERIFY) from error
    lines = stderr.splitlines()
    return None if status == 0 else clean_line(lines[0] if lines else f"git exited with {status}")
