"""The provider's side of a model route: its address, its key and the connections to it.

The key is read when the side opens, and again when it is refused, and is kept in memory only: it is in no log, no
error and no answer.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from tatin_jobs.errors import AttemptError, BadInput
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Reason
from worker.gateway import rules
from worker.gateway.limits import GatewayLimits
from worker.gateway.local_servers import start_command
from worker.gateway.providers import api_root
from worker.gateway.usage import CLOSED, TIMEOUT, UNREACHABLE, CallFailed
from worker.redaction import Redactor

RENEW_SECONDS = 30.0
"""How often a refused key is looked up anew."""

log = logging.getLogger(__name__)


class Upstream:
    """Calls to one provider, between ``open`` and ``close``.

    Raises:
        AttemptError: (when made) reason provider, the provider's address cannot be used.
    """

    def __init__(self, provider: ModelProvider, limits: GatewayLimits, redactor: Redactor) -> None:
        self._provider = provider
        self._limits = limits
        self._root = api_root(provider)
        self._redactor = redactor
        self._key: str | None = None
        self._read_at = 0.0
        self._renewing = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    @property
    def where(self) -> str:
        """Scheme, host and port, for people."""
        return str(self._root.origin())

    async def open(self) -> None:
        """Read the key; connections are made as they are needed.

        Raises:
            AttemptError: reason auth, the key cannot be had.
        """
        try:
            self._key = await self._read_key()
        except BadInput as error:
            raise AttemptError(error.what, seen=error.seen, try_=error.try_, reason=Reason.AUTH) from error
        self._session = aiohttp.ClientSession(
            trust_env=False,  # the host's proxy settings and ~/.netrc are not the job's
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0),  # the route's own `parallel_calls` is the limit
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_seconds, sock_read=self._limits.silence_seconds
            ),
        )

    async def close(self) -> None:
        """Forget the key and cut every connection. Safe to call twice."""
        session, self._session = self._session, None
        self._key = None
        if session:
            await session.close()

    async def call(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        """The provider's answer once its headers are there. Redirects are not followed.

        Raises:
            CallFailed: there is none: unreachable, too slow, or this side is closed.
        """
        key = self._key
        answer = await self._send(method, target, headers, body)
        if answer.status == 401 and await self._is_renewed(key):
            answer.close()
            answer = await self._send(method, target, headers, body)
        return answer

    async def _is_renewed(self, refused: str | None) -> bool:
        """Whether there is another key than the one that was refused: a token that ran out, renewed on the host by
        whoever keeps it. Only the host holds it, so no guest can race for it."""
        async with self._renewing:
            if self._key != refused or time.monotonic() - self._read_at < RENEW_SECONDS:
                return self._key != refused
            try:
                self._key = await self._read_key()
            except BadInput as error:
                log.warning("action=renew_key failed: %s", error.what)
            return self._key != refused

    async def _read_key(self) -> str | None:
        self._read_at = time.monotonic()
        key = await asyncio.to_thread(self._provider.key)
        if key is not None:
            self._redactor.add(key)
        return key

    async def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        if self._session is None:
            raise CallFailed(CLOSED, "The model route is closed: the attempt is over.", 503)
        options: dict[str, Any] = {"data": io.BytesIO(body)} if method == "POST" else {}
        try:
            return await self._session.request(
                method,
                URL(f"{self._root}{target}", encoded=True),
                headers=rules.request_headers(
                    headers, self._provider.api, self._key, subscription=self._provider.subscription
                ),
                allow_redirects=False,
                **options,
            )
        except TimeoutError as error:
            raise CallFailed(TIMEOUT, f"The model provider at {self.where} did not answer in time.", 504) from error
        except (aiohttp.ClientError, OSError) as error:
            message = f"The model provider at {self.where} cannot be reached: {self.clean(_why(error))}."
            if command := start_command(self._provider):
                message += f" Does it run? `{command}` starts it."
            raise CallFailed(UNREACHABLE, message) from error

    def clean(self, text: str) -> str:
        """``text`` without the key, which providers quote in their errors."""
        return self._redactor.text(text)


def _why(error: BaseException) -> str:
    """The system's own words, without addresses and objects around them."""
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # asyncio's text leaves out what it means
        return os.strerror(error.errno)
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
