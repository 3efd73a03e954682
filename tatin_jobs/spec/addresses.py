"""What ``repo`` and ``base_url`` name: which text is an address, and which a local path (A20, A21, A22). No I/O."""

from __future__ import annotations

from urllib.parse import urlsplit

from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import parse_address
from tatin_jobs.spec.problems import FieldError


def is_address(text: str) -> bool:
    """Whether ``text`` is an address that workers may fetch; otherwise it is a local path.

    Raises:
        FieldError: it is written as an address, and as one that is not allowed (``parse_address`` says which are).
    """
    if text.startswith("-"):
        raise FieldError("begins with a dash.", "write a path that does as ./-name.")
    if not _looks_like_address(text):
        return False
    try:
        parse_address(text)
    except RepositoryError as error:
        # Its words quote what may be shown of it.
        raise FieldError(error.what, error.try_, hidden=True) from error
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
    if "@" in text:
        raise FieldError("has an `@` in it, as credentials have.", advice, hidden=True)
    if not usable:
        raise FieldError("is no http or https address.", advice)
    if parts.query or parts.fragment:
        raise FieldError("has a `?` or `#` in it.", advice)


def _looks_like_address(text: str) -> bool:
    """By its scheme, or as ``host:path`` with a user or a dot in it: ``a:b`` may well be a folder here."""
    head = text.partition("/")[0]
    host, colon, _ = head.partition(":")
    return "://" in text or "::" in head or bool(colon and ("@" in head or host.strip(".").count(".")))
