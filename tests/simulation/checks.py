"""The invariants, looked at from outside: through a connection of their own, and at the hosts themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tatin_jobs.states import JobState
from tests.simulation.hosts import LEASE_SECONDS, Host, Phase


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


def look(admin: Any) -> View:
    """Read everything."""
    keys = sorted(key.decode() for key in admin.keys("tatin:*"))
    ids = [key[len("tatin:job:") :] for key in keys if key.startswith("tatin:job:")]
    pipe = admin.pipeline(transaction=False)
    for job_id in ids:
        pipe.hgetall(f"tatin:job:{job_id}")
    lines = [key for key in keys if key.startswith("tatin:line:")]
    for key in lines:
        pipe.zrange(key, 0, -1)
    leases = [key for key in keys if key.startswith("tatin:leases:")]
    for key in leases:
        pipe.hgetall(key)
    for name in ("held", "finished"):
        pipe.zrange(f"tatin:{name}", 0, -1)
    pipe.hgetall("tatin:beats")
    found = pipe.execute()
    rows = [{k.decode(): v.decode() for k, v in row.items()} for row in found[: len(ids)]]
    view = View(dict(zip(ids, rows, strict=True)), {}, _text(found[-1]), {})
    for key, members in zip(lines, found[len(ids) :], strict=False):
        _stand(view, members, "line:" + key[len("tatin:line:") :])
    for key, row in zip(leases, found[len(ids) + len(lines) :], strict=False):
        for job_id, part in _text(row).items():
            view.leases[job_id] = (key[len("tatin:leases:") :], part)
            view.places.setdefault(job_id, []).append("leased")
    _stand(view, found[-3], "held")
    _stand(view, found[-2], "finished")
    return view


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
    unheld_since: set[str] = field(default_factory=set)
    """Tokens that nobody need hold: their worker was killed, or the store was restored."""

    def check(self, view: View, hosts: list[Host], now: float) -> None:
        """Raise Violated where an invariant does not hold."""
        self._one_place(view)
        self._ends_are_final(view)
        self._tokens_grow(view)
        self._capacity(hosts)
        self._claims_are_known(view, hosts)
        self.see_beats(view, now)

    def see_beats(self, view: View, now: float) -> None:
        """Note when each token was last renewed."""
        for beat in view.beats.values():
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
            if (row.get("deadline", "") != "" and state == "finished") and row.get("outcome", "") == "":
                raise Violated(f"promise 7: {job_id} ended without an outcome")

    def _ends_are_final(self, view: View) -> None:
        for job_id, row in view.jobs.items():
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
            if row["state"] != "running" or row["token"] in self.unheld_since:
                continue
            worker = workers.get(row["worker"])
            if worker is None:
                self.unheld_since.add(row["token"])
            elif row["token"] not in worker.claimer.held() and worker.claimer._nonce is None and not worker.closing:
                raise Violated(f"F24: {job_id} runs under {row['token']}, and its worker {row['worker']} knows nothing")

    def check_reap(self, job_id: str, seen: str, now: float) -> None:
        """A reap that was done: its holder must have been silent for a whole lease (F07, F23)."""
        beat, at = self.last_beat.get(seen.split("|")[0], (seen, now))
        if beat == seen and now - at < LEASE_SECONDS - 0.001:
            raise Violated(f"F07: {job_id} was taken back {now - at:.0f} s after its holder's beat")


def check_claim(view: View, job_id: str, gates: dict[str, tuple[str, str]], wall_ms: int, forced: set[str]) -> None:
    """What was claimed had nothing in its way, by the store as it was just before."""
    row = view.jobs[job_id]
    if row["state"] != JobState.QUEUED:
        raise Violated(f"{job_id} was claimed and was {row['state']}")
    if job_id in forced:
        return
    for needed in row.get("needs", "").split():
        if view.jobs.get(needed, {}).get("outcome") != "succeeded":
            raise Violated(f"needs: {job_id} was claimed before {needed} succeeded")
    for gate in ("queue", *row.get("gates", "").split("|")):
        until = gates.get(gate, ("", ""))[1]
        if until == "inf" or (until and int(until) > wall_ms):
            raise Violated(f"F49: {job_id} was claimed past the closed gate {gate}")


def _number(row: dict[str, str]) -> int:
    return int(row["token"].rpartition(":")[2]) if row.get("token") else 0
