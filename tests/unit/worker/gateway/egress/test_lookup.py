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
    one = SimpleNamespace(family=socket.AF_INET, address="1.1.1.1")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [one]})
    for where in ("1.1.1.1:443", "[::ffff:1.1.1.1]:443"):
        with pytest.raises(NotPublic):
            await look_up(where)
    assert await look_up("1.1.1.1:443", [ipaddress.ip_network("1.1.1.1/32")]) == ["1.1.1.1"]
    assert await look_up("1.1.1.2:443") == ["1.1.1.2"]


async def test_a_trusted_network_is_reached_and_its_neighbour_is_not() -> None:
    trusted = [ipaddress.ip_network("192.168.20.0/24")]
    assert await look_up("192.168.20.7:443", trusted) == ["192.168.20.7"]
    with pytest.raises(NotPublic) as caught:
        await look_up("192.168.21.7:443", trusted)
    assert caught.value.address == "192.168.21.7"


async def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(NotReached):
        await look_up("no-such-name.invalid:443")
