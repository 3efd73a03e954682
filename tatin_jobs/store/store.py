"""The store: every move of a job, and every question about jobs. Synchronous and thread-safe."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence

from tatin_jobs.errors import BadInput, TatinError, WrongState
from tatin_jobs.gates import QUEUE_GATE, GateKind
from tatin_jobs.models import Batch, Job, Repo
from tatin_jobs.names import ID
from tatin_jobs.states import JobState
from tatin_jobs.store.base import text
from tatin_jobs.store.house import House
from tatin_jobs.store.keys import PRIORITY_STEP, need_class
from tatin_jobs.store.leasing import Leasing
from tatin_jobs.store.questions import unknown
from tatin_jobs.store.records import new_fields, to_ms
from tatin_jobs.store.scripts import store_errors
from tatin_jobs.store.streams import Streams
from tatin_jobs.store.workers import Workers


class Store(Leasing, House, Streams, Workers):
    """Every method may raise StoreUnavailable: the server did not answer or refused; what was asked may have happened,
    and may be asked again."""

    # What people do

    def submit(self, batch: Batch, jobs: Sequence[Job]) -> bool:
        """Record a batch, whole or not at all. True when it is new, False when the very same was there already.

        Raises:
            BadInput: an id is known with other content, or is none; or a job needs one that there is not.
        """
        for name in (batch.id, *(name for job in jobs for name in (job.id, *job.needs))):
            if not ID.fullmatch(name):
                raise BadInput(f"{name[:60]!r} is no id of a job or batch; nothing was submitted.")
        bodies = [_submission(job) for job in jobs]
        body = batch.model_dump_json()
        digest = hashlib.sha256("\n".join([body, *bodies]).encode()).hexdigest()
        answer = self._scripts.call("submit", batch.id, body, digest, to_ms(batch.created_at), *bodies)
        if text(answer[0]) == "refused" and len(answer) > 2:
            what = f"Job '{text(answer[1])}' needs '{text(answer[2])}', which is no job; nothing was submitted."
            raise BadInput(what, try_="`tatin list` shows the ids.")
        if text(answer[0]) == "refused":
            raise BadInput(f"Id '{text(answer[1])}' is taken by another submit; nothing was submitted.")
        return text(answer[0]) == "new"

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job, or mark a running one. Raises WrongState when it is finished."""
        return self._person("cancel", job_id, "cancelled")

    def hold(self, job_id: str) -> Job:
        """Hold a waiting job until it is released. Raises WrongState when it runs or is finished."""
        return self._person("hold", job_id, "held")

    def release(self, job_id: str) -> Job:
        """Let a held job go. What a person held goes back to what else it waits for (its time, other jobs), else into
        its line; what waits for such a thing goes into its line all the same, and past a closed gate. Raises WrongState
        when it is not held."""
        return self._person("release", job_id, "released")

    def _person(self, script: str, job_id: str, done: str) -> Job:
        answer = self._scripts.call(script, job_id, secrets.token_hex(8))
        if text(answer[0]) == "refused":
            state = text(answer[1])
            if state == "unknown":
                raise unknown(job_id)
            if script == "release" and QUEUE_GATE in self._closed_gates():
                raise WrongState(f"Job '{job_id}' is held with the whole queue.", try_="tatin release --queue")
            raise WrongState(f"Job '{job_id}' is {state} and cannot be {done}.", try_=f"tatin show {job_id}")
        return self.job(job_id)

    def hold_queue(self) -> bool:
        """Nothing is claimed until ``release_queue``, jobs that come later included; whether that changed anything."""
        message = "The queue is held by a person; tatin release --queue."
        return bool(self._scripts.call("gate", "close", QUEUE_GATE, GateKind.QUEUE.value, "", message))

    def release_queue(self) -> bool:
        """End ``hold_queue``; whether that changed anything."""
        return self.open_gate(QUEUE_GATE)

    def open_gate(self, gate: str) -> bool:
        """Open the gate of an account, a route or the queue; False when it was open."""
        return bool(self._scripts.call("gate", "open", gate))

    # What is settled once for a batch

    def resolved_commit(self, batch: str, repo: Repo) -> str | None:
        """The commit that the first worker of this batch found for this repository and ref; None before that."""
        with store_errors():
            found = self._client.hget(self._key(f"batch:{batch}"), _repo_field(repo))
        return text(found) if found else None

    def resolve_commit(self, batch: str, repo: Repo, commit: str) -> str:
        """Say what a ref means for the whole batch; the first to say so wins, and its commit is the answer."""
        with store_errors():
            self._client.hsetnx(self._key(f"batch:{batch}"), _repo_field(repo), commit)
            return text(self._client.hget(self._key(f"batch:{batch}"), _repo_field(repo))) or commit

    def first_to_notify(self, batch: str, event: str, asker: str) -> bool:
        """Whether ``asker`` is the one that tells people of this. The same asker again gets the same answer, until it
        ``has_notified``."""
        key, field = self._key(f"batch:{batch}"), f"notified:{event}"
        with store_errors():
            self._client.hsetnx(key, field, asker)
            teller, told = self._client.hmget(key, [field, f"told:{event}"])
            return text(teller) == asker and told is None

    def has_notified(self, batch: str, event: str) -> None:
        """Note that people were told of this."""
        with store_errors():
            self._client.hset(self._key(f"batch:{batch}"), f"told:{event}", "1")


def _submission(job: Job) -> str:
    if job.state not in (JobState.QUEUED, JobState.HELD):
        raise TatinError(f"Job '{job.id}' cannot be submitted as {job.state}.")
    fields = new_fields(job)
    waits = job.needs or job.held_until
    return json.dumps(
        {
            "id": job.id,
            "class": need_class(job.need) + fields["gates"],
            "rank": -job.spec.priority * PRIORITY_STEP,
            "held": job.state is JobState.HELD and not waits,
            "due": str(to_ms(job.held_until)) if job.held_until else "",
            "deadline": fields["deadline"],
            "needs": list(job.needs),
            "fields": fields,
        }
    )


def _repo_field(repo: Repo) -> str:
    return "commit:" + hashlib.sha256(f"{repo.url}\n{repo.ref}".encode()).hexdigest()[:32]
