"""The invariants, looked at from outside: through a connection of their own, and at the hosts themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import fakeredis

from tatin_jobs.states import JobState
from tests.simulation.hosts import LEASE_SECONDS, Host, Phase

PREFIX = "tatin:"


class Violated(AssertionError):
    """An invariant does not hold."""


@dataclass
class View:
    """The store as it is: records, and where each id stands."""

    jobs: dict[str, dict[str, str]]
    places: dict[str, list[str]]
    beats: dict[str, str]
    leases: dict[str, tuple[str, str]]
    """Job id -> worker, what it takes."""
    gates: dict[str, str] = field(default_factory=dict)
    """Gate -> until when it is closed, as the store has it."""


def look(server: fakeredis.FakeServer) -> View:
    """Read everything, from under the server: the commands for it would take most of the time of a run."""
    view = View({}, {}, {}, {})
    for name, item in sorted(server.dbs[0].items()):
        kind, _, rest = name.decode().removeprefix(PREFIX).partition(":")
        if kind == "job":
            view.jobs[rest] = _text(item.value.getall())
        elif kind == "leases":
            for job_id, part in _text(item.value.getall()).items():
                view.leases[job_id] = (rest, part)
                view.places.setdefault(job_id, []).append("leased")
        elif kind == "beats":
            view.beats = _text(item.value.getall())
        elif kind == "gate":
            row = _text(item.value.getall())
            view.gates[rest] = row.get("until", "")
        elif kind in ("line", "held", "finished"):
            _stand(view, list(item.value), f"line:{rest}" if rest else kind)
    return view


def look_at_beats(server: fakeredis.FakeServer) -> dict[str, str]:
    """Only the beats."""
    item = server.dbs[0].get(f"{PREFIX}beats".encode())
    return _text(item.value.getall()) if item else {}


def _stand(view: View, members: list[bytes], place: str) -> None:
    for member in members:
        view.places.setdefault(member.decode(), []).append(place)


def _text(row: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in row.items()}


@dataclass
class History:
    """What was seen so far; a store that was restored forgets a part of it."""

    submitted: set[str] = field(default_factory=set)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Token -> job, attempt."""
    highest: int = 0
    last_beat: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Token -> its beat, and when it was first seen so."""
    unheld: set[str] = field(default_factory=set)
    """Tokens that nobody need hold: their worker was killed, or the store was restored."""

    def check(self, view: View, hosts: list[Host], now: float) -> None:
        """Raise Violated where an invariant does not hold."""
        self._one_place(view)
        self._ends_are_final(view)
        self._tokens_grow(view)
        self._capacity(hosts)
        self._claims_are_known(view, hosts)
        self.see_beats(view.beats, now)

    def see_beats(self, beats: dict[str, str], now: float) -> None:
        """Note when each token was last renewed."""
        for beat in beats.values():
            token = beat.split("|")[0]
            if self.last_beat.get(token, ("", 0))[0] != beat:
                self.last_beat[token] = (beat, now)

    def _one_place(self, view: View) -> None:
        for job_id in self.submitted:
            if job_id not in view.jobs:
                raise Violated(f"promise 1: {job_id} is lost")
        for job_id, row in view.jobs.items():
            state, places = row["state"], view.places.get(job_id, [])
            wanted = {"queued": f"line:{row['class']}", "running": "leased"}.get(state, state)
            if places != [wanted] or (job_id in view.beats) != (state == "running"):
                raise Violated(f"I1: {job_id} is {state} and stands in {places}")

    def _ends_are_final(self, view: View) -> None:
        for job_id, row in view.jobs.items():
            cancelled = row["state"] == "running" or row.get("outcome") == "cancelled"
            if row.get("cancel") == "1" and not cancelled:
                raise Violated(f"F41: {job_id} was cancelled while it ran, and is {row['state']} {row.get('outcome')}")
            if row["state"] == "finished":
                end = (row.get("token", ""), row["outcome"])
                if self.ends.setdefault(job_id, end) != end:
                    raise Violated(f"I3: {job_id} ended as {self.ends[job_id]} and then as {end}")
                if row["outcome"] not in ("succeeded", "cancelled") and not row["reason"]:
                    raise Violated(f"promise 7: {job_id} ended as {row['outcome']} for no reason")
            elif job_id in self.ends:
                raise Violated(f"I3: {job_id} was finished and is {row['state']}")

    def _tokens_grow(self, view: View) -> None:
        for job_id, row in sorted(view.jobs.items(), key=lambda item: _number(item[1])):
            token, attempt = row.get("token", ""), row.get("attempt", "0")
            if not token or self.tokens.get(token) == (job_id, attempt):
                continue
            if token in self.tokens or _number(row) <= self.highest:
                raise Violated(f"I2: {token} of {job_id} came again, or is not the newest")
            self.tokens[token] = (job_id, attempt)
            self.highest = _number(row)

    def _capacity(self, hosts: list[Host]) -> None:
        for host in hosts:
            taken = dict(host.provider.sandboxes)
            if host.worker:
                begun = (one for one in host.worker.attempts.values() if one.phase in (Phase.CLAIMED, Phase.BOOKED))
                taken |= {one.name: one.need for one in begun}
            cpus, memory = (sum(getattr(need, name) for need in taken.values()) for name in ("cpus", "memory_mib"))
            if cpus > host.offer.cpus or memory > host.offer.memory_mib or len(taken) > host.offer.slots:
                raise Violated(f"I4: {host.name} runs {len(taken)} sandboxes with {cpus} CPUs, {memory} MiB")

    def _claims_are_known(self, view: View, hosts: list[Host]) -> None:
        workers = {host.name: host.worker for host in hosts}
        for job_id, row in view.jobs.items():
            if row["state"] != "running" or row["token"] in self.unheld:
                continue
            worker = workers.get(row["worker"])
            if worker is None:
                raise Violated(f"{job_id} runs under {row['token']} on a dead host")
            if row["token"] not in worker.claimer.held() and worker.claimer._nonce is None and not worker.closing:
                raise Violated(f"F24: {job_id} runs under {row['token']}, and its worker {row['worker']} knows nothing")

    def check_reap(self, job_id: str, seen: str, now: float) -> None:
        """A reap that was done: its holder must have been silent for a whole lease (F07, F23)."""
        beat, at = self.last_beat.get(seen.split("|")[0], (seen, now))
        if beat != seen:
            raise Violated(f"I9: {job_id} was taken back although its holder had beaten since the reaper's look")
        if now - at < LEASE_SECONDS - 0.001:
            raise Violated(f"F07: {job_id} was taken back {now - at:.0f} s after its holder's beat")


def check_end(before: View, after: View, job_id: str, token: str) -> None:
    """A job that an attempt moved was its own (I2)."""
    was, is_now = before.jobs.get(job_id), after.jobs.get(job_id)
    if was and is_now and was["state"] != is_now["state"] and was.get("token") != token:
        raise Violated(f"I2: {token} moved {job_id}, which {was.get('token')} holds")


def check_claim(view: View, job_id: str, wall_ms: int, *, past_gates: set[str], past_needs: set[str]) -> None:
    """What was claimed had nothing in its way, by the store as it was just before; but what a person took past that."""
    row = view.jobs[job_id]
    if row["state"] != JobState.QUEUED:
        raise Violated(f"{job_id} was claimed and was {row['state']}")
    for needed in () if job_id in past_needs else row.get("needs", "").split():
        if view.jobs.get(needed, {}).get("outcome") != "succeeded":
            raise Violated(f"needs: {job_id} was claimed before {needed} succeeded")
    for gate in ("queue",) if job_id in past_gates else ("queue", *row.get("gates", "").split("|")):
        until = view.gates.get(gate, "")
        if until == "inf" or (until and int(until) > wall_ms):
            raise Violated(f"F49: {job_id} was claimed past the closed gate {gate}")


def _number(row: dict[str, str]) -> int:
    return int(row["token"].rpartition(":")[2]) if row.get("token") else 0
