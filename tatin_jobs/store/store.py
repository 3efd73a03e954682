"""The store: every move of a job, and every question about jobs. Synchronous and thread-safe."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence

from tatin_jobs.errors import BadInput, TatinError, WrongState
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
            BadInput: an id is known with other content, or is none.
        """
        for name in (batch.id, *(job.id for job in jobs)):
            if not ID.fullmatch(name):
                raise BadInput(f"{name[:60]!r} is no id of a job or batch; nothing was submitted.")
        bodies = [_submission(job) for job in jobs]
        body = batch.model_dump_json()
        digest = hashlib.sha256("\n".join([body, *bodies]).encode()).hexdigest()
        answer = self._scripts.call("submit", batch.id, body, digest, to_ms(batch.created_at), *bodies)
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
        """Queue a held job now, whatever it is held for. Raises WrongState when it is not held."""
        return self._person("release", job_id, "released")

    def _person(self, script: str, job_id: str, done: str) -> Job:
        answer = self._scripts.call(script, job_id, secrets.token_hex(8))
        if text(answer[0]) == "refused":
            state = text(answer[1])
            if state == "unknown":
                raise unknown(job_id)
            raise WrongState(f"Job '{job_id}' is {state} and cannot be {done}.", try_=f"tatin show {job_id}")
        return self.job(job_id)

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
        """Whether ``asker`` is the one that tells people of this. The same asker again gets the same answer."""
        key, field = self._key(f"batch:{batch}"), f"notified:{event}"
        with store_errors():
            self._client.hsetnx(key, field, asker)
            return text(self._client.hget(key, field)) == asker


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
