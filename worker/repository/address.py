"""Which addresses are fetched at all (A20-A22, A27): listed schemes, no credentials, no address of this host or its LAN.

Checked here, before git sees it; git is told the same list again in its environment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from tatin_jobs.errors import RepositoryError

SCHEMES = ("https", "http", "ssh", "git")
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<rest>[^\s\x00-\x1f\x7f]{1,2000})")
_SCP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]{0,63})@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}):(?P<path>[^\s:]{1,1000})"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|[0-9a-fA-F:.]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}")


@dataclass(frozen=True)
class Address:
    """A checked address. ``url`` may be shown: it holds no credentials. ``host`` is None for a local file."""

    url: str
    scheme: str
    host: str | None
    port: int


def parse_address(url: str, *, allow_file: bool = False) -> Address:
    """Check an address from a job.

    Raises:
        RepositoryError: it is none, its scheme is not one of ours, or there are credentials in it.
    """
    if match := _URL.fullmatch(url):
        scheme = match["scheme"]
        if scheme == "file" and allow_file:
            return Address(url, "file", None, 0)
        if scheme not in SCHEMES:
            raise RepositoryError(
                f"The repository '{without_credentials(url)}' is reached by '{scheme}', which is not allowed.",
                try_=f"an address that begins with one of: {', '.join(SCHEMES)}.",
            )
        return _with_host(url, scheme)
    # A colon before any slash is the short form of SSH; a drive letter or `ext::cmd` is not.
    scp = _SCP.fullmatch(url)
    if scp and not scp["path"].startswith("-") and (scp["user"] or "." in scp["host"]):
        return Address(url, "ssh", scp["host"], _PORTS["ssh"])
    raise RepositoryError(
        f"The repository '{without_credentials(url)[:200]}' is no address that can be fetched.",
        try_="https://host/path, ssh://user@host/path or user@host:path; a local path is packed by `tatin submit`.",
    )


def without_credentials(text: str) -> str:
    """``text`` with the user part of every address in it left out, and without control characters."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return re.sub(r"(://)[^/\s@'\"]*@", r"\1", clean)


def _with_host(url: str, scheme: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[scheme]
    except ValueError as error:
        raise RepositoryError(f"The repository '{without_credentials(url)}' has no proper host and port.") from error
    if not host or _HOST.fullmatch(host) is None:
        raise RepositoryError(f"The repository '{without_credentials(url)}' has no proper host.")
    user_allowed = scheme == "ssh" and parts.password is None and _USER.fullmatch(parts.username or "git") is not None
    if "@" in parts.netloc and not user_allowed:
        raise RepositoryError(
            f"The address of the repository '{without_credentials(url)}' has credentials in it.",
            try_="leave them out of the address; let a git credential helper on the worker supply them.",
        )
    return Address(url, scheme, host, port)


async def refuse_private(address: Address) -> None:
    """Refuse an address of this host, its LAN or a metadata service (A27). A name that does not resolve here is left
    to git, which may go through a proxy or know it from the SSH configuration.

    Raises:
        RepositoryError: one of its addresses is not a public one.
    """
    if address.host is None:
        return
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for *_, sockaddr in found:
        seen = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
        if not (getattr(seen, "ipv4_mapped", None) or seen).is_global:
            raise RepositoryError(
                f"The repository '{address.url}' is on this host or its private network, which jobs may not reach.",
                seen=f"'{address.host}' is {seen}",
                try_="set `private_repos = true` in the worker's tatin.toml if its jobs may clone from there.",
            )
