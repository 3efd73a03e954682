"""Needs against offers: what a job gets of a host, and how many such jobs run there at once. Arithmetic only."""

from __future__ import annotations

from tatin_jobs.models import Need, Offer


def granted(need: Need, offer: Offer) -> Need:
    """What a sandbox gets: a wish becomes what the host has in all, if that is less."""
    return need.model_copy(
        update={
            "cpus": min(need.cpus, offer.cpus) if need.cpus_wish else need.cpus,
            "memory_mib": min(need.memory_mib, offer.memory_mib) if need.memory_wish else need.memory_mib,
            "disk_mib": min(need.disk_mib, offer.disk_mib) if need.disk_wish else need.disk_mib,
        }
    )


def at_once(need: Need, offer: Offer) -> int:
    """How many jobs of this need run at once on a host with this offer; 0: none ever will."""
    if not set(need.tags) <= set(offer.tags):
        return 0
    part = granted(need, offer)
    fits = (
        offer.cpus // max(1, part.cpus),
        offer.memory_mib // max(1, part.memory_mib),
        offer.disk_mib // max(1, part.disk_mib),
        offer.slots,
    )
    return min(fits)
