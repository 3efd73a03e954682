"""One connection of the guest: its requests are read with h11, decided on one by one, and carried out.

The guest speaks to us as to any HTTP proxy. Nothing is looked up or connected to before the policy has said yes, and
what is connected to is the address that was looked at.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Protocol

import h11

from tatin_jobs.netrules import IPNetwork
from worker.gateway.egress import lookup
from worker.gateway.egress.denial import BAD_REQUEST, LIMIT, Denial, by_policy, not_public
from worker.gateway.egress.evidence import Evidence, UsedUp
from worker.gateway.egress.forward import forward
from worker.gateway.egress.http import GuestHttp
from worker.gateway.egress.limits import EgressLimits
from worker.gateway.egress.policy import Policy
from worker.gateway.egress.target import BadRequest, Target, plain_target, tunnel_target
from worker.gateway.egress.tunnel import Tunnel

DENIED_STATUS = 403
NOT_REACHED_STATUS = 502


class Rules(Protocol):
    """What a connection asks of its gateway."""

    @property
    def policy(self) -> Policy: ...
    @property
    def trusted(self) -> tuple[IPNetwork, ...]: ...
    @property
    def lookups(self) -> Executor: ...
    @property
    def evidence(self) -> Evidence: ...
    @property
    def limits(self) -> EgressLimits: ...


class Refused(Exception):
    """A request that is not carried out; the guest gets ``status``."""

    def __init__(self, status: int, denial: Denial | None, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.denial = denial


async def serve_guest(rules: Rules, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection to its end. Returns when either side is done; raises OSError when the guest breaks off."""
    guest = GuestHttp(reader, writer, rules.limits)
    while True:
        try:
            request = await guest.next_request()
            if request is None:
                return
            if request.method == b"CONNECT":
                await _tunnel(rules, guest, request)
                return
            await _forward(rules, guest, request)
        except (h11.ProtocolError, BadRequest) as error:
            text = str(error) if isinstance(error, BadRequest) else "That is no HTTP request."
            denial = Denial("(unreadable)", BAD_REQUEST, text)
            rules.evidence.deny(denial)
            await guest.refuse(400, "Bad Request", str(denial))
            return
        except Refused as refused:
            if refused.denial:
                rules.evidence.deny(refused.denial)
            await guest.refuse(refused.status, _phrase(refused.status), str(refused))
            return
        except UsedUp:
            rules.evidence.deny(Denial("(everything)", LIMIT, "the attempt has moved all the bytes that it may"))
            return
        if not guest.next_cycle():
            return


async def _tunnel(rules: Rules, guest: GuestHttp, request: h11.Request) -> None:
    target = tunnel_target(request.target)
    if any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers):
        raise BadRequest("CONNECT has no body.")
    reader, writer = await _reach(rules, target)
    try:
        early = await guest.switch_to_tunnel()
        tunnel = Tunnel(rules.evidence, rules.evidence.destination(str(target)), rules.limits.silence_seconds)
        await tunnel.run((guest.reader, guest.writer), (reader, writer), early)
    finally:
        writer.transport.abort()


async def _forward(rules: Rules, guest: GuestHttp, request: h11.Request) -> None:
    target = plain_target(request.target, request.headers)
    reader, writer = await _reach(rules, target)
    try:
        await forward(guest, request, target, reader, writer, rules.evidence, rules.limits)
    finally:
        writer.transport.abort()


async def _reach(rules: Rules, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the target, if the guest may have one.

    Raises:
        Refused: it may not, or there is none to have.
    """
    where, policy, limits = str(target), rules.policy, rules.limits
    if why := policy.denies(target):
        denial = by_policy(where, why, policy.field)
        raise Refused(DENIED_STATUS, denial, f"Tatin {denial}")
    try:
        found = await lookup.addresses(target, rules.trusted, rules.lookups, limits.lookup_seconds)
    except lookup.NotPublic as error:
        denial = not_public(where, error.address)
        raise Refused(DENIED_STATUS, denial, f"Tatin {denial}") from error
    except lookup.NotReached as error:
        raise _not_reached(rules, where, error) from error
    try:
        connection = await lookup.connect(found, target.port, limits.connect_seconds)
    except lookup.NotReached as error:
        raise _not_reached(rules, where, error) from error
    rules.evidence.destination(where).connections += 1
    return connection


def _not_reached(rules: Rules, where: str, error: lookup.NotReached) -> Refused:
    destination = rules.evidence.destination(where)
    destination.connections += 1
    destination.failed += 1
    return Refused(NOT_REACHED_STATUS, None, f"Tatin cannot reach {where}: {error}.")


def _phrase(status: int) -> str:
    return "Blocked by Tatin" if status == DENIED_STATUS else "Not reached"
