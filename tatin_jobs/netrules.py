"""What stands in `network.allow` of a job: one rule a text. No I/O; used by the job file and by the gateway alike.

pip                     the hosts that pip in the sandbox is set up to use (also apt, cargo, git, go, npm)
docs.example.com        this host, ports 80 and 443
docs.example.com:8080   this host, this port
*.example.com           every name below example.com, and not example.com itself
192.0.2.0/24, [2001:db8::/32]:443      addresses that the guest writes as addresses; names are never matched by them
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

TOOLS = ("apt", "cargo", "git", "go", "npm", "pip")
"""Ready-made lists."""
WEB_PORTS = (80, 443)
"""What a rule without a port allows."""
MAX_NAME = 253

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Host = str | IPAddress
"""A name in its one form (``parse_name``), or an address."""


class RuleError(ValueError):
    """A text is no rule; ``try_`` says what to write."""

    def __init__(self, message: str, try_: str) -> None:
        super().__init__(message)
        self.message = message
        self.try_ = try_


@dataclass(frozen=True)
class ToolRule:
    """A ready-made list; which hosts are on it is asked in the sandbox."""

    tool: str


@dataclass(frozen=True)
class HostRule:
    """A name, or all names ``below`` it; ``port`` None: the ports of the web."""

    name: str
    below: bool = False
    port: int | None = None

    def allows(self, host: Host, port: int) -> bool:
        """Whether a guest may go there by this rule."""
        if not isinstance(host, str) or not _port_fits(self.port, port):
            return False
        return host.endswith(f".{self.name}") if self.below else host == self.name


@dataclass(frozen=True)
class AddressRule:
    """Addresses; ``port`` as in HostRule."""

    network: IPNetwork
    port: int | None = None

    def allows(self, host: Host, port: int) -> bool:
        """Whether a guest may go there by this rule."""
        return not isinstance(host, str) and _port_fits(self.port, port) and host in self.network


Rule = ToolRule | HostRule | AddressRule


def parse_rule(text: str) -> Rule:
    """The rule that ``text`` is.

    Raises:
        RuleError: it is none; its message reads on from the value.
    """
    if text in TOOLS:
        return ToolRule(text)
    if "://" in text:
        raise RuleError("is an address with more than a host and a port.", "write docs.example.com or host:port.")
    host, port = _split(text)
    if "/" in host or _is_address(host):
        return AddressRule(_network(host), port)
    below = host.startswith("*.")
    name = parse_name(host.removeprefix("*.") if below else host)
    if name is None:
        raise RuleError(
            "is no host, address range or ready-made list.",
            f"write docs.example.com, *.example.com, 192.0.2.0/24 or one of {', '.join(TOOLS)}.",
        )
    if below and "." not in name:
        raise RuleError("is too wide.", "write at least *.example.com, or `mode: open`.")
    if "." not in name and port is None:
        raise RuleError(
            f"is none of the ready-made lists ({', '.join(TOOLS)}).",
            f"write {name}:443 if a host of that name is meant.",
        )
    return HostRule(name, below, port)


def parse_name(text: str) -> str | None:
    """A host's name in the one form in which names are compared: lower case, without the root's dot; None for what is
    no name. Whatever a resolver might take for a number (``127.1``, ``0x7f000001``) is no name."""
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not text.isascii() or len(name) > MAX_NAME:
        return None
    if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
        return None
    return name


def parse_host(text: str) -> Host | None:
    """A name, or an address without brackets; None for anything else."""
    return ipaddress.ip_address(text) if _is_address(text) else parse_name(text)


def parse_port(text: str) -> int | None:
    """1 to 65535 in its one form; None for anything else."""
    return int(text) if _PORT.fullmatch(text) and int(text) <= 65_535 else None


def written(host: Host, port: int) -> str:
    """``host:port`` as people and rules write it."""
    return f"[{host}]:{port}" if isinstance(host, ipaddress.IPv6Address) else f"{host}:{port}"


def _port_fits(wanted: int | None, port: int) -> bool:
    return port in WEB_PORTS if wanted is None else port == wanted


def _split(text: str) -> tuple[str, int | None]:
    """(host, port) of a rule; a bare IPv6 address has no port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise RuleError("has a `[` that nothing closes.", "write [2001:db8::/32]:443.")
        port_text = rest[1:] if rest else None
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    else:
        host, port_text = text, None
    if port_text is None:
        return host, None
    port = parse_port(port_text)
    if port is None:
        raise RuleError("has a port that is no number from 1 to 65535.", "write host:443.")
    return host, port


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _network(text: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise RuleError("is no range of addresses.", "write 192.0.2.0/24: no bits set behind the slash.") from error
    if network.prefixlen == 0:
        raise RuleError("is every address there is.", "write `mode: open`.")
    return network
