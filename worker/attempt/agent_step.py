"""The agent: started, or found running; its output followed to its end; then the snapshot and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable

from tatin_jobs.results import LOG_FILE
from worker.adoption import AGENT_LABEL
from worker.agents.base import AgentReader, Verdict
from worker.attempt.collecting import take_snapshot
from worker.attempt.going_on import keep_network, note_going
from worker.attempt.judging import judge
from worker.attempt.parts import Parts
from worker.events import EventLog
from worker.followed import Followed, cpu_of, follow_run
from worker.live_log import LiveLog
from worker.sandboxes.base import Run, RunChunk, Sandbox, StartSpec

STDERR_TAIL_BYTES = 8192
"""What a verdict sees of it."""


async def run_agent(parts: Parts, sandbox: Sandbox) -> Verdict:
    """Run it to its end, or to what is left of it; when this returns, nothing of it runs."""
    await parts.network.enter("agent")
    keep_network(parts)
    reader = parts.agent_adapter.reader()
    has_events = parts.agent_adapter.prints_events
    spec = _start_spec(parts)
    again, limit, redactor = parts.adopted is not None, parts.log_limit_bytes, parts.context.redactor
    with LiveLog(parts.folder / LOG_FILE, parts.outbox, limit_bytes=limit, again=again, redactor=redactor) as live:
        listener = _Listener(reader, live, parts.events, shows_events=has_events)
        run, started = await _start(parts, sandbox, spec)
        finished = (lambda: reader.finished) if has_events else None
        followed = await _follow(parts, sandbox, run, spec, listener.hear, started, finished)
        if followed.cut:
            live.say_cut()
    await sandbox.kill_all()
    if parts.facts.snapshot is None:
        await take_snapshot(parts, sandbox)
        await note_going(parts, started)
    verdict = await judge(parts, sandbox, followed, reader, bytes(listener.stderr_tail))
    _note(parts, followed, verdict, log_cut=live.cut)
    return verdict


class _Listener:
    """The agent's output on its way to its reader, the live log and the events."""

    def __init__(self, reader: AgentReader, live: LiveLog, events: EventLog, *, shows_events: bool) -> None:
        self.stderr_tail = bytearray()
        self._reader = reader
        self._live = live
        self._events = events
        self._shows_events = shows_events

    def hear(self, chunk: RunChunk) -> None:
        if chunk.stream == "stdout":
            events = self._reader.feed(chunk.data)
            self._live.output(chunk.stream, chunk.data, events if self._shows_events else None)
            self._events.agent(events)
        else:
            self._live.output(chunk.stream, chunk.data)
            self.stderr_tail.extend(chunk.data)
            del self.stderr_tail[:-STDERR_TAIL_BYTES]


def _start_spec(parts: Parts) -> StartSpec:
    return StartSpec(
        argv=parts.plan.argv,
        env=parts.guest_env(parts.plan.env),
        cwd=parts.cwd,
        stdin_path=parts.plan.stdin_path,
        timeout_seconds=parts.spec.timeout_seconds,
        output_limit_bytes=parts.log_limit_bytes,
        label=AGENT_LABEL,
    )


async def _start(parts: Parts, sandbox: Sandbox, spec: StartSpec) -> tuple[Run, float]:
    """The agent's run, and when it was started by the monotonic clock."""
    if parts.adopted:
        return sandbox.started(spec.label), parts.adopted.going.started
    started = time.monotonic()
    run = await sandbox.start(spec)
    await note_going(parts, started)
    return run, started


async def _follow(
    parts: Parts,
    sandbox: Sandbox,
    run: Run,
    spec: StartSpec,
    hear: Callable[[RunChunk], None],
    started: float,
    finished: Callable[[], bool] | None,
) -> Followed:
    gateway = parts.gateway
    return await follow_run(
        run,
        spec,
        hear,
        started=started,
        idle_seconds=parts.spec.idle_timeout_seconds,
        other_activity=(lambda: gateway.usage.last_activity) if gateway else (lambda: 0.0),
        enough=gateway.usage.enough if gateway else None,
        cpu_seconds=cpu_of(sandbox),
        finished=finished,
    )


def _note(parts: Parts, followed: Followed, verdict: Verdict, *, log_cut: bool) -> None:
    parts.facts.agent = parts.facts.agent.model_copy(
        update={
            "exit_status": None if followed.lingered else followed.exit_status,
            "timed_out": followed.timed_out,
            "seconds": round(followed.seconds, 3),
            "stdout_bytes": followed.stdout_bytes,
            "stderr_bytes": followed.stderr_bytes,
            "log_cut": log_cut,
            "final_text": verdict.final_text,
        }
    )
