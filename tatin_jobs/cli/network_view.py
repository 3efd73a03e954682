"""The network of an attempt as ``tatin show`` tells it: what it might reach, what it reached, and what was blocked."""

from __future__ import annotations

from collections.abc import Iterator

from tatin_jobs.results import DeniedFacts, ReachedFacts, Result
from tatin_jobs.units import format_size

SHOWN = 20
"""Places of each kind; the result has them all."""


def network_fields(result: Result) -> Iterator[tuple[str, str]]:
    """Labels and values; an empty label goes on with the one before."""
    if result.sandbox and result.sandbox.egress_warning:
        yield "! network", f"not all of the job's rules held in {result.sandbox.kind}: {result.sandbox.egress_warning}"
    if (network := result.network) is None:
        return
    yield "network", f"{network.mode}: {', '.join(network.allow)}" if network.allow else network.mode
    for tool, hosts in network.lists.items():
        yield "", f"{tool} stood for {', '.join(hosts) or 'no host'}"
    yield from _listed("reached", [_reached(item) for item in network.reached])
    yield from _listed("blocked", [_denied(item) for item in network.denied])


def _listed(label: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(texts[:SHOWN]):
        yield "" if index else label, text
    if len(texts) > SHOWN:
        yield "", f"... and {len(texts) - SHOWN} more in result.json"


def _reached(item: ReachedFacts) -> str:
    calls = "calls" if item.model else "connections"
    what = f"{item.connections} {calls if item.connections != 1 else calls[:-1]}"
    if item.failed:
        what += f" ({item.failed} failed)"
    moved = f"{format_size(item.sent_bytes)} sent, {format_size(item.received_bytes)} received"
    return f"{item.where}{' (model)' if item.model else ''}: {what}, {moved}"


def _denied(item: DeniedFacts) -> str:
    return f"{item.where}: {item.why}{f', {item.times} times' if item.times > 1 else ''}"
