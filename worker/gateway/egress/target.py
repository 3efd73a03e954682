"""Where a request wants to go, read strictly: what has two readings is refused (A74). Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from tatin_jobs.netrules import Host, parse_host, parse_port, written

Headers = Sequence[tuple[bytes, bytes]]

_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]{2,45})\]|(?P<host>[^\s:/?#@\[\]\\]{1,255}))(?::(?P<port>[0-9]{1,5}))?"
)
_PATH = re.compile(r"(?:[/?][\x21\x22\x24-\x7e]*)?")
"""Whatever is visible and no fragment; only its beginning matters here."""


class BadRequest(Exception):
    """A request that is not passed on because of how it is written; the message is a sentence for people."""


@dataclass(frozen=True)
class Target:
    """A host and a port. ``path``: what the host is asked for, of a plain request."""

    host: Host
    port: int
    path: str = ""

    def __str__(self) -> str:
        return written(self.host, self.port)


def parse_target(text: str) -> Target:
    """The target that ``str(target)`` wrote.

    Raises:
        BadRequest: it is none.
    """
    target = _authority(text, default_port=None)
    if target is None:
        raise BadRequest(f"'{text[:300]}' is no host:port.")
    return target


def tunnel_target(text: bytes) -> Target:
    """The target of CONNECT: ``host:port`` and nothing else.

    Raises:
        BadRequest: it is not.
    """
    return parse_target(_ascii(text))


def plain_target(text: bytes, headers: Headers) -> Target:
    """The target of a plain request: an http:// address, and the same host in its one Host header.

    Raises:
        BadRequest: another scheme, no address, or a Host header that says something else.
    """
    address = _ascii(text)
    if address[:7].lower() != "http://":
        if address[:8].lower() == "https://":
            raise BadRequest("https addresses go through CONNECT.")
        raise BadRequest("This is a proxy: it wants a whole http:// address.")
    end = min((found for sign in "/?#" if (found := address.find(sign, 7)) >= 0), default=len(address))
    target, path = _authority(address[7:end], default_port=80), address[end:]
    if target is None or not _PATH.fullmatch(path):
        raise BadRequest("The address of the request has no plain host, port and path.")
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) != 1 or _authority(_ascii(hosts[0]), default_port=80) != target:
        raise BadRequest("The Host header and the address of the request differ.")
    return Target(target.host, target.port, path if path.startswith("/") else f"/{path}")


def _authority(text: str, *, default_port: int | None) -> Target | None:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host = parse_host(match["v6"] or match["host"])
    port = parse_port(match["port"]) if match["port"] else default_port
    if host is None or port is None or (match["v6"] and not isinstance(host, IPv6Address)):
        return None
    return Target(host, port)


def _ascii(text: bytes) -> str:
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest("The address of the request is not ASCII.") from None
