"""Which addresses of repositories are fetched at all (A20-A22): listed schemes, and no credentials in them.

Asked by the submitter, so that a bad one never becomes a record, and by the worker, before git sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tatin_jobs.errors import RepositoryError

SCHEMES = ("https", "http", "ssh", "git")
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
# The host ends at the first slash: git, curl and ssh do not agree on what `?`, `#` and `\` before it mean.
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<authority>[^\s/?#\\\x00-\x1f\x7f]{0,400})(?P<path>/[^\s\x00-\x1f\x7f]{0,2000})"
)
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
    scheme, separator, _ = url.partition("://")
    if separator and re.fullmatch(r"[a-z]+", scheme):
        if scheme not in SCHEMES and not (scheme == "file" and allow_file):
            raise RepositoryError(
                f"The repository '{_harmless(url)}' is reached by '{scheme}', which is not allowed.",
                try_=f"an address that begins with one of: {', '.join(SCHEMES)}.",
            )
        if match := _URL.fullmatch(url):
            return Address(url, "file", None, 0) if scheme == "file" else _with_host(url, scheme, match["authority"])
    # A colon before any slash is the short form of SSH; a drive letter or `ext::cmd` is not.
    scp = _SCP.fullmatch(url)
    if scp and not scp["path"].startswith(("-", "//")) and (scp["user"] or "." in scp["host"]):
        return Address(url, "ssh", scp["host"], _PORTS["ssh"])
    raise RepositoryError(
        f"The repository '{_harmless(url)}' is no address that can be fetched.",
        try_="https://host/path, ssh://user@host/path or user@host:path; a local path is packed by `tatin submit`.",
    )


def without_credentials(text: str) -> str:
    """``text`` with the user part of every address in it left out, and without control characters."""
    return re.sub(r"(://)[^/\s'\"]*@", r"\1", _printable(text))


def _harmless(url: str) -> str:
    """What may be shown of an address that was refused: of one that cannot be read, only what follows its last `@`."""
    return _printable(url.rpartition("@")[2])[:200]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _with_host(url: str, scheme: str, authority: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[scheme]
    except ValueError as error:
        raise RepositoryError(f"The repository '{_harmless(url)}' has no proper host and port.") from error
    user_allowed = scheme == "ssh" and parts.password is None and _USER.fullmatch(parts.username or "git") is not None
    if "@" in authority and not user_allowed:
        raise RepositoryError(
            f"The address of the repository '{_harmless(url)}' has credentials in it.",
            try_="leave them out of the address; let a git credential helper on the worker supply them.",
        )
    if not host or _HOST.fullmatch(host) is None:
        raise RepositoryError(f"The repository '{_harmless(url)}' has no proper host.")
    return Address(url, scheme, host, port)
