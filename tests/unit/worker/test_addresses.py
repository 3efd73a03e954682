"""Which addresses are public (A27, A50), in every form in which one may be written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.addresses import is_in, is_public

NOT_PUBLIC = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    *(
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.80",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "100.128.0.1", "169.253.0.1"]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_not_public_is_not_in_any_form(text: str) -> None:
    number = int(ipaddress.IPv4Address(text))
    assert not is_public(text)
    assert not is_public(f"::ffff:{text}")
    assert not is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) | number)))  # NAT64
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80))))  # 6to4
    assert not is_public(f"::{text}")


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_is_public_in_its_forms(text: str) -> None:
    assert is_public(text)
    assert is_public(f"::ffff:{text}")


@pytest.mark.parametrize(
    "text",
    [
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "2001::1"),
        *("64:ff9b:1::1", "100::1"),
    ],
)
def test_what_is_not_public_of_ipv6(text: str) -> None:
    assert not is_public(text)


def test_a_public_address_of_ipv6_is_public() -> None:
    assert is_public("2606:4700::1111")


def test_a_range_holds_what_an_address_stands_for() -> None:
    networks = [ipaddress.ip_network("192.168.20.0/24")]
    assert is_in("::ffff:192.168.20.7", networks)
    assert not is_in("192.168.21.7", networks)


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_public(str(address)):
        assert not (address.is_private and address.is_loopback and address.is_link_local)
