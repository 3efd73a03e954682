"""The store: every move of a job, and every question about jobs. Synchronous and thread-safe."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import redis
from pydantic import ValidationError

from tatin_jobs.errors import AmbiguousId, BadInput, LeaseLost, StoreUnavailable, TatinError, UnknownId, WrongState
from tatin_jobs.models import AttemptSummary, Batch, Job, JobEvent, Lease, LogChunk, Need, Offer, Repo, WorkerInfo
from tatin_jobs.names import ID_PREFIX
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tatin_jobs.store.keys import PRIORITY_STEP, SCHEMA, need_class
from tatin_jobs.store.records import from_ms, job_of, new_fields, to_ms
from tatin_jobs.store.scripts import Scripts, connect, store_errors

LOG_PIECE_BYTES = 16 * 1024
MAX_BLOCK_SECONDS = 2.0
"""A blocking read returns at least this often, well within the time limit of a call."""
SEEN_LIMIT_SECONDS = 60
"""A worker that announced itself longer ago is shown as silent."""


class BeatAnswer(StrEnum):
    """What the store says to a beat."""

    HELD = "held"
    CANCEL = "cancel"
    """Still held; a person wants it cancelled."""
    LOST = "lost"
    """A newer attempt holds the job, or it is finished."""


class Store:
    """Every method may raise StoreUnavailable: the server did not answer or refused; what was asked may have happened,
    and may be asked again."""

    def __init__(self, client: redis.Redis, prefix: str = "tatin:") -> None:
        self._client = client
        self._prefix = prefix
        self._scripts = Scripts(client, prefix)
        self._store_id: str | None = None

    def sibling(self, timeout_seconds: float | None = None) -> Store:
        """The same store over connections of its own, so that nobody else's call delays it (I10)."""
        options = dict(self._client.connection_pool.connection_kwargs)
        if timeout_seconds is not None:
            options |= {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        pool = redis.ConnectionPool(connection_class=self._client.connection_pool.connection_class, **options)
        return Store(redis.Redis(connection_pool=pool), self._prefix)

    def prepare(self) -> None:
        """Reach the store and check that its keys are of a schema that this Tatin knows; draws its id on first use."""
        with store_errors():
            meta = self._key("meta")
            self._client.hsetnx(meta, "store_id", secrets.token_hex(6))
            self._client.hsetnx(meta, "schema", str(SCHEMA))
            schema = _text(self._client.hget(meta, "schema"))
        if schema != str(SCHEMA):
            raise StoreUnavailable(
                f"The store was written by another version of Tatin (schema {schema[:10]!r}; this one knows {SCHEMA}).",
                try_="use the Tatin that wrote it, on every host.",
            )

    def run_id(self) -> str:
        """The server's own id of this run of it: another one means that it was restarted (I9)."""
        with store_errors():
            return str(cast("dict[str, Any]", self._client.info("server")).get("run_id", ""))

    # What people do

    def submit(self, batch: Batch, jobs: Sequence[Job]) -> bool:
        """Record a batch, whole or not at all. True when it is new, False when the very same was there already.

        Raises:
            BadInput: an id is known with other content.
        """
        bodies = [_submission(job) for job in jobs]
        body = batch.model_dump_json()
        digest = hashlib.sha256("\n".join([body, *bodies]).encode()).hexdigest()
        answer = self._scripts.call("submit", batch.id, body, digest, to_ms(batch.created_at), *bodies)
        if _text(answer[0]) == "refused":
            raise BadInput(f"Id '{_text(answer[1])}' is taken by another submit; nothing was submitted.")
        return _text(answer[0]) == "new"

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job, or mark a running one. Raises WrongState when it is finished."""
        return self._person("cancel", job_id, "cancelled")

    def hold(self, job_id: str) -> Job:
        """Hold a waiting job until it is released. Raises WrongState when it runs or is finished."""
        return self._person("hold", job_id, "held")

    def release(self, job_id: str) -> Job:
        """Queue a held job now, whatever it is held for. Raises WrongState when it is not held."""
        return self._person("release", job_id, "released")

    def _person(self, script: str, job_id: str, done: str) -> Job:
        answer = self._scripts.call(script, job_id)
        if _text(answer[0]) == "refused":
            state = _text(answer[1])
            if state == "unknown":
                raise _unknown(job_id)
            raise WrongState(f"Job '{job_id}' is {state} and cannot be {done}.", try_=f"tatin show {job_id}")
        return self.job(job_id)

    # Questions

    def job(self, job_id: str) -> Job:
        """One record. Raises UnknownId."""
        found = self.jobs([job_id])
        if not found:
            raise _unknown(job_id)
        return found[0]

    def jobs(self, job_ids: Iterable[str]) -> list[Job]:
        """The records of these ids, in their order; an id that is not known is left out."""
        ids = list(job_ids)
        if not ids:
            return []
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(self._key(f"job:{job_id}"))
            rows = pipe.execute()
        return [job_of(job_id, _decoded(row)) for job_id, row in zip(ids, rows, strict=True) if row]

    def batch(self, batch_id: str) -> Batch:
        """One batch. Raises UnknownId."""
        with store_errors():
            body = self._client.hget(self._key(f"batch:{batch_id}"), "body")
        if body is None:
            raise _unknown(batch_id)
        return Batch.model_validate_json(cast("bytes", body))

    def batches(self, limit: int = 50) -> list[Batch]:
        """The newest batches, newest first."""
        with store_errors():
            ids = cast("list[bytes]", self._client.zrevrange(self._key("batches"), 0, limit - 1))
        return [self.batch(_text(batch_id)) for batch_id in ids]

    def resolve(self, prefix: str) -> str:
        """The one job whose id starts so. Raises UnknownId, AmbiguousId."""
        return self._the_one(prefix, [found for found in self._with_prefix(prefix) if not found.startswith("b-")])

    def resolve_any(self, prefix: str) -> Job | Batch:
        """The one job or batch whose id starts so. Raises UnknownId, AmbiguousId."""
        found = self._the_one(prefix, self._with_prefix(prefix))
        return self.batch(found) if found.startswith("b-") else self.job(found)

    def _with_prefix(self, prefix: str) -> list[str]:
        if not ID_PREFIX.fullmatch(prefix):
            raise UnknownId(f"{prefix[:60]!r} is no id of a job or batch.", try_="`tatin list` shows them.")
        low, high = f"[{prefix}", f"[{prefix}\x7f"
        with store_errors():
            ids = cast("list[bytes]", self._client.zrangebylex(self._key("ids"), low, high, start=0, num=20))
        return [_text(found) for found in ids]

    def _the_one(self, prefix: str, found: list[str]) -> str:
        if prefix in found:
            return prefix
        if not found:
            raise UnknownId(f"No job or batch has an id that starts with '{prefix}'.", try_="`tatin list` shows them.")
        if len(found) > 1:
            shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
            raise AmbiguousId(f"More than one id starts with '{prefix}': {shown}.", try_="write more of it.")
        return found[0]

    def list_jobs(
        self, *, states: Iterable[JobState] | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Job]:
        """Jobs, newest first: those in ``states`` (None: all), created at ``since`` or later, ``limit`` at most."""
        wanted = None if states is None else set(states)
        low: str | int = "-inf" if since is None else to_ms(since)
        jobs: list[Job] = []
        start, page = 0, max(50, min(limit, 500))
        while len(jobs) < limit:
            with store_errors():
                ids = cast(
                    "list[bytes]",
                    self._client.zrevrangebyscore(self._key("all"), "+inf", low, start=start, num=page),
                )
            jobs += [job for job in self.jobs(map(_text, ids)) if wanted is None or job.state in wanted]
            if len(ids) < page:
                break
            start += page
        return jobs[:limit]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with store_errors():
            classes = cast("list[bytes]", self._client.hkeys(self._key("classes")))
            pipe = self._client.pipeline(transaction=False)
            pipe.zcard(self._key("held"))
            pipe.hlen(self._key("beats"))
            pipe.zcard(self._key("finished"))
            for name in classes:
                pipe.zcard(self._key(f"line:{_text(name)}"))
            held, running, finished, *lines = pipe.execute()
        return {
            JobState.QUEUED: sum(lines),
            JobState.HELD: held,
            JobState.RUNNING: running,
            JobState.FINISHED: finished,
        }

    def place_in_line(self, job_id: str) -> int | None:
        """1 for the next of its need class; None when it is not queued."""
        with store_errors():
            name = self._client.hget(self._key(f"job:{job_id}"), "class")
            rank = None if name is None else self._client.zrank(self._key(f"line:{_text(name)}"), job_id)
        return None if rank is None else cast("int", rank) + 1

    def events(self, job_id: str) -> list[JobEvent]:
        """The newest 200 events of a job, oldest first."""
        with store_errors():
            lines = cast("list[bytes]", self._client.lrange(self._key(f"events:{job_id}"), 0, -1))
        found = []
        for line in lines:
            fact = json.loads(line)
            at = from_ms(str(fact["at"]))
            assert at is not None  # the script wrote a number
            found.append(JobEvent(at=at, move=fact["move"], attempt=fact["attempt"], detail=fact["detail"]))
        return found

    def changes(self, cursor: str, block_seconds: float) -> tuple[str, list[str]]:
        """Ids that moved since ``cursor`` (``$``: from now on), waiting for the first; the cursor to go on from."""
        with store_errors():
            if cursor == "$":
                cursor = self._last_change()
            entries = self._read_stream("changes", cursor, block_seconds)
        moved = list(dict.fromkeys(_text(fields[b"id"]) for _, fields in entries))
        return (entries[-1][0] if entries else cursor), moved

    def _last_change(self) -> str:
        newest = cast("list[tuple[bytes, Any]]", self._client.xrevrange(self._key("changes"), count=1))
        return _text(newest[0][0]) if newest else "0"

    def read_log(self, job_id: str, cursor: str = "0", block_seconds: float = 0) -> list[LogChunk]:
        """The live log behind ``cursor`` (``0``: what is still kept), waiting for something when there is nothing."""
        with store_errors():
            entries = self._read_stream(f"log:{job_id}", cursor, block_seconds)
        chunks = []
        for entry, fields in entries:
            try:
                stream = _text(fields[b"s"])
                chunks.append(
                    LogChunk(cursor=entry, attempt=int(fields[b"a"]), stream=cast("Any", stream), data=fields[b"d"])
                )
            except (KeyError, ValueError, ValidationError):
                continue
        return chunks

    def _read_stream(self, name: str, cursor: str, block_seconds: float) -> list[tuple[str, dict[bytes, bytes]]]:
        block = round(min(block_seconds, MAX_BLOCK_SECONDS) * 1000) if block_seconds > 0 else None
        answer = cast("Any", self._client.xread({self._key(name): cursor}, count=500, block=block))
        if not answer:
            return []
        entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
        return [(_text(entry), fields) for entry, fields in entries]

    # Workers

    def announce(self, info: WorkerInfo) -> None:
        """Tell about a worker, as of now."""
        with store_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._key("workers"), info.name, info.model_dump_json(exclude={"seen_at"}))
            pipe.hset(self._key("seen"), info.name, self._now_ms())
            pipe.execute()

    def retire(self, worker: str) -> None:
        """Forget a worker that ended in order, and that it was drained."""
        with store_errors():
            self._client.hdel(self._key("workers"), worker)
            self._client.hdel(self._key("seen"), worker)
            self._client.srem(self._key("draining"), worker)

    def workers(self) -> list[WorkerInfo]:
        """Every worker that is known, with when it was last seen by the store's clock."""
        with store_errors():
            rows = cast("dict[bytes, bytes]", self._client.hgetall(self._key("workers")))
            seen = cast("dict[bytes, bytes]", self._client.hgetall(self._key("seen")))
            draining = cast("set[bytes]", self._client.smembers(self._key("draining")))
        found = []
        for name, row in sorted(rows.items()):
            try:
                info = WorkerInfo.model_validate_json(row)
            except ValidationError:
                continue  # a newer worker's; its own Tatin shows it
            at = from_ms(_text(seen.get(name, b"")))
            found.append(info.model_copy(update={"seen_at": at, "draining": info.draining or name in draining}))
        return found

    def is_silent(self, info: WorkerInfo) -> bool:
        """Whether a worker has not announced itself for a minute, by the store's clock."""
        return info.seen_at is None or self._now_ms() - to_ms(info.seen_at) > SEEN_LIMIT_SECONDS * 1000

    def drain(self, worker: str, on: bool) -> None:
        """Tell a worker to claim nothing more, or to claim again."""
        with store_errors():
            if on:
                self._client.sadd(self._key("draining"), worker)
            else:
                self._client.srem(self._key("draining"), worker)

    def claim(
        self, worker: str, offer: Offer, lingering: Sequence[Need], nonce: str, lease_seconds: float
    ) -> Lease | None:
        """The next job that fits, under a new token. The same nonce again gives the same answer."""
        needs = json.dumps([need.model_dump() for need in lingering])
        answer = self._scripts.call(
            "claim", worker, nonce, offer.model_dump_json(), needs, f"{lease_seconds:g}", self.store_id()
        )
        if _text(answer[0]) == "none":
            return None
        _, job_id, token, attempt = (_text(part) for part in answer)
        return Lease(job=self.job(job_id), token=token, attempt=int(attempt))

    def beat(self, tokens: Mapping[str, str], lease_seconds: float) -> dict[str, BeatAnswer]:
        """Renew these leases (job id -> token); what the store says to each."""
        if not tokens:
            return {}
        pairs = [part for pair in tokens.items() for part in pair]
        answers = self._scripts.call("beat", f"{lease_seconds:g}", *pairs)
        return {job_id: BeatAnswer(_text(word)) for job_id, word in zip(tokens, answers, strict=True)}

    def set_step(self, lease: Lease, step: Step) -> None:
        """Say what the attempt is doing. Raises LeaseLost."""
        self._held(self._scripts.call("step", lease.job.id, lease.token, step.value), lease)

    def write_log(self, lease: Lease, pieces: Sequence[tuple[str, bytes]]) -> None:
        """Add to the live log: (stream, data) each. Raises LeaseLost."""
        parts: list[str | bytes] = []
        for stream, data in pieces:
            for start in range(0, len(data), LOG_PIECE_BYTES):
                parts += [stream, data[start : start + LOG_PIECE_BYTES]]
        self._held(self._scripts.call("log", lease.job.id, lease.token, *parts), lease)

    def finish(
        self,
        lease: Lease,
        outcome: Outcome,
        reason: Reason | None = None,
        message: str = "",
        summary: AttemptSummary | None = None,
    ) -> None:
        """End the job, once. The same end again is accepted. Raises LeaseLost."""
        body = summary.model_dump_json() if summary else ""
        answer = self._scripts.call("finish", lease.job.id, lease.token, outcome.value, reason or "", message[:2000], body)
        self._held(answer, lease)

    def requeue(self, lease: Lease, *, message: str, delay_seconds: float, counted: bool) -> JobState:
        """Give the job back: at once to its old place, or held for a while. ``counted`` uses up a retry. Answers where
        it went; finished when a person had cancelled it. Raises LeaseLost."""
        delay = round(delay_seconds * 1000)
        answer = self._scripts.call("requeue", lease.job.id, lease.token, message[:2000], delay, int(counted))
        self._held(answer, lease)
        return JobState(_text(answer[1]))

    def _held(self, answer: Any, lease: Lease) -> None:
        if _text(answer[0]) == "refused":
            raise LeaseLost(f"Attempt {lease.attempt} of job '{lease.job.id}' does not hold it any more.")

    def resolved_commit(self, batch: str, repo: Repo) -> str | None:
        """The commit that the first worker of this batch found for this repository and ref; None before that."""
        with store_errors():
            found = self._client.hget(self._key(f"batch:{batch}"), _repo_field(repo))
        return _text(found) if found else None

    def resolve_commit(self, batch: str, repo: Repo, commit: str) -> str:
        """Say what a ref means for the whole batch; the first to say so wins, and its commit is the answer."""
        with store_errors():
            self._client.hsetnx(self._key(f"batch:{batch}"), _repo_field(repo), commit)
            return _text(self._client.hget(self._key(f"batch:{batch}"), _repo_field(repo))) or commit

    def first_to_notify(self, batch: str, event: str) -> bool:
        """Whether the caller is the one that tells people of this; true once."""
        with store_errors():
            return bool(self._client.hsetnx(self._key(f"batch:{batch}"), f"notified:{event}", "1"))

    # Reapers

    def beats(self) -> dict[str, str]:
        """Job id -> ``token|beat|lease seconds`` of every lease."""
        with store_errors():
            rows = cast("dict[bytes, bytes]", self._client.hgetall(self._key("beats")))
        return _decoded(rows)

    def reap(self, job_id: str, seen: str, max_deaths: int) -> JobState | None:
        """Take a job back whose beat is still ``seen``; None when it is not."""
        answer = self._scripts.call("reap", job_id, seen, max_deaths)
        return None if _text(answer[0]) == "refused" else JobState(_text(answer[1]))

    def release_due(self, limit: int = 200) -> int:
        """Queue the held jobs whose time has come; how many went."""
        return int(self._scripts.call("release_due", limit))

    def wake(self, cursor: str, block_seconds: float) -> str:
        """Wait until something became claimable since ``cursor`` (``0`` at first); the cursor to go on from."""
        with store_errors():
            entries = self._read_stream("wake", cursor, block_seconds)
        return entries[-1][0] if entries else cursor

    # Keeping house

    def forget(self, job_ids: Sequence[str]) -> int:
        """Remove the records of finished jobs; one that is not finished stays."""
        gone = 0
        for start in range(0, len(job_ids), 500):
            gone += int(self._scripts.call("forget", *job_ids[start : start + 500]))
        return gone

    def forget_empty_batches(self, batch_ids: Iterable[str]) -> int:
        """Remove batches of which no job's record is left."""
        gone = 0
        for batch_id in batch_ids:
            if not self.jobs(self.batch(batch_id).jobs):
                with store_errors():
                    self._client.zrem(self._key("batches"), batch_id)
                    self._client.zrem(self._key("ids"), batch_id)
                    self._client.delete(self._key(f"batch:{batch_id}"))
                gone += 1
        return gone

    def misplaced(self) -> list[str]:
        """Ids of jobs that are in no place or in two (I1)."""
        with store_errors():
            ids = [_text(found) for found in cast("list[bytes]", self._client.zrange(self._key("all"), 0, -1))]
        wrong = []
        for start in range(0, len(ids), 500):
            page = ids[start : start + 500]
            with store_errors():
                pipe = self._client.pipeline(transaction=True)
                for job_id in page:
                    pipe.hmget(self._key(f"job:{job_id}"), "state", "class", "worker")
                rows = pipe.execute()
                pipe = self._client.pipeline(transaction=True)
                for job_id, (_, name, worker) in zip(page, rows, strict=True):
                    pipe.zscore(self._key(f"line:{_text(name)}"), job_id)
                    pipe.zscore(self._key("held"), job_id)
                    pipe.hexists(self._key(f"leases:{_text(worker)}"), job_id)
                    pipe.zscore(self._key("finished"), job_id)
                places = pipe.execute()
            for index, (job_id, row) in enumerate(zip(page, rows, strict=True)):
                line, held, leased, finished = places[4 * index : 4 * index + 4]
                where = [line is not None, held is not None, bool(leased), finished is not None]
                order = [JobState.QUEUED, JobState.HELD, JobState.RUNNING, JobState.FINISHED]
                if where != [_text(row[0]) == state.value for state in order]:
                    wrong.append(job_id)
        return wrong

    def server_settings(self) -> dict[str, str]:
        """What ``doctor`` looks at: version, appendonly, maxmemory-policy; empty where the server tells nothing."""
        found: dict[str, str] = {}
        with store_errors():
            info = cast("dict[str, Any]", self._client.info())
        found["version"] = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version')}"
        found["appendonly"] = "yes" if info.get("aof_enabled") else "no"
        found["maxmemory-policy"] = str(info.get("maxmemory_policy", ""))
        return found

    def store_id(self) -> str:
        """Drawn once; part of every token, since an emptied store counts from 1 again (I2)."""
        if self._store_id is None:
            with store_errors():
                self._store_id = _text(self._client.hget(self._key("meta"), "store_id"))
            if not self._store_id:
                self.prepare()
                return self.store_id()
        return self._store_id

    def _now_ms(self) -> int:
        with store_errors():
            seconds, micros = cast("tuple[int, int]", self._client.time())
        return seconds * 1000 + micros // 1000

    def _key(self, name: str) -> str:
        return self._prefix + name


def _submission(job: Job) -> str:
    if job.state not in (JobState.QUEUED, JobState.HELD):
        raise TatinError(f"Job '{job.id}' cannot be submitted as {job.state}.")
    held = ""
    if job.state is JobState.HELD:
        held = str(to_ms(job.held_until)) if job.held_until else "+inf"
    return json.dumps(
        {
            "id": job.id,
            "class": need_class(job.need),
            "rank": -job.spec.priority * PRIORITY_STEP,
            "held_until": held,
            "fields": new_fields(job),
        }
    )


def _repo_field(repo: Repo) -> str:
    return "commit:" + hashlib.sha256(f"{repo.url}\n{repo.ref}".encode()).hexdigest()[:32]


def _unknown(what: str) -> UnknownId:
    return UnknownId(f"There is no job or batch '{what[:60]}'.", try_="`tatin list` shows them.")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _decoded(row: Mapping[bytes, bytes]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in row.items()}


__all__ = ["BeatAnswer", "Store", "connect"]
