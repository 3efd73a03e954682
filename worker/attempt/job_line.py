"""The shell lines of a job, setup and verify, run in the repository."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from tatin_jobs.results import CommandFacts
from worker.attempt.parts import Parts
from worker.followed import Followed, run_followed
from worker.live_log import LiveLog
from worker.sandboxes.base import Sandbox, StartSpec


async def run_line(
    parts: Parts,
    sandbox: Sandbox,
    label: str,
    line: str,
    seconds: float,
    *,
    env: Mapping[str, str] | None = None,
    output: str | None = None,
) -> tuple[Followed, CommandFacts]:
    """Run a ``sh -c`` line of the job in the repository; its output is kept beside the result."""
    name = output or f"{label}/output.log"
    (parts.folder / name).parent.mkdir(exist_ok=True)
    spec = StartSpec(
        argv=("sh", "-c", line),
        env=parts.guest_env(env or {}),
        cwd=parts.cwd,
        timeout_seconds=seconds,
        output_limit_bytes=parts.log_limit_bytes,
        label=f"{label}-{secrets.token_hex(8)}",  # where nothing can be before: an agent would hold up its verify
    )
    again, limit, redactor = parts.adopted is not None, parts.log_limit_bytes, parts.context.redactor
    with LiveLog(parts.folder / name, parts.outbox, limit_bytes=limit, again=again, redactor=redactor) as live:
        followed = await run_followed(sandbox, spec, lambda chunk: live.output(chunk.stream, chunk.data))
    await sandbox.kill_all()
    facts = CommandFacts(
        run=line,
        exit_status=followed.exit_status,
        timed_out=followed.timed_out,
        seconds=round(followed.seconds, 3),
        output=name,
    )
    return followed, facts
