"""What may cross a model route: methods, paths and headers, as tables. No I/O (A74).

A path is let through only when it is, byte for byte, one of the dialect's: nothing is decoded, joined or normalised, so
there is no second reading of it (``..``, ``%2e``, ``//``, an absolute address) that a server behind could prefer.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from multidict import CIMultiDict

PATHS: Mapping[str, frozenset[tuple[str, str]]] = {
    "openai": frozenset(
        {("POST", "/v1/chat/completions"), ("POST", "/v1/responses"), ("GET", "/v1/models")},
    ),
    "anthropic": frozenset(
        {("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens"), ("GET", "/v1/models")},
    ),
}
"""Dialect -> (method, path) that is passed on."""

_QUERY = re.compile(r"[A-Za-z0-9_=&.-]{0,512}")
_REQUEST_HEADERS = frozenset(
    {"accept", "content-type", "user-agent", "anthropic-version", "anthropic-beta", "openai-beta"}
)
_RESPONSE_HEADERS = frozenset(
    {"content-type", "request-id", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
_RESPONSE_PREFIXES = ("anthropic-ratelimit-", "x-ratelimit-")


def allowed_path(api: str, method: str, target: str) -> tuple[str, str] | None:
    """(path, query) of a request target that may be passed on; None when it may not.

    The path is without its leading ``/v1``: it goes behind the provider's own.
    """
    path, _, query = target.partition("?")
    if (method, path) not in PATHS[api] or _QUERY.fullmatch(query) is None:
        return None
    return path.removeprefix("/v1"), query


def bears(headers: Mapping[str, str], token: str) -> bool:
    """Whether the request carries the attempt's token, as ``Authorization: Bearer`` or ``x-api-key``."""
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def request_headers(headers: Mapping[str, str], api: str, key: str | None) -> CIMultiDict[str]:
    """What the provider gets: the few headers that its API knows, with its own key in place of the token.

    Everything else stays behind: cookies, forwarding and hop-by-hop headers, and those that choose who pays.
    """
    kept = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _REQUEST_HEADERS)
    kept["Accept-Encoding"] = "identity"  # a compressed stream would come in lumps, and its usage unread
    if key is not None and api == "anthropic":
        kept["X-Api-Key"] = key
    elif key is not None:
        kept["Authorization"] = f"Bearer {key}"
    return kept


def response_headers(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """What the guest gets: what the answer is, and when to come again."""
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() in _RESPONSE_HEADERS or name.lower().startswith(_RESPONSE_PREFIXES)
    )
