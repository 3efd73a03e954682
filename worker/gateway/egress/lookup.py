"""From a target to addresses that may be connected to. The gateway looks names up itself, and connects to what it
looked at (A27, A77): a name server that says something else the next time is not asked a next time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from tatin_jobs.netrules import IPNetwork
from worker.addresses import is_in, is_public, own_networks
from worker.gateway.egress.target import Target


class NotPublic(Exception):
    """The host is at an address that guests may not reach; ``address`` is one of them."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class NotReached(Exception):
    """The host is not known, or does not answer; the message is the system's own."""


async def addresses(target: Target, trusted: Sequence[IPNetwork], lookups: Executor, seconds: float) -> list[str]:
    """The addresses of a target that a guest may reach, in the order in which to try them. ``lookups`` is the gateway's
    own: names that take for ever would fill the threads that the worker's other work needs.

    Raises:
        NotPublic: it has only others. NotReached: it has none.
    """
    if isinstance(target.host, str):
        found = await _look_up(target.host, target.port, lookups, seconds)
    else:
        found = [str(target.host)]
    own = own_networks()
    allowed = [text for text in found if _may_reach(text, trusted, own)]
    if not allowed:
        raise NotPublic(found[0])
    return allowed


async def connect(found: Sequence[str], port: int, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first of these addresses that answers.

    Raises:
        NotReached: none does.
    """
    why = "no address"
    for text in found:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.open_connection(text, port)
        except TimeoutError:
            why = "no answer in time"
        except OSError as error:
            why = error.strerror or type(error).__name__
    raise NotReached(why)


async def _look_up(name: str, port: int, lookups: Executor, seconds: float) -> list[str]:
    ask = partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().run_in_executor(lookups, ask)
    except TimeoutError:
        raise NotReached("its name could not be looked up in time") from None
    except (OSError, UnicodeError) as error:
        raise NotReached(getattr(error, "strerror", None) or "no such name") from error
    return list(dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found))


def _may_reach(text: str, trusted: Sequence[IPNetwork], own: Sequence[IPNetwork]) -> bool:
    return is_in(text, trusted) or (is_public(text) and not is_in(text, own))
