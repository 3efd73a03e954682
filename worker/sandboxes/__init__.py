"""The kinds of sandbox that this host may have. A new one is a folder beside this and a line in ``KINDS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.home import Home
from tatin_jobs.models import Offer
from tatin_jobs.settings import Settings
from worker.sandboxes.base import SandboxProvider
from worker.sandboxes.bwrap.provider import BwrapProvider
from worker.sandboxes.qemu.provider import QemuProvider
from worker.sandboxes.tart.provider import TartProvider

KINDS: Mapping[str, Callable[[Home, str], SandboxProvider]] = {
    "tart": TartProvider,
    "qemu": QemuProvider,
    "bwrap": BwrapProvider,
}
"""By strength, strongest first: what ``auto`` tries."""


def choose_provider(settings: Settings, home: Home, home_id: str, kind: str | None = None) -> SandboxProvider:
    """The provider that the settings name, or ``kind``; ``auto``: the strongest that works on this host.

    Raises:
        BadInput: there is no such kind.
        PartMissing: it does not work here; the message has what to do.
    """
    kind = kind or settings.sandbox
    if kind != "auto" and kind not in KINDS:
        raise BadInput(f"There is no sandbox '{kind}'.", try_="one of: auto, " + ", ".join(KINDS) + ".")
    wrong = []
    for name, make in KINDS.items():
        if kind in ("auto", name):
            provider = make(home, home_id)
            provider.configure(settings)
            missing = [finding for finding in provider.check() if not finding.ok]
            if not missing:
                return provider
            wrong += missing
    raise PartMissing(
        "This host has no sandbox to run jobs in." if kind == "auto" else f"Sandbox '{kind}' does not work here yet.",
        seen="; ".join(f"{finding.name}: {finding.seen}" for finding in wrong),
        try_="; ".join(dict.fromkeys(finding.fix for finding in wrong if finding.fix)),
    )


def has_own_image(offer: Offer) -> bool:
    """Whether the sandboxes of the worker that offers this have an image of their own, with the agent tools in it."""
    return any(f"sandbox:{kind}" in offer.tags and getattr(make, "own_image", False) for kind, make in KINDS.items())
