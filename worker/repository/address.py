"""Where the host of a repository's address leads: not to this host or its LAN (A27), and to one place only."""

from __future__ import annotations

import asyncio
import socket

from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import Address
from worker.addresses import is_in, is_public, own_networks


async def public_addresses(address: Address) -> tuple[str, ...]:
    """The IP addresses of its host, all of them public. None for a name that does not resolve here: that is left to
    git, which may go through a proxy or know it from the SSH configuration.

    Raises:
        RepositoryError: one of them is of this host, its private network or a metadata service.
    """
    if address.host is None:
        return ()
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    seen = tuple(dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found))
    own = own_networks()
    for text in seen:
        if not is_public(text) or is_in(text, own):
            raise RepositoryError(
                f"The repository '{address.url}' is on this host or its private network, which jobs may not reach.",
                seen=f"'{address.host}' is {text}",
                try_="set `private_repos = true` in the worker's tatin.toml if its jobs may clone from there.",
            )
    return seen


def pinned(address: Address, found: tuple[str, ...]) -> tuple[str, ...]:
    """Options that have git connect to the addresses that were looked at, whatever the name server says next. Only
    curl can be told; ssh knows its hosts by their keys."""
    if address.scheme not in ("http", "https") or not found:
        return ()
    shown = ",".join(f"[{text}]" if ":" in text else text for text in found)
    host = f"[{address.host}]" if address.host and ":" in address.host else address.host
    return ("-c", f"http.curloptResolve={host}:{address.port}:{shown}")
