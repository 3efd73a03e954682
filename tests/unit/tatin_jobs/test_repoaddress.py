"""Addresses of repositories: A20, A21, A22."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import parse_address, without_credentials


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("https://example.com/app.git", "https", "example.com", 443),
        ("http://example.com:8080/a/b", "http", "example.com", 8080),
        ("https://[2001:db8::1]:8443/app", "https", "2001:db8::1", 8443),
        ("ssh://git@example.com:2222/app", "ssh", "example.com", 2222),
        ("ssh://example.com/~user/app", "ssh", "example.com", 22),
        ("git@example.com:team/app.git", "ssh", "example.com", 22),
        ("example.com:app.git", "ssh", "example.com", 22),
        ("git://example.com/app", "git", "example.com", 9418),
    ],
)
def test_addresses_that_are_fetched(url: str, scheme: str, host: str, port: int) -> None:
    found = parse_address(url)
    assert (found.url, found.scheme, found.host, found.port) == (url, scheme, host, port)


@pytest.mark.parametrize(
    "url",
    [
        *("--upload-pack=touch /tmp/evil", "-c core.sshCommand=evil", "-uevil", "", " ", "app", "./app", "../app"),
        *("ext::sh -c evil", "ext::sh", "fd::17", "file:///etc", "/srv/x", "C:\\app", "HTTPS://example.com/x"),
        *("ftp://example.com/x", "javascript:alert(1)", "https://", "https:///x", "https://example.com"),
        *("ssh://-oProxyCommand=evil/x", "ssh://-oProxyCommand=evil@example.com/x", "-oProxyCommand=evil:x"),
        *("ssh://%2doProxyCommand=evil/x", "git@-evil:x", "git@example.com:-x", "git@example.com:a:b"),
        *("https://example.com/a b", "https://example.com/a\nb", "https://example.com/\x1b[31m", "https://a\0b/x"),
        *(
            "https://example.com:99999/x",
            "https://example.com:x/y",
            "https://exa mple.com/x",
            "https://ex\u0430mple.com/",
        ),
        # What git, curl and ssh take for another host than a reader does.
        *("ssh://good.example?x@evil.example/app", "ssh://good.example#x@evil.example/app"),
        *("https://good.example\\@evil.example/app", "https://good.example;evil.example/x"),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(RepositoryError):
        parse_address(url)


def test_a_file_is_for_tests_only() -> None:
    assert parse_address("file:///srv/x", allow_file=True).host is None
    with pytest.raises(RepositoryError, match="'file', which is not allowed"):
        parse_address("file:///srv/x")


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:token@example.com/x", "https://token@example.com/x", "http://user:@example.com/x"),
        *("ssh://git:token@example.com/x", "git://token@example.com/x", "https://us@er:token@example.com/x"),
        *("https://user:to/ken@example.com/x", "user:token@example.com/x", "https://user:token@bad host/x"),
        *("ftp://user:token@example.com/x", "https://user:token@[::1/x", "https://user:to#ken@example.com/x"),
    ],
)
def test_credentials_are_refused_and_not_repeated(url: str) -> None:
    """A22"""
    with pytest.raises(RepositoryError) as caught:
        parse_address(url)
    assert "token" not in str(caught.value)
    assert "ken@" not in str(caught.value)
    assert "user" not in caught.value.what


def test_credentials_are_taken_out_of_what_git_says() -> None:
    said = "fatal: unable to access 'https://user:p@ss@example.com/x/': \x1b[31mno"
    assert without_credentials(said) == "fatal: unable to access 'https://example.com/x/': ?[31mno"


@given(st.text(max_size=300))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    for url in (text, f"https://{text}", f"ssh://{text}/x", f"git@{text}"):
        try:
            found = parse_address(url)
        except RepositoryError as error:
            assert all(char.isprintable() or char == "\n" for char in str(error))  # noqa: PT017
        else:
            assert not found.url.startswith("-")
            assert found.host is None or not found.host.startswith("-")
