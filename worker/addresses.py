"""Which IP addresses are public: reached by everybody alike, and so by a guest (A27, A50); and which are ours."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil

from tatin_jobs.netrules import IPAddress, IPNetwork

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = (
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of a site's own; Python before 3.13 takes it for global
    ipaddress.ip_network("192.0.0.0/24"),  # of protocols, and a cloud's metadata; older Pythons know parts of it
    ipaddress.ip_network("168.63.129.16/32"),  # a large cloud's metadata, global by its number only
)


def reached(text: str) -> IPAddress:
    """The address that is reached in the end by ``text``: the IPv4 one where an IPv6 one stands for it."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(text: str) -> bool:
    """Whether an address is public. Private, loopback, link-local, shared (CGNAT), metadata, multicast and reserved
    ones are not, in whatever form they are written."""
    address = reached(text)
    if is_in(text, _NOT_PUBLIC) or address.is_multicast or address.is_reserved:
        return False
    return address.is_global and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)


def is_in(text: str, networks: Iterable[IPNetwork]) -> bool:
    """Whether an address, or the one that it stands for, is in one of these networks."""
    address = reached(text)
    return any(address in network for network in networks)


def own_networks() -> list[IPNetwork]:
    """This host's addresses, and those beside it on its links: public ones too, as every machine of a home has with
    IPv6. Neither its services nor its neighbours' are for guests."""
    ip = (socket.AF_INET, socket.AF_INET6)
    found = []
    for item in (item for items in psutil.net_if_addrs().values() for item in items if item.family in ip):
        address = ipaddress.ip_address(item.address.partition("%")[0])
        prefix = _prefix_length(item.netmask) or address.max_prefixlen
        found.append(ipaddress.ip_network((address, prefix), strict=False))
    return found


def _prefix_length(netmask: str | None) -> int:
    """0: it is not told, or the link is one to everywhere, as a tunnel's."""
    return int(ipaddress.ip_address(netmask.partition("%")[0])).bit_count() if netmask else 0
