"""Whether the service that this worker is reaches its guests; tried before it claims anything, where it may not.

macOS keeps what launchd started from the network of Tart's guests until a user allows it, and lets a program of
Terminal through: so only the service can find out. It makes one machine, and again until that works, and notes what it
saw in ``<home>/reach.json``, which ``tatin worker install`` and ``tatin doctor`` wait for and show.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import UTC, datetime
from typing import Literal

import psutil
from pydantic import ValidationError

from tatin_jobs.errors import AttemptError
from tatin_jobs.home import Home
from tatin_jobs.models import Frozen
from worker.context import Context
from worker.sandboxes.base import Finding, SandboxSpec
from worker.sandboxes.names import sandbox_name
from worker.sweep import destroy_sandbox

SERVICE_VARIABLE = "TATIN_SERVICE"
"""Set to ``launchd`` by the agent that ``tatin worker install`` writes."""
AGAIN_SECONDS = 60.0
CREATE_SECONDS = 10 * 60.0
START_SECONDS = 120.0
"""From the start of a service to its first note."""
LOOK_SECONDS = 0.5
_JOB = "the-probe"
_CPUS, _MEMORY_MIB = 2, 2048
"""Of the machine: small, and enough for Debian."""
_TRYING = "it first tries whether its service reaches a guest"

log = logging.getLogger(__name__)


class Reach(Frozen):
    """What the service saw of it last."""

    state: Literal["trying", "yes", "no"]
    seen: str = ""
    fix: str = ""
    at: datetime
    pid: int

    @property
    def finding(self) -> Finding:
        """For ``tatin doctor``."""
        name = "reach of guests"
        if self.state == "yes":
            return Finding(name, True, f"{self.seen} ({self.at:%Y-%m-%d %H:%M} UTC)")
        if self.state == "no":
            return Finding(name, False, self.seen, f"{self.fix}; the service tries again every minute")
        still = "tries still" if psutil.pid_exists(self.pid) else "ended while it tried"
        return Finding(name, False, f"the service {still}", "look at launchd.log in the home")


class Reaching:
    """The worker's part. ``problem`` is why it claims nothing yet, empty when guests are reached or nothing keeps it
    from them; ``sandboxes`` are not the sweep's. Used in the event loop, but for ``problem``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_service = os.environ.get(SERVICE_VARIABLE) == "launchd"
        self._task: asyncio.Task[None] | None = None
        self.sandboxes: set[str] = set()
        self.problem = _TRYING if self._is_service and context.provider.over_network else ""

    async def start(self) -> None:
        """Begin to try, where that is needed."""
        if self.problem:
            self._task = asyncio.create_task(self._keep_trying())
        elif self._is_service:
            await self._note("yes", "its guests are reached without the network of this host")

    async def aclose(self) -> None:
        """Stop trying; the machine is gone then. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_trying(self) -> None:
        await self._note("trying")
        while error := await self._try():
            log.warning("action=reach failed: %s", error)
            self.problem = f"its service reaches no guest ({error.what.rstrip('.')}); `tatin doctor` says what to do"
            await self._note("no", f"{error.what} {error.seen or ''}".strip(), error.try_ or "look at worker.log")
            await asyncio.sleep(AGAIN_SECONDS)
        self.problem = ""
        log.info("action=reach")
        await self._note("yes", "the service reached a guest")

    async def _try(self) -> AttemptError | None:
        """None: a machine was made and answered."""
        name = sandbox_name(self._context.home_id, _JOB, 1)
        spec = SandboxSpec(name, _CPUS, _MEMORY_MIB, disk_mib=1)  # no larger than its image
        self.sandboxes.add(name)
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                await self._context.provider.create(spec)
        except AttemptError as error:
            return error
        except OSError as error:  # a TimeoutError too
            return AttemptError(f"A guest was not made: {str(error) or 'it took too long'}.")
        finally:
            await asyncio.shield(destroy_sandbox(self._context, name))
            self.sandboxes.discard(name)
        return None

    async def _note(self, state: Literal["trying", "yes", "no"], seen: str = "", fix: str = "") -> None:
        reach = Reach(state=state, seen=seen, fix=fix, at=datetime.now(UTC), pid=os.getpid())
        await asyncio.to_thread(_write, self._context.home, reach)


def read_reach(home: Home) -> Reach | None:
    """What was noted last; None: no service of launchd has run on this home."""
    try:
        return Reach.model_validate_json(home.reach.read_bytes())
    except (OSError, ValidationError):
        return None


def wait_for_reach(home: Home, start_seconds: float = START_SECONDS) -> Reach | None:
    """What is noted when the service has tried; None: it noted nothing within ``start_seconds``."""
    began = time.monotonic()
    while True:
        reach = read_reach(home)
        waited = time.monotonic() - began
        trying = reach is not None and reach.state == "trying" and psutil.pid_exists(reach.pid)
        if waited > (CREATE_SECONDS if trying else start_seconds) or (reach and not trying):
            return reach
        time.sleep(LOOK_SECONDS)


def _write(home: Home, reach: Reach) -> None:
    draft = home.reach.with_suffix(".draft")
    draft.write_text(reach.model_dump_json())
    draft.replace(home.reach)
