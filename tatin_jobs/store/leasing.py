"""The moves of those who hold a job and of those who take it back. Every write carries the token of its attempt."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tatin_jobs.errors import Forgotten, LeaseLost, TatinError
from tatin_jobs.gates import PROBE_SECONDS, ROUTE_FAILURES, account_gate, route_gate, route_name
from tatin_jobs.models import RECORD_VERSION, AttemptSummary, Lease, Need, Offer
from tatin_jobs.names import ID
from tatin_jobs.states import JobState, Outcome, Reason, Step
from tatin_jobs.store.base import text
from tatin_jobs.store.questions import Questions
from tatin_jobs.store.records import job_of

LOG_PIECE_BYTES = 4 * 1024
RESERVE_AFTER_SECONDS = 600.0
"""A queued job that has waited so long, by the store's clock, for room on a host of its size reserves one (F45)."""
MESSAGE_CHARACTERS = 2000

log = logging.getLogger(__name__)


class BeatAnswer(StrEnum):
    """What the store says to a beat."""

    HELD = "held"
    CANCEL = "cancel"
    """Still held; a person wants it cancelled."""
    OVERDUE = "overdue"
    """Still held; its deadline has come."""
    OVER = "over"
    """This attempt's own end is recorded: there is nothing to renew, and nothing was lost."""
    UNKNOWN = "unknown"
    """The store does not know the job: it was emptied. Nobody else runs it, so the attempt goes on (F26)."""
    LOST = "lost"
    """A newer attempt holds the job, or it was taken away."""


@dataclass(frozen=True)
class RouteNews:
    """What became of a model route: whether it is held, and how often this job failed on it while it was."""

    held: bool
    failures: int


class Booked(Need):
    """What a sandbox takes, and which attempt it was made for: while that attempt has its lease, the claim counts
    them once."""

    job: str
    token: str

    @classmethod
    def of(cls, need: Need, job: str, token: str) -> Booked:
        return cls(**need.model_dump(), job=job, token=token)


class Standing(Need):
    """What a machine takes that no attempt owns: room, and no slot."""

    slots: int = 0


class Leasing(Questions):
    """Claim, beat, tell, end, reap."""

    _highest = ("", 0)
    """The highest token that this client was given: (store id, number)."""

    def claim(
        self,
        worker: str,
        offer: Offer,
        lingering: Sequence[Need],
        nonce: str,
        lease_seconds: float,
        *,
        home_id: str = "",
        reserve_after_seconds: float = RESERVE_AFTER_SECONDS,
    ) -> Lease | None:
        """The next job that fits, under a new token. The same nonce again gives the same answer. A worker whose name
        another home has taken (``enroll``) gets nothing.

        ``lingering``: what sandboxes take that are not verified gone; one given as ``Booked`` is not counted beside
        the lease of its own attempt, one as ``Standing`` takes no slot.
        """
        highest = ":".join(map(str, self._highest)) if self._highest[0] else ""
        args = (
            worker,
            nonce,
            offer.model_dump_json(),
            json.dumps([need.model_dump() for need in lingering]),
            f"{lease_seconds:g}",
            RECORD_VERSION,
            highest,
            round(reserve_after_seconds * 1000),
            home_id,
            round(PROBE_SECONDS * 1000),
        )
        answer = self._scripts.call("claim", *args)
        if text(answer[0]) == "emptied":  # since it was opened; it gets a new id, so that no token comes again
            self.prepare()
            answer = self._scripts.call("claim", *args)
        if text(answer[0]) != "claimed":
            return None
        _, job_id, token, attempt, probe, record = (text(part) for part in answer)
        self._saw(token)
        return self._lease(job_id, token, int(attempt), bool(probe), record)

    def _saw(self, token: str) -> None:
        store_id, _, number = token.rpartition(":")
        if store_id != self._highest[0] or int(number) > self._highest[1]:
            self._highest = (store_id, int(number))

    def _lease(self, job_id: str, token: str, attempt: int, probe: bool, record: str) -> Lease | None:
        """The lease with its record (the hash as JSON). A damaged or forged one ends its job, or it would stop the
        queue for ever."""
        problem = f"{job_id[:60]!r} is no id of a job."
        if ID.fullmatch(job_id):
            try:
                job = job_of(job_id, json.loads(record))
                return Lease(job=job, token=token, attempt=attempt, probe=probe)
            except TatinError as error:
                problem = str(error)
        log.error("action=refuse job=%s: %s", job_id[:60], problem)
        about = problem[:MESSAGE_CHARACTERS]
        self._scripts.call("finish", job_id, token, Outcome.FAILED.value, Reason.WORKER.value, about, "")
        return None

    def beat(self, held: Mapping[str, str], lease_seconds: float) -> dict[str, BeatAnswer]:
        """Renew these leases (token -> job id); what the store says to each token."""
        if not held:
            return {}
        pairs = [part for token, job_id in held.items() for part in (job_id, token)]
        answers = self._scripts.call("beat", f"{lease_seconds:g}", *pairs)
        return {token: BeatAnswer(text(word)) for token, word in zip(held, answers, strict=True)}

    def set_step(self, lease: Lease, *steps: Step) -> None:
        """Say what the attempt is doing: the last of these, after the others. Raises LeaseLost."""
        self._held(self._scripts.call("step", lease.job.id, lease.token, *(step.value for step in steps)), lease)

    def write_log(self, lease: Lease, pieces: Sequence[tuple[str, bytes]]) -> None:
        """Add to the live log: (stream, data) each. Raises LeaseLost."""
        parts: list[str | bytes] = []
        for stream, data in _joined(pieces):
            for start in range(0, len(data), LOG_PIECE_BYTES):
                parts += [stream, data[start : start + LOG_PIECE_BYTES]]
        self._held(self._scripts.call("log", lease.job.id, lease.token, secrets.token_hex(8), *parts), lease)

    def finish(
        self,
        lease: Lease,
        outcome: Outcome,
        reason: Reason | None = None,
        message: str = "",
        summary: AttemptSummary | None = None,
        steps: Sequence[Step] = (),
    ) -> Outcome:
        """End the job, once; the same end again is accepted. Answers the outcome that counts: ``cancelled`` when a
        person's cancel was accepted before, however the attempt ended. ``steps``: what was not told by ``set_step``.
        Raises LeaseLost."""
        body = summary.model_dump_json() if summary else ""
        about = message[:MESSAGE_CHARACTERS]
        end = (outcome.value, reason or "", about, body)
        answer = self._scripts.call("finish", lease.job.id, lease.token, *end, *(step.value for step in steps))
        self._held(answer, lease)
        return Outcome(text(answer[1]))

    def requeue(
        self, lease: Lease, *, message: str, delay_seconds: float, counted: bool, steps: Sequence[Step] = ()
    ) -> JobState:
        """Give the job back: at once to its old place, or held for a while. ``counted`` uses up a retry; ``steps`` as
        for ``finish``. Answers where it went; finished when a person had cancelled it. Raises LeaseLost."""
        way = (message[:MESSAGE_CHARACTERS], round(delay_seconds * 1000), int(counted))
        answer = self._scripts.call("requeue", lease.job.id, lease.token, *way, *(step.value for step in steps))
        self._held(answer, lease)
        return JobState(text(answer[1]))

    def meet_limit(self, lease: Lease, *, delay_seconds: float, message: str) -> None:
        """Say that the job's account has reached its limit: no job of it is claimed for so long. Raises LeaseLost."""
        spec = lease.job.spec
        if gate := account_gate(spec):
            delay = round(delay_seconds * 1000)
            args = (lease.job.id, lease.token, gate, spec.account or "", delay, message[:MESSAGE_CHARACTERS])
            self._held(self._scripts.call("quota", *args), lease)

    def tell_route(self, lease: Lease, *, worked: bool, message: str = "") -> RouteNews:
        """Say whether the job's model route works. Raises LeaseLost."""
        spec = lease.job.spec
        gate = route_gate(spec)
        if gate is None:
            return RouteNews(held=False, failures=0)
        verdict = "worked" if worked else "failed"
        about, name = message[:MESSAGE_CHARACTERS], route_name(spec) or ""
        rest = (verdict, about, ROUTE_FAILURES, round(PROBE_SECONDS * 1000))
        answer = self._scripts.call("route", lease.job.id, lease.token, gate, name, *rest)
        self._held(answer, lease)
        return RouteNews(held=text(answer[1]) == "held", failures=int(text(answer[2]) or 0))

    def _held(self, answer: Any, lease: Lease) -> None:
        if text(answer[0]) == "refused":
            if text(answer[1]) == "unknown":
                raise Forgotten(f"The store does not know job '{lease.job.id}' any more.")
            raise LeaseLost(f"Attempt {lease.attempt} of job '{lease.job.id}' does not hold it any more.")

    def reap(self, job_id: str, seen: str, max_deaths: int) -> JobState | None:
        """Take a job back whose beat is still ``seen``; None when it is not."""
        answer = self._scripts.call("reap", job_id, seen, max_deaths)
        return None if text(answer[0]) == "refused" else JobState(text(answer[1]))

    def release_due(self, limit: int = 200) -> int:
        """Queue the held jobs whose time has come, and open the accounts whose limit is over; how many jobs went."""
        return int(self._scripts.call("release_due", limit))

    def end_overdue(self, limit: int = 200) -> int:
        """End the waiting jobs whose deadline has come, and mark those that run; how many."""
        return int(self._scripts.call("overdue", limit))

    def settle_needs(self, limit: int = 200) -> int:
        """Let the jobs go, or end them, that waited for one that is over; how many were looked at."""
        return int(self._scripts.call("settle", limit))


def _joined(pieces: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Neighbours of one stream in one piece: the stream is bounded by their number."""
    joined: list[tuple[str, bytearray]] = []
    for stream, data in pieces:
        if joined and joined[-1][0] == stream:
            joined[-1][1].extend(data)
        else:
            joined.append((stream, bytearray(data)))
    return [(stream, bytes(data)) for stream, data in joined]
