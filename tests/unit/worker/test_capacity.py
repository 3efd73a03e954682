"""What a host offers, and what fits into it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tatin_jobs.models import Need, Offer
from tatin_jobs.needs import at_once, granted
from tatin_jobs.settings import Settings
from worker.capacity import offer_of

OFFER = Offer(cpus=4, memory_mib=6000, disk_mib=50_000, slots=4, tags=("arch:amd64", "os:linux", "sandbox:bwrap"))


def _settings(tmp_path: Path, **changes: object) -> Settings:
    return Settings(home=tmp_path, worker_name="w", **changes)


def test_a_host_offers_twice_its_cpus_and_keeps_memory_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        total = 8 * 2**30

    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    offer = offer_of(_settings(tmp_path), "bwrap")
    assert (offer.cpus, offer.memory_mib, offer.slots) == (4, 8192 - 2048, 4)
    assert "sandbox:bwrap" in offer.tags
    Memory.total = 64 * 2**30
    assert offer_of(_settings(tmp_path), "bwrap").memory_mib == 48 * 1024


def test_settings_override_what_was_worked_out(tmp_path: Path) -> None:
    offer = offer_of(_settings(tmp_path, cpus=3, memory_mib=1000, slots=1, tags=("gpu",)), "bwrap")
    assert (offer.cpus, offer.memory_mib, offer.slots) == (3, 1000, 1)
    assert "gpu" in offer.tags


def test_a_wish_is_met_by_what_there_is_and_a_need_is_not() -> None:
    """On a 2-core machine the default job runs."""
    wish = Need(cpus=8, cpus_wish=True, memory_mib=8192, memory_wish=True, disk_mib=1000)
    assert granted(wish, OFFER).cpus == 4
    assert at_once(wish, OFFER) == 1
    assert at_once(Need(cpus=8, memory_mib=100, disk_mib=100), OFFER) == 0


@pytest.mark.parametrize(
    ("need", "count"),
    [
        (Need(cpus=1, memory_mib=1000, disk_mib=100), 4),
        (Need(cpus=1, memory_mib=3000, disk_mib=100), 2),
        (Need(cpus=1, memory_mib=1000, disk_mib=50_000), 1),
        (Need(cpus=1, memory_mib=100, disk_mib=100, tags=("os:linux",)), 4),
        (Need(cpus=1, memory_mib=100, disk_mib=100, tags=("os:macos",)), 0),
    ],
)
def test_how_many_run_at_once(need: Need, count: int) -> None:
    assert at_once(need, OFFER) == count
