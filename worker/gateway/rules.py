"""What may cross a model route: methods, paths, models and headers, as tables and pure functions. No I/O (A74).

A path is let through only when it is, byte for byte, one of the dialect's: nothing is decoded, joined or normalised, so
there is no second reading of it (``..``, ``%2e``, ``//``, an absolute address) that a server behind could prefer.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

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

MAX_VALUES = 2_000_000
"""Values in the JSON of one request. Read into memory each takes up to 64 bytes, however short it was written."""
_QUERY = re.compile(r"[A-Za-z0-9_=&.-]{0,512}")
_STREAMS = re.compile(rb'"stream"\s*:\s*true')
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Servers quote the name of one that they do not know at the beginning of their error, which is read (``quota``)."""
_MODEL_NAMES = frozenset({"model", "models"})
"""``models`` is a list to choose from, for servers that are themselves a route to others."""
_REQUEST_HEADERS = frozenset(
    {"accept", "content-type", "user-agent", "x-app", "anthropic-version", "anthropic-beta", "openai-beta"}
)
OAUTH_BETA = "oauth-2025-04-20"
"""Without it Anthropic takes no subscription's token."""
_RESPONSE_HEADERS = frozenset(
    {"content-type", "request-id", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
_RESPONSE_PREFIXES = ("anthropic-ratelimit-", "x-ratelimit-")


def allowed_target(api: str, method: str, target: str) -> str | None:
    """The request target to ask the provider for; None when this one may not be passed on.

    It is without its leading ``/v1``: it goes behind the provider's own.
    """
    path, mark, query = target.partition("?")
    if (method, path) not in PATHS[api] or _QUERY.fullmatch(query) is None:
        return None
    return path.removeprefix("/v1") + (mark if query else "") + query


def asks_model(method: str, path: str) -> bool:
    """Whether this call has the model think: what costs, and what an agent's turns are."""
    return method == "POST" and not path.endswith("/count_tokens")


def body_complaint(body: bytes, model: str) -> str | None:
    """Why a request with this body is not passed on, as one sentence; None when it asks for ``model``.

    Servers differ in which of two equal names in an object counts, and in whether ``Model`` is one of them (in Go it
    is), so a second reading is not left open: the name stands there once, and as it is.
    """
    if sum(body.count(sign) for sign in (b"{", b"[", b",")) > MAX_VALUES:
        return f"The body has more than {MAX_VALUES} values."
    try:
        asked = json.loads(body.decode(), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return "The body is not JSON in UTF-8."
    pairs = asked if isinstance(asked, _Pairs) else []
    if not all(_PARAMETER.fullmatch(name) for name, _ in pairs):
        return "The body has a parameter whose name is none."
    named = [(name, value) for name, value in pairs if name.casefold() in _MODEL_NAMES]
    if len(named) != 1 or named[0][0] != "model":
        return f"The body must name its model once, as `model`: this attempt's model is '{model}'."
    if named[0][1] != model:
        return f"This attempt's model is '{model}', and no other may be asked for."
    return None


def with_usage(target: str, body: bytes) -> bytes:
    """``body``, and where it asks for a stream of Chat Completions without its usage, for that too: servers tell it
    only when asked, and a guest must not choose not to be counted. (Inside a JSON string the quotes would be escaped.)
    """
    if not target.startswith("/chat/completions") or not _STREAMS.search(body) or b'"stream_options"' in body:
        return body
    start = body.index(b"{") + 1
    return body[:start] + b'"stream_options":{"include_usage":true},' + body[start:]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, with names that come twice."""


def bears(headers: Mapping[str, str], token: str) -> bool:
    """Whether the request carries the attempt's token, as ``Authorization: Bearer`` or ``x-api-key``."""
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def request_headers(
    headers: Mapping[str, str], api: str, key: str | None, *, subscription: bool = False
) -> CIMultiDict[str]:
    """What the provider gets: the few headers that its API knows, with its own key in place of the token.

    Everything else stays behind: cookies, forwarding and hop-by-hop headers, and those that choose who pays.
    ``subscription``: the key is the token of one, which goes where Claude Code puts it (seen with 2.1.332).
    """
    kept = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _REQUEST_HEADERS)
    kept["Accept-Encoding"] = "identity"  # a compressed stream would come in lumps, and its usage unread
    if key is not None and subscription:
        kept["Authorization"] = f"Bearer {key}"
        betas = [part.strip() for part in kept.get("anthropic-beta", "").split(",") if part.strip()]
        kept["anthropic-beta"] = ",".join(betas if OAUTH_BETA in betas else [*betas, OAUTH_BETA])
    elif key is not None and api == "anthropic":
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
