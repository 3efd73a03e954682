"""A plain http:// request, carried to its host on a connection of its own and answered piece by piece.

Both sides are framed anew by h11 from what was understood, so nothing that only one reader would see crosses (A74).
Redirects are the guest's to follow: its next request is looked at like the first.
"""

from __future__ import annotations

import asyncio

import h11

from worker.gateway.egress.evidence import Destination, Evidence
from worker.gateway.egress.http import PIECE, GuestHttp
from worker.gateway.egress.limits import EgressLimits
from worker.gateway.egress.target import Headers, Target
from worker.gateway.egress.tunnel import Silence

_OURS = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer upgrade"
    b" transfer-encoding expect host http2-settings".split()
)
"""Headers of one hop. ``Host`` and the framing are written anew."""
_BAD_ANSWER = "Tatin: the host's answer is no HTTP, or broke off."


async def forward(
    guest: GuestHttp,
    request: h11.Request,
    target: Target,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    evidence: Evidence,
    limits: EgressLimits,
) -> None:
    """Send the request over this connection and its answer to the guest.

    Raises:
        UsedUp, OSError, TimeoutError: as a tunnel; h11.RemoteProtocolError: the guest's body is none.
    """
    exchange = _Exchange(guest, reader, writer, evidence, evidence.destination(str(target)), limits)
    async with exchange.silence:
        await exchange.run(_request(request, target), request)


class _Exchange:
    def __init__(
        self,
        guest: GuestHttp,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        evidence: Evidence,
        destination: Destination,
        limits: EgressLimits,
    ) -> None:
        self.silence = Silence(limits.silence_seconds)
        self._guest = guest
        self._reader = reader
        self._writer = writer
        self._evidence = evidence
        self._destination = destination
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.header_bytes)

    async def run(self, head: h11.Request, asked: h11.Request) -> None:
        """The answer decides when it is over: a host may answer before it has read all of the request."""
        body = asyncio.create_task(self._send(head))
        answer = asyncio.create_task(self._answer())
        try:
            await asyncio.wait({body, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and (body.exception() is None or isinstance(body.exception(), ConnectionError)):
                await asyncio.wait({answer})
            if not answer.done():
                await body
            await answer
        finally:
            for task in (body, answer):
                task.cancel()
            await asyncio.gather(body, answer, return_exceptions=True)

    async def _send(self, head: h11.Request) -> None:
        await self._to_host(head)
        while (piece := await self._guest.next_piece()) is not None:
            self._moved(sent=len(piece))
            await self._to_host(h11.Data(data=piece))
        await self._to_host(h11.EndOfMessage())

    async def _to_host(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)
            await self._writer.drain()

    async def _answer(self) -> None:
        try:
            head = await self._next(h11.Response)
            assert isinstance(head, h11.Response)
        except (h11.RemoteProtocolError, ConnectionError, EOFError):
            await self._guest.refuse(502, "Bad Gateway", _BAD_ANSWER)
            return
        await self._guest.send(_response(head))
        try:
            while isinstance(event := await self._next(h11.Data, h11.EndOfMessage), h11.Data):
                self._moved(received=len(event.data))
                await self._guest.send(h11.Data(data=bytes(event.data)))
        except (h11.RemoteProtocolError, EOFError):
            self._guest.writer.transport.abort()  # its head has gone out: the guest is told by a broken connection
            return
        await self._guest.send(h11.EndOfMessage())

    async def _next(self, *kinds: type[h11.Event]) -> h11.Event:
        """The next event of one of these kinds; what comes between (100 Continue) is dropped."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(PIECE)
                self.silence.broken()
                self._http.receive_data(data)
            elif isinstance(event, kinds):
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise EOFError

    def _moved(self, *, sent: int = 0, received: int = 0) -> None:
        self.silence.broken()
        self._evidence.moved(self._destination, sent=sent, received=received)


def _request(request: h11.Request, target: Target) -> h11.Request:
    host = str(target).removesuffix(":80")
    headers = [(b"host", host.encode()), *_passed(request.headers), (b"connection", b"close")]
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers.append((b"transfer-encoding", b"chunked"))
    return h11.Request(method=request.method, target=target.path.encode(), headers=headers)


def _response(answer: h11.Response) -> h11.Response:
    return h11.Response(status_code=answer.status_code, reason=answer.reason, headers=_passed(answer.headers))


def _passed(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Without those of the hop, among them what ``Connection`` names."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named |= {part.strip().lower() for part in value.split(b",")} - {b"content-length"}
    return [(name, value) for name, value in headers if name not in _OURS and name not in named]
