"""Questions about jobs and batches. Nothing here reads a whole queue (F44)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import cast

from pydantic import ValidationError

from tatin_jobs.errors import AmbiguousId, TatinError, UnknownId
from tatin_jobs.gates import Gate, gates_in
from tatin_jobs.models import Batch, Job, JobEvent
from tatin_jobs.names import ID_PREFIX
from tatin_jobs.states import JobState
from tatin_jobs.store.base import Base, decoded, text
from tatin_jobs.store.records import behind_gates, closed_gate, from_ms, job_of, to_ms
from tatin_jobs.store.scripts import repeated, store_errors

_MANY = 1000
"""More jobs than this in the wanted states: they are found by walking all jobs, newest first."""
_PAGE = 500

log = logging.getLogger(__name__)


class Questions(Base):
    """Reads only."""

    def job(self, job_id: str) -> Job:
        """One record. Raises UnknownId, and TatinError when this Tatin cannot read it."""
        found = self.jobs([job_id])
        if not found:
            raise unknown(job_id)
        return found[0]

    def jobs(self, job_ids: Iterable[str]) -> list[Job]:
        """The records of these ids, in their order; an id that is not known is left out. Raises TatinError when this
        Tatin cannot read one of them."""
        return [job_of(job_id, row) for job_id, row in self._rows(job_ids)]

    def gates(self) -> list[Gate]:
        """The gates that are closed, and the held routes that wait for a probe."""
        return list(self._closed_gates().values())

    def _closed_gates(self) -> dict[str, Gate]:
        ids = self._members("gates")
        if not ids:
            return {}
        rows = repeated(partial(self._hashes, [f"gate:{gate}" for gate in ids]))
        now = self._now_ms()
        found = (closed_gate(gate, decoded(row), now) for gate, row in zip(ids, rows, strict=True))
        return {gate.id: gate for gate in found if gate is not None}

    def _rows(self, job_ids: Iterable[str]) -> list[tuple[str, Mapping[str, str]]]:
        """The records as they are shown: a queued job whose gate is closed is held."""
        rows = self._records(job_ids)
        gates = self._closed_gates() if any(row.get("state") == JobState.QUEUED for _, row in rows) else {}
        return [(job_id, behind_gates(row, gates)) for job_id, row in rows] if gates else rows

    def _records(self, job_ids: Iterable[str]) -> list[tuple[str, Mapping[str, str]]]:
        ids = list(job_ids)
        found: list[tuple[str, Mapping[str, str]]] = []
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            rows = repeated(partial(self._hashes, [f"job:{job_id}" for job_id in page]))
            found += [(job_id, decoded(row)) for job_id, row in zip(page, rows, strict=True) if row]
        return found

    def _hashes(self, names: Iterable[str]) -> list[dict[bytes, bytes]]:
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._key(name))
        return cast("list[dict[bytes, bytes]]", pipe.execute())

    def batch(self, batch_id: str) -> Batch:
        """One batch. Raises UnknownId."""
        found = self._batches([batch_id])
        if not found:
            raise unknown(batch_id)
        return found[0]

    def batches(self, limit: int = 50) -> list[Batch]:
        """The newest batches, newest first."""
        return self._batches(self._members("batches", 0, limit - 1, newest_first=True))

    def _batches(self, batch_ids: Iterable[str]) -> list[Batch]:
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            for batch_id in batch_ids:
                pipe.hget(self._key(f"batch:{batch_id}"), "body")
            bodies = pipe.execute()
        return [Batch.model_validate_json(body) for body in bodies if body]

    def resolve(self, prefix: str) -> str:
        """The one job whose id starts so. Raises UnknownId, AmbiguousId."""
        return _the_one(prefix, [found for found, is_job in self._with_prefix(prefix) if is_job])

    def resolve_any(self, prefix: str) -> Job | Batch:
        """The one job or batch whose id starts so. Raises UnknownId, AmbiguousId."""
        kinds = dict(self._with_prefix(prefix))
        found = _the_one(prefix, list(kinds))
        return self.job(found) if kinds[found] else self.batch(found)

    def _with_prefix(self, prefix: str) -> list[tuple[str, bool]]:
        """Ids that start so, each with whether it is a job's: a job may be called ``b``, and a batch's id starts so."""
        if not ID_PREFIX.fullmatch(prefix):
            raise UnknownId(f"{prefix[:60]!r} is no id of a job or batch.", try_="`tatin list` shows them.")
        with store_errors():
            low, high = f"[{prefix}", f"[{prefix}\x7f"
            found = cast("list[bytes]", self._client.zrangebylex(self._key("ids"), low, high, start=0, num=50))
            pipe = self._client.pipeline(transaction=False)
            for one in found:
                pipe.exists(self._key(f"job:{text(one)}"))
            are_jobs = pipe.execute()
        return [(text(one), bool(is_job)) for one, is_job in zip(found, are_jobs, strict=True)]

    def list_jobs(
        self, *, states: Iterable[JobState] | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Job]:
        """Jobs, newest first: those in ``states`` (None: all), created at ``since`` or later, ``limit`` at most. A
        record that this Tatin cannot read is left out, with a line in the log."""
        wanted = set(JobState) if states is None else set(states)
        if states is not None and sum(count for state, count in self.counts().items() if state in wanted) <= _MANY:
            found = [job for job in self._readable(self._ids_in(wanted)) if since is None or job.created_at >= since]
            found.sort(key=lambda job: (job.created_at, job.id), reverse=True)
            jobs = [job for job in found if job.state in wanted]
        else:
            jobs = self._newest(wanted, since, limit)
        return jobs[:limit]

    def first_in_line(self, limit: int) -> list[Job]:
        """The queued jobs that come first, in the order of all lines together; ``limit`` at most."""
        gates = self._closed_gates()
        names = [name for name in self._classes() if not gates.keys() & set(gates_in(name))]
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.zrange(self._key(f"line:{name}"), 0, limit - 1, withscores=True)
            lines = cast("list[list[tuple[bytes, float]]]", pipe.execute())
        ranked = sorted((score, text(job_id)) for line in lines for job_id, score in line)
        found = self._readable(job_id for _, job_id in ranked[:limit])
        return [job for job in found if job.state is JobState.QUEUED]

    def _newest(self, wanted: set[JobState], since: datetime | None, limit: int) -> list[Job]:
        low: str | int = "-inf" if since is None else to_ms(since)
        jobs: list[Job] = []
        start, page = 0, max(50, min(limit, _PAGE))
        while len(jobs) < limit:
            with store_errors():
                found = cast(
                    "list[bytes]", self._client.zrevrangebyscore(self._key("all"), "+inf", low, start=start, num=page)
                )
            jobs += [job for job in self._readable(map(text, found)) if job.state in wanted]
            if len(found) < page:
                break
            start += page
        return jobs

    def _ids_in(self, states: set[JobState]) -> list[str]:
        """Ids in these states by the places they are in."""
        ids: list[str] = []
        if states & {JobState.QUEUED, JobState.HELD}:
            gates = self._closed_gates()
            for name in self._classes():
                if (JobState.HELD if gates.keys() & set(gates_in(name)) else JobState.QUEUED) in states:
                    ids += self._members(f"line:{name}")
        if JobState.HELD in states:
            ids += self._members("held")
        if JobState.FINISHED in states:
            ids += self._members("finished")
        if JobState.RUNNING in states:
            ids += self.beats()
        return ids

    def _readable(self, job_ids: Iterable[str]) -> list[Job]:
        jobs = []
        for job_id, row in self._rows(job_ids):
            try:
                jobs.append(job_of(job_id, row))
            except TatinError as error:
                log.warning("job=%s left out: %s", job_id, error)
        return jobs

    def _classes(self) -> list[str]:
        with store_errors():
            return [text(name) for name in cast("list[bytes]", self._client.hkeys(self._key("classes")))]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        classes, gates = self._classes(), self._closed_gates()
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.zcard(self._key("held"))
            pipe.hlen(self._key("beats"))
            pipe.zcard(self._key("finished"))
            for name in classes:
                pipe.zcard(self._key(f"line:{name}"))
            held, running, finished, *lines = pipe.execute()
        gated = sum(count for name, count in zip(classes, lines, strict=True) if gates.keys() & set(gates_in(name)))
        return {
            JobState.QUEUED: sum(lines) - gated,
            JobState.HELD: held + gated,
            JobState.RUNNING: running,
            JobState.FINISHED: finished,
        }

    def place_in_line(self, job_id: str) -> int | None:
        """1 for the next of its need class; None when it is not queued."""
        with store_errors():
            name = self._client.hget(self._key(f"job:{job_id}"), "class")
            rank = None if name is None else self._client.zrank(self._key(f"line:{text(name)}"), job_id)
        return None if rank is None else cast("int", rank) + 1

    def events(self, job_id: str) -> list[JobEvent]:
        """The newest 200 events of a job, oldest first."""
        with store_errors():
            lines = cast("list[bytes]", self._client.lrange(self._key(f"events:{job_id}"), 0, -1))
        found = []
        for line in lines:
            try:
                fact = json.loads(line)
                found.append(JobEvent.model_validate({**fact, "at": from_ms(str(fact["at"]))}))
            except (KeyError, TypeError, ValueError, OverflowError, OSError, ValidationError):
                log.warning("job=%s: an event cannot be read", job_id)
        return found

    def beats(self) -> dict[str, str]:
        """Job id -> ``token|beat|lease seconds`` of every lease."""
        with store_errors():
            return decoded(cast("dict[bytes, bytes]", self._client.hgetall(self._key("beats"))))


def _the_one(prefix: str, found: list[str]) -> str:
    if prefix in found:
        return prefix
    if not found:
        raise UnknownId(f"No job or batch has an id that starts with '{prefix}'.", try_="`tatin list` shows them.")
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
        raise AmbiguousId(f"More than one id starts with '{prefix}': {shown}.", try_="write more of it.")
    return found[0]


def unknown(what: str) -> UnknownId:
    """The error about an id that no job or batch has."""
    return UnknownId(f"There is no job or batch '{what[:60]}'.", try_="`tatin list` shows them.")
