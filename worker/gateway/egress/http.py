"""The guest's side of a connection as HTTP/1.1, read and written with h11."""

from __future__ import annotations

import asyncio

import h11

from worker.gateway.egress.limits import EgressLimits

PIECE = 64 * 2**10


class GuestHttp:
    """Requests in, answers out. What it raises: h11.RemoteProtocolError for what is no HTTP, OSError for a guest that
    is gone, TimeoutError for one that is silent in the middle of a request's head."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: EgressLimits) -> None:
        self.reader = reader
        self.writer = writer
        self._limits = limits
        self._method = b""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)

    async def next_request(self) -> h11.Request | None:
        """The head of the next request; None when the guest has no more."""
        async with asyncio.timeout(self._limits.head_seconds):
            event = await self._next_event()
        if isinstance(event, h11.Request):
            lengths = {name for name, _ in event.headers} & {b"content-length", b"transfer-encoding"}
            if len(lengths) == 2:
                raise h11.RemoteProtocolError("two lengths")  # servers differ in which counts: smuggling (A74)
            self._method = event.method
            return event
        return None

    async def next_piece(self) -> bytes | None:
        """The next bytes of the request's body; None at its end."""
        if self._http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        event = await self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def send(self, event: h11.Event) -> None:
        """Write a piece of an answer, waiting for room."""
        if data := self._http.send(event):
            self.writer.write(data)
            await self.writer.drain()

    async def refuse(self, status: int, phrase: str, text: str) -> None:
        """An answer of our own, and the end of the connection. Nothing when an answer has begun."""
        if self._http.our_state not in (h11.SEND_RESPONSE, h11.IDLE):
            return
        body = f"{text}\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        await self.send(h11.Response(status_code=status, reason=phrase, headers=headers))
        if self._method != b"HEAD":
            await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def switch_to_tunnel(self) -> bytes:
        """Tell the guest that its tunnel stands; what it has sent into it already."""
        await self._next_event()  # the end of its request, which has no body
        await self.send(h11.Response(status_code=200, reason="Connection established", headers=[]))
        return self._http.trailing_data[0]

    def next_cycle(self) -> bool:
        """Whether another request may follow on this connection."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next_event(self) -> h11.Event | type[h11.PAUSED] | type[h11.NEED_DATA]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.reader.read(PIECE))
        return event
