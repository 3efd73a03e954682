"""Which addresses of a host a guest may reach."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest

from tatin_jobs.netrules import IPNetwork
from worker.gateway.egress import parse_target
from worker.gateway.egress.lookup import NotPublic, NotReached, addresses


async def look_up(where: str, trusted: Sequence[IPNetwork] = ()) -> list[str]:
    with ThreadPoolExecutor(1) as lookups:
        return await addresses(parse_target(where), trusted, lookups, 10)


async def test_a_public_address_may_be_reached() -> None:
    assert await look_up("1.1.1.1:443") == ["1.1.1.1"]


async def test_a_public_address_of_this_host_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A50: a server in a data centre has one. This machine may have none, so its list is a made-up one."""
    one = SimpleNamespace(family=socket.AF_INET, address="1.1.1.1", netmask=None)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [one]})
    for where in ("1.1.1.1:443", "[::ffff:1.1.1.1]:443"):
        with pytest.raises(NotPublic):
            await look_up(where)
    assert await look_up("1.1.1.1:443", [ipaddress.ip_network("1.1.1.1/32")]) == ["1.1.1.1"]
    assert await look_up("1.1.1.2:443") == ["1.1.1.2"]


async def test_a50_a_neighbour_with_a_public_address_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A50: with IPv6 the machines of a home have public addresses. The list is made up, as above."""
    links = [
        SimpleNamespace(family=socket.AF_INET6, address="2606:4700:1:2::10", netmask="ffff:ffff:ffff:ffff::"),
        SimpleNamespace(family=socket.AF_INET6, address="fe80::1%eth0", netmask="ffff:ffff:ffff:ffff::"),
        SimpleNamespace(family=socket.AF_INET, address="1.1.1.1", netmask="255.255.255.0"),
        SimpleNamespace(family=socket.AF_INET, address="9.9.9.9", netmask="0.0.0.0"),
    ]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": links})
    for where in ("[2606:4700:1:2::77]:80", "[::ffff:1.1.1.77]:80", "1.1.1.77:80", "9.9.9.9:80"):
        with pytest.raises(NotPublic):
            await look_up(where)
    assert await look_up("[2606:4700:1:3::77]:80") == ["2606:4700:1:3::77"]
    assert await look_up("9.9.9.10:80") == ["9.9.9.10"]
    trusted = [ipaddress.ip_network("2606:4700:1:2::/64")]
    assert await look_up("[2606:4700:1:2::77]:80", trusted) == ["2606:4700:1:2::77"]


async def test_a_trusted_network_is_reached_and_its_neighbour_is_not() -> None:
    trusted = [ipaddress.ip_network("192.168.20.0/24")]
    assert await look_up("192.168.20.7:443", trusted) == ["192.168.20.7"]
    with pytest.raises(NotPublic) as caught:
        await look_up("192.168.21.7:443", trusted)
    assert caught.value.address == "192.168.21.7"


async def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(NotReached):
        await look_up("no-such-name.invalid:443")
