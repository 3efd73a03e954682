"""Which job a claim gives: order, fit, capacity in use, reservation, drain."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from tatin_jobs.models import Lease, Need, Offer
from tatin_jobs.states import JobState, Outcome
from tatin_jobs.store import Booked, Standing, Store
from tests.support.stores import LEASE_SECONDS, OFFER, SMALL, client_of, make_job, submit

_nonces = count()


def claim(store: Store, worker: str = "w1", offer: Offer = OFFER, lingering: tuple[Need, ...] = (), **more: Any) -> str:
    """The id of the job that was claimed; empty for none."""
    lease = take(store, worker, offer, lingering, **more)
    return lease.job.id if lease else ""


def take(
    store: Store, worker: str = "w1", offer: Offer = OFFER, lingering: tuple[Need, ...] = (), **more: Any
) -> Lease | None:
    return store.claim(worker, offer, lingering, f"n{next(_nonces)}", LEASE_SECONDS, **more)


def need(cpus: int = 1, memory_mib: int = 256, disk_mib: int = 100, **more: Any) -> Need:
    return Need(cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib, **more)


def test_first_come_first_served_across_need_classes(store: Store) -> None:
    needs = [need(2), need(1), need(2), need(1)]
    submit(store, *(make_job(f"job-{index}", need=one) for index, one in enumerate(needs)))
    roomy = OFFER.model_copy(update={"cpus": 99, "slots": 99})
    assert [claim(store, offer=roomy) for _ in range(5)] == ["job-0", "job-1", "job-2", "job-3", ""]


def test_a_claim_gives_the_record_as_it_stands_then(store: Store) -> None:
    text = '\\ "quoted" \x00\x1b\t/ gr\u00fc\u00dfe \u2028 \U0001f680'
    spec = make_job().spec.model_copy(update={"prompt": text, "env": {"A": text}})
    submit(store, make_job("job-1", spec=spec))
    lease = take(store)
    assert lease is not None
    assert lease.job.spec == spec
    assert lease.job == store.job("job-1")


def test_priority_goes_first_and_each_priority_in_order(store: Store) -> None:
    """Order does not depend on a submitter's clock: all these were created at one instant."""
    for index, priority in enumerate([0, -5, 7, 0, 7, 1000]):
        submit(store, make_job(f"job-{index}", priority=priority, need=need(1 + index % 2)))
    roomy = OFFER.model_copy(update={"cpus": 99, "slots": 99})
    order = [claim(store, offer=roomy) for _ in range(6)]
    assert order == ["job-5", "job-2", "job-4", "job-0", "job-3", "job-1"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (need(3), need(2)),
        (need(memory_mib=3000), need(memory_mib=2000)),
        (need(disk_mib=6000), need(disk_mib=6000)),
    ],
    ids=["cpus", "memory", "disk"],
)
def test_a_host_is_never_promised_more_than_it_has(store: Store, first: Need, second: Need) -> None:
    """I4, promise 4."""
    submit(store, make_job("job-1", need=first), make_job("job-2", need=second), make_job("job-3"))
    assert claim(store) == "job-1"
    assert claim(store) == "job-3"
    assert claim(store) == ""
    assert claim(store, "w2") == "job-2"


def test_slots_are_a_limit_of_their_own(store: Store) -> None:
    submit(store, *(make_job() for _ in range(3)))
    two = OFFER.model_copy(update={"slots": 2})
    assert [bool(claim(store, offer=two)) for _ in range(3)] == [True, True, False]


def test_a_wish_is_granted_as_far_as_the_host_goes(store: Store) -> None:
    wish = need(64, 100_000, 100_000, cpus_wish=True, memory_wish=True, disk_wish=True)
    submit(store, make_job("job-wish", need=wish), make_job("job-small"))
    assert claim(store) == "job-wish"
    assert claim(store) == "", "the wish took all that the host offers"


def test_a_need_beyond_the_host_blocks_nobody(store: Store) -> None:
    """F46."""
    submit(store, make_job("job-huge", need=need(999)), make_job("job-small"))
    assert claim(store, reserve_after_seconds=0) == "job-small"
    assert store.job("job-huge").state is JobState.QUEUED


def test_tags_are_all_needed(store: Store) -> None:
    """F46."""
    submit(
        store,
        make_job("job-mac", need=need(tags=("os:macos",))),
        make_job("job-both", need=need(tags=("os:linux", "xcode"))),
        make_job("job-linux", need=need(tags=("os:linux",))),
    )
    assert claim(store, reserve_after_seconds=0) == "job-linux"
    assert claim(store, reserve_after_seconds=0) == ""
    assert claim(store, offer=OFFER.model_copy(update={"tags": ("os:linux", "xcode", "more")})) == "job-both"


def test_a_sandbox_without_a_lease_is_still_in_use(store: Store) -> None:
    """I4: free only when destroy is verified."""
    submit(store, make_job("job-1", need=need(3)), make_job("job-2", need=need(3)))
    first = take(store)
    assert first is not None
    store.finish(first, Outcome.SUCCEEDED)
    lingering = Booked.of(first.job.need, first.job.id, first.token)
    assert claim(store, lingering=(lingering,)) == ""
    assert claim(store) == "job-2"


def test_a_sandbox_is_not_counted_beside_its_own_lease(store: Store) -> None:
    """I4: else a host would run half of what it can."""
    submit(store, *(make_job(f"job-{index}", need=need(2)) for index in range(3)))
    first = take(store)
    assert first is not None
    booked = Booked.of(first.job.need, first.job.id, first.token)
    assert claim(store, lingering=(booked,)) == "job-1"


def test_the_sandbox_of_an_older_attempt_is_counted_beside_the_new_lease(store: Store) -> None:
    """I4: the same job runs again here before its first sandbox is gone."""
    submit(store, make_job("job-1", need=need(2)), make_job("job-2", need=need(1)))
    first = take(store)
    assert first is not None
    store.requeue(first, message="", delay_seconds=0, counted=True)
    old = Booked.of(first.job.need, first.job.id, first.token)
    again = take(store, lingering=(old,))
    assert again is not None
    assert again.job.id == "job-1"
    assert claim(store, lingering=(old, Booked.of(again.job.need, again.job.id, again.token))) == ""


def test_a_machine_that_no_attempt_owns_takes_room_and_no_slot(store: Store) -> None:
    submit(store, make_job("job-1"))
    whole = Standing(cpus=OFFER.cpus, memory_mib=0, disk_mib=0)
    assert claim(store, lingering=(whole,)) == ""
    asleep = Standing(cpus=0, memory_mib=0, disk_mib=0)
    assert claim(store, offer=OFFER.model_copy(update={"slots": 1}), lingering=(asleep, asleep)) == "job-1"


def test_a_lingering_sandbox_takes_a_slot(store: Store) -> None:
    submit(store, make_job())
    assert claim(store, offer=OFFER.model_copy(update={"slots": 1}), lingering=(SMALL,)) == ""


def test_a_drained_worker_gets_nothing_and_others_do(store: Store) -> None:
    submit(store, make_job("job-1"), make_job("job-2"))
    store.drain("w1", True)
    assert claim(store, "w1") == ""
    assert claim(store, "w2") == "job-1"
    store.drain("w1", False)
    assert claim(store, "w1") == "job-2"


def test_tokens_only_grow_and_attempts_count_from_one(store: Store) -> None:
    """I2."""
    submit(store, make_job("job-1"))
    numbers = []
    for attempt in range(1, 15):
        lease = take(store)
        assert lease is not None
        assert lease.attempt == attempt
        store_id, number = lease.token.split(":")
        assert store_id == store.store_id()
        numbers.append(int(number))
        store.requeue(lease, message="", delay_seconds=0, counted=False)
    assert numbers == sorted(set(numbers))


def test_a_newer_record_stays_queued_and_blocks_nobody(store: Store) -> None:
    """F12: an older worker does not look into a line of a version that it does not know."""
    submit(store, make_job("job-new"), make_job("job-old", need=need(2)))
    client = client_of(store)
    record = client.hgetall("tatin:job:job-new")
    newer = b"99;" + record[b"class"].split(b";", 1)[1]
    client.rename(b"tatin:line:" + record[b"class"], b"tatin:line:" + newer)
    client.hdel("tatin:classes", record[b"class"])
    client.hset("tatin:classes", newer, '{"shape": "of another time"}')
    client.hset("tatin:job:job-new", mapping={"class": newer, "version": "99"})
    assert claim(store) == "job-old"
    assert claim(store) == ""
    assert store.counts()[JobState.QUEUED] == 1


def test_a_big_job_that_waited_too_long_gets_the_next_host_that_is_free_enough(store: Store) -> None:
    """F45: under a stream of small ones, that would else take every gap."""
    submit(store, make_job("job-running"))
    running = take(store)
    assert running is not None
    submit(store, make_job("job-big", need=need(4)), *(make_job(f"job-small-{index}") for index in range(3)))
    assert claim(store, reserve_after_seconds=600) == "job-small-0", "it has not waited long"
    assert claim(store, reserve_after_seconds=0) == ""
    for lease_of in ("job-running", "job-small-0"):
        job = store.job(lease_of)
        assert job.token is not None
        store.finish(running.model_copy(update={"job": job, "token": job.token}), Outcome.SUCCEEDED)
    assert claim(store, reserve_after_seconds=0) == "job-big"


def test_a_waiting_big_job_reserves_one_host_and_not_all(store: Store) -> None:
    """F45."""
    for index in range(2):
        submit(store, make_job(f"job-running-{index}"))
        assert claim(store, f"w{index}")
    submit(store, make_job("job-big", need=need(4)), make_job("job-small"))
    assert claim(store, "w0", reserve_after_seconds=0) == ""
    assert claim(store, "w1", reserve_after_seconds=0) == "job-small"
    assert claim(store, "w0", reserve_after_seconds=0) == "", "it stays the one that was reserved"


def test_a_reservation_does_not_stop_what_has_a_higher_priority(store: Store) -> None:
    submit(store, make_job())
    claim(store)
    submit(store, make_job("job-big", need=need(4)), make_job("job-urgent", priority=1))
    assert claim(store, reserve_after_seconds=0) == "job-urgent"


def test_a_reservation_of_a_host_that_went_away_passes_to_another(store: Store) -> None:
    submit(store, make_job(), make_job())
    claim(store, "w1")
    claim(store, "w2")
    submit(store, make_job("job-big", need=need(4)), make_job("job-small"))
    assert claim(store, "w1", reserve_after_seconds=0) == ""
    client_of(store).hset("tatin:job:job-big", "reserved_at", "1000")
    assert claim(store, "w2", reserve_after_seconds=0) == ""


def test_empty_lines_are_forgotten(store: Store) -> None:
    """F44: the cost of a claim is in the number of lines."""
    submit(store, *(make_job(f"job-{index}", need=need(memory_mib=100 + index)) for index in range(20)))
    roomy = OFFER.model_copy(update={"cpus": 99, "slots": 99})
    for _ in range(21):
        claim(store, offer=roomy)
    assert client_of(store).hlen("tatin:classes") == 0
