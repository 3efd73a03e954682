"""Where a request wants to go: one reading, or none (A74)."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.egress.target import BadRequest, Target, parse_target, plain_target, tunnel_target


def headers(*hosts: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", host.encode()) for host in hosts]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("docs.example.com:443", "docs.example.com", 443),
        ("DOCS.example.com.:443", "docs.example.com", 443),
        ("192.0.2.1:8080", "192.0.2.1", 8080),
        ("[2001:DB8::1]:443", "2001:db8::1", 443),
    ],
)
def test_a_tunnel_names_a_host_and_a_port(text: str, host: str, port: int) -> None:
    target = tunnel_target(text.encode())
    assert (str(target.host), target.port) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a.example", ":443", "a.example:", "a.example:0", "a.example:65536", "a.example:0443", "a.example:+443"),
        *("http://a.example:443", "a.example:443/", "user@a.example:443", "a.example:443@b.example:443"),
        *("127.1:443", "2130706433:443", "0x7f000001:443", "0177.0.0.1:443", "1.2.3.4.5:443"),
        *("2001:db8::1:443", "[a.example]:443", "[192.0.2.1]:443", "[fe80::1%25lo]:443", "[::1", "[]:443"),
        *(
            "a..example:443",
            "-a.example:443",
            "a\\b.example:443",
            "a b.example:443",
            "a%2eexample:443",
            "*.example:443",
        ),
    ],
)
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        tunnel_target(text.encode())


@pytest.mark.parametrize("text", [b"\xff.example:443", "b\u00fccher.example:443".encode()])
def test_what_is_not_ascii_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest):
        tunnel_target(text)


@pytest.mark.parametrize(
    ("text", "host", "where", "path"),
    [
        ("http://a.example/x?y=z", "a.example", "a.example:80", "/x?y=z"),
        ("HTTP://A.example", "a.example", "a.example:80", "/"),
        ("http://a.example?x", "a.example", "a.example:80", "/?x"),
        ("http://a.example:8080/", "a.example:8080", "a.example:8080", "/"),
        ("http://a.example:80/", "a.example", "a.example:80", "/"),
        ("http://[2001:db8::1]/", "[2001:db8::1]", "[2001:db8::1]:80", "/"),
        ("http://a.example/../%2e%2e//x", "a.example", "a.example:80", "/../%2e%2e//x"),
    ],
)
def test_a_plain_request_names_its_host_and_path(text: str, host: str, where: str, path: str) -> None:
    target = plain_target(text.encode(), headers(host))
    assert (str(target), target.path) == (where, path)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("/x", ["a.example"]),
        ("a.example/x", ["a.example"]),
        ("*", ["a.example"]),
        ("https://a.example/", ["a.example"]),
        ("ftp://a.example/", ["a.example"]),
        ("http:///x", ["a.example"]),
        ("http://user@a.example/", ["a.example"]),
        ("http://a.example@b.example/", ["b.example"]),
        ("http://a.example\\@b.example/", ["b.example"]),
        ("http://a.example#@b.example/", ["b.example"]),
        ("http://a.example/#x", ["a.example"]),
        ("http://a.example/ x", ["a.example"]),
        ("http://a.example/", ["b.example"]),
        ("http://a.example/", ["a.example:8080"]),
        ("http://a.example/", ["a.example", "b.example"]),
        ("http://a.example/", ["a.example", "a.example"]),
        ("http://a.example/", []),
        ("http://a.example/", [""]),
        ("http://a.example/", ["a.example/"]),
    ],
)
def test_a_plain_request_with_two_readings_is_refused(text: str, hosts: list[str]) -> None:
    with pytest.raises(BadRequest):
        plain_target(text.encode(), headers(*hosts))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_target_or_are_refused(data: bytes) -> None:
    with suppress(BadRequest):
        assert parse_target(str(tunnel_target(data))) == tunnel_target(data)


@given(st.text(alphabet="aA.1:/@#?\\[]%-_ ", max_size=40))
def test_what_is_read_from_an_address_is_what_stands_there(rest: str) -> None:
    """The host is what stands between the slashes, whole: nothing before an `@`, nothing behind a `\\`."""
    authority = re.split("[/?]", rest)[0]
    with suppress(BadRequest):
        target = plain_target(f"http://{rest}".encode(), headers(authority))
        assert isinstance(target, Target)
        assert not set("@\\# ") & set(authority)
        assert authority.lower().startswith(str(target.host).split(":")[0])
