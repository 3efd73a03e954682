"""What ``repo`` names: an address that workers fetch, or a folder of the submitter's (A20, A21, A22). No I/O."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tatin_jobs.spec.problems import FieldError

SCHEMES = ("https", "http", "ssh", "git")
MAX_CHARACTERS = 2_000

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://\S+")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.-]{0,63})@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}):(?P<path>[^\s:]+)"
)
_SCP_PASSWORD = re.compile(r"[^/\s@]*:[^/\s@]*@[^/\s]+:.*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9a-fA-F:.]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}")
_ADVICE = "write https://host/path, ssh://user@host/path or user@host:path, or the path of a folder here."


def is_address(text: str) -> bool:
    """Whether ``text`` is an address; otherwise it is a local path.

    Raises:
        FieldError: it is neither, or one that is not allowed: another scheme, a remote helper, credentials in it.
    """
    if text.startswith("-"):
        raise FieldError("begins with a dash.", _ADVICE)
    if not text.isprintable() or len(text) > MAX_CHARACTERS:
        raise FieldError("is no address or path that can be used.", _ADVICE)
    if match := _URL.fullmatch(text):
        _check_url(text, match["scheme"])
        return True
    if _HELPER.match(text):
        raise FieldError("names a remote helper of git, which is not allowed.", _ADVICE)
    if "://" in text:
        raise FieldError("is no proper address.", _ADVICE)
    if _SCP_PASSWORD.fullmatch(text):
        raise _credentials()
    scp = _SCP.fullmatch(text)
    if scp is None or not (scp["user"] or "." in scp["host"]):
        return False
    if scp["path"].startswith("-"):
        raise FieldError("has a path that begins with a dash.", _ADVICE)
    return True


def check_base_url(text: str) -> None:
    """Whether ``text`` can be the address of a model server.

    Raises:
        FieldError: it is no plain http or https address, or there are credentials in it.
    """
    advice = "write http://host:port or https://host/path; keys go into the worker's tatin.toml."
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or len(text) > MAX_CHARACTERS:
        raise FieldError("is no http or https address.", advice)
    if "@" in parts.netloc:
        raise _credentials()
    if parts.query or parts.fragment:
        raise FieldError("has a `?` or `#` in it.", advice)


def _check_url(text: str, scheme: str) -> None:
    if scheme == "file":
        raise FieldError("is a `file` address, which is not allowed.", "write the path of the folder itself.")
    if scheme not in SCHEMES:
        raise FieldError("is reached in a way that is not allowed.", f"begin it with one of: {', '.join(SCHEMES)}.")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or _HOST.fullmatch(host) is None:
        raise FieldError("has no proper host and port.", _ADVICE)
    user_only = scheme == "ssh" and parts.password is None and _USER.fullmatch(parts.username or "git") is not None
    if "@" in parts.netloc and not user_only:
        raise _credentials()


def _credentials() -> FieldError:
    return FieldError(
        "has credentials in it, which would be stored with the job.",
        "leave them out of the address; let a git credential helper or the settings on the worker supply them.",
        hidden=True,
    )
