"""The rules of an allow-list: what each allows, what is refused, and that no text is read in two ways."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatin_jobs.netrules import (
    TOOLS,
    AddressRule,
    HostRule,
    RuleError,
    ToolRule,
    parse_host,
    parse_name,
    parse_port,
    parse_rule,
    written,
)


def allows(rule: str, host: str, port: int) -> bool:
    parsed, target = parse_rule(rule), parse_host(host)
    assert target is not None
    assert not isinstance(parsed, ToolRule)
    return parsed.allows(target, port)


@pytest.mark.parametrize(
    ("rule", "host", "port", "expected"),
    [
        ("docs.example.com", "docs.example.com", 443, True),
        ("docs.example.com", "docs.example.com", 80, True),
        ("docs.example.com", "docs.example.com", 22, False),
        ("docs.example.com", "DOCS.Example.com.", 443, True),
        ("docs.example.com", "x.docs.example.com", 443, False),
        ("docs.example.com", "docs.example.com.evil.example", 443, False),
        ("docs.example.com:8080", "docs.example.com", 8080, True),
        ("docs.example.com:8080", "docs.example.com", 443, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "evilexample.com", 443, False),
        ("*.example.com:8443", "a.example.com", 8443, True),
        ("buildbox:443", "buildbox", 443, True),
        ("192.0.2.0/24", "192.0.2.7", 443, True),
        ("192.0.2.0/24", "192.0.3.7", 443, False),
        ("192.0.2.7", "192.0.2.7", 80, True),
        ("192.0.2.7:22", "192.0.2.7", 22, True),
        ("2001:db8::/32", "2001:db8::1", 443, True),
        ("[2001:db8::/32]:8080", "2001:db8::1", 8080, True),
        ("[2001:db8::1]", "2001:db8::1", 8080, False),
    ],
)
def test_a_rule_allows_what_it_says(rule: str, host: str, port: int, expected: bool) -> None:
    assert allows(rule, host, port) is expected


def test_a_name_is_never_allowed_by_a_range_nor_an_address_by_a_name() -> None:
    """A77: a name that no rule names is never looked up, whatever it would resolve to."""
    assert not AddressRule(ipaddress.ip_network("0.0.0.0/1")).allows("a.example", 443)
    assert not HostRule("1").allows(ipaddress.ip_address("0.0.0.1"), 443)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_a_ready_made_list(tool: str) -> None:
    assert parse_rule(tool) == ToolRule(tool)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no host"),
        ("pypi", "none of the ready-made lists"),
        ("https://a.example", "more than a host"),
        ("a.example/path", "no range"),
        ("a.example:443/path", "port"),
        ("a.example:0", "port"),
        ("a.example:65536", "port"),
        ("a.example:", "port"),
        ("a.example:+80", "port"),
        ("user@a.example", "no host"),
        ("*", "no host"),
        ("*.com", "too wide"),
        ("a.*.example.com", "no host"),
        ("*a.example.com", "no host"),
        ("a..example", "no host"),
        ("-a.example", "no host"),
        ("b\u00fccher.example", "no host"),
        ("\u212a.example", "no host"),
        ("127.1", "no host"),
        ("0x7f000001:80", "no host"),
        ("2130706433:80", "no host"),
        ("0.0.0.0/0", "every address"),
        ("::/0", "every address"),
        ("10.0.0.1/8", "no range"),
        ("[2001:db8::1", "nothing closes"),
        ("[2001:db8::1]443", "nothing closes"),
        ("fe80::1%eth0", "no host"),
        ("a" * 64 + ".example", "no host"),
    ],
)
def test_what_is_no_rule_is_refused_with_advice(text: str, words: str) -> None:
    with pytest.raises(RuleError, match=words) as caught:
        parse_rule(text)
    assert caught.value.try_


@given(st.text(max_size=80))
def test_any_text_is_a_rule_or_is_refused(text: str) -> None:
    with suppress(RuleError):
        parse_rule(text)


@given(st.text(alphabet="aZ0.-_:[]%/\u00e9\u3002 ", max_size=30))
def test_a_name_has_one_form(text: str) -> None:
    """What is read as a name reads the same again, and is no number to any resolver."""
    name = parse_name(text)
    if name is not None:
        assert parse_name(name) == name == name.lower()
        assert name.isascii()
        with pytest.raises(ValueError, match="does not appear"):
            ipaddress.ip_address(name)


@given(st.sampled_from(["a.example", "192.0.2.1", "2001:db8::1"]), st.integers(1, 65535))
def test_what_is_shown_can_be_written_into_allow(text: str, port: int) -> None:
    host = parse_host(text)
    assert host is not None
    rule = parse_rule(written(host, port))
    assert not isinstance(rule, ToolRule)
    assert rule.allows(host, port)


@pytest.mark.parametrize("text", ["", "0", "65536", "080", "+80", " 80", "8 0", "\u0668\u0660", "999999"])
def test_a_port_has_one_form(text: str) -> None:
    assert parse_port(text) is None
