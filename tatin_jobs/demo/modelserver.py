"""A model server that follows a script: OpenAI Chat Completions and Responses, Anthropic Messages (each with streaming,
tool calls and thought), and ``/v1/models``.

It thinks nothing and knows nothing, but it speaks to a real agent over real HTTP, so that the demo and the tests need
no account. The script is the one given at the start, or the one that the asked-for model is named after
(``tatin_jobs.demo.scripts``); a model called ``fail-...`` fails in that way (``tatin_jobs.demo.faults``).

    python -m tatin_jobs.demo.modelserver --port 0 --script demo      prints its address, runs until it is stopped
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tatin_jobs.demo.dialects import DIALECTS, Asked, Dialect
from tatin_jobs.demo.dialects.asked import BYTES_PER_TOKEN
from tatin_jobs.demo.faults import ERRORS, Break, ErrorAnswer, fault_for
from tatin_jobs.demo.scripts import SCRIPTS, Turn, turn_for

MAX_REQUEST_BYTES = 64 * 2**20
PACE_SECONDS = 0.04
"""Between two pieces of an answer when the pace is on: about the speed of a good local model."""
SLOW_SECONDS = 0.5


@dataclass(frozen=True)
class SeenRequest:
    """A request as it came, for tests."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class ModelServer:
    """Serves on 127.0.0.1 while its context is open.

    Args:
        script: what models say whose name is not that of a script.
        port: 0 for any free one; ``base_url`` tells which.
        pace_seconds: the pause between two pieces of an answer.
        key: the only key that is let in (401 for others); None lets everyone in.
    """

    def __init__(
        self, script: tuple[Turn, ...], *, port: int = 0, pace_seconds: float = 0, key: str | None = None
    ) -> None:
        self._script = script
        self._port = port
        self._pace_seconds = pace_seconds
        self._key = key
        self._calls: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self.requests: list[SeenRequest] = []

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/v1/models", self._list_models)
        for path in DIALECTS:
            app.router.add_post(path, self._complete)
        app.router.add_post("/v1/messages/count_tokens", self._count)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>``, without a path."""
        return f"http://127.0.0.1:{self._port}"

    async def _list_models(self, request: web.Request) -> web.Response:
        self._note(request, {})
        if refusal := self._refusal(request):
            return refusal
        models = [{"id": name, "object": "model", "owned_by": "tatin"} for name in SCRIPTS]
        return web.json_response({"object": "list", "data": models})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        dialect = DIALECTS[request.path]
        try:
            body = json.loads(await request.read())
            asked = dialect.read(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error(dialect, ErrorAnswer(400, "invalid_request_error", "The body is no request of this API."))
        self._note(request, body)
        if refusal := self._refusal(request):
            return refusal
        fault = fault_for(asked.model, self._calls[asked.model])
        self._calls[asked.model] += 1
        match fault:
            case ErrorAnswer():
                return _error(dialect, fault)
            case Break.HANG:
                await asyncio.Event().wait()
            case Break.HTML:
                return web.Response(text="<html><body>Please log in.</body></html>", content_type="text/html")
            case Break.EMPTY:
                return web.Response(status=200, content_type="text/event-stream")
        turn = self._turn(asked, fault)
        if asked.stream:
            return await self._stream(request, dialect, asked, turn, fault)
        return web.json_response(dialect.whole(asked, turn))

    async def _count(self, request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response({"input_tokens": len(body) // BYTES_PER_TOKEN})

    def _turn(self, asked: Asked, fault: Break | ErrorAnswer | None) -> Turn:
        if fault is Break.NO_TEXT:
            return Turn()
        if not asked.tools:
            return Turn("A short title")  # agents ask for one aside, without offering tools
        turn = turn_for(SCRIPTS.get(asked.model, self._script), asked.results)
        return replace(turn, call=turn.call.fitted(asked.tools)) if turn.call else turn

    async def _stream(
        self, request: web.Request, dialect: Dialect, asked: Asked, turn: Turn, fault: Break | ErrorAnswer | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        if fault is Break.SILENT:
            await asyncio.Event().wait()
        if fault is Break.BAD_JSON:
            await response.write(b"data: {this is no JSON\n\n" + dialect.end)
            return response
        pause = SLOW_SECONDS if fault is Break.SLOW else self._pace_seconds
        events = dialect.events(asked, turn, length=fault is Break.LENGTH)
        for number, event in enumerate(events):
            if number == len(events) // 2 and fault in (Break.CUT, Break.UNFINISHED, Break.ERROR):
                if fault is Break.CUT and request.transport:
                    request.transport.abort()
                if fault is Break.ERROR:
                    await response.write(dialect.error_event(ERRORS["529"]))
                return response
            await response.write(event)
            await asyncio.sleep(pause)
        await response.write(dialect.end)
        return response

    def _note(self, request: web.Request, body: Mapping[str, Any]) -> None:
        self.requests.append(SeenRequest(request.method, request.raw_path, dict(request.headers), body))

    def _refusal(self, request: web.Request) -> web.Response | None:
        given = (request.headers.get("Authorization", "").removeprefix("Bearer "), request.headers.get("X-Api-Key"))
        if self._key is None or self._key in given:
            return None
        dialect = DIALECTS.get(request.path) or DIALECTS["/v1/chat/completions"]
        return _error(dialect, ErrorAnswer(401, "invalid_api_key", "Incorrect API key provided."))


def _error(dialect: Dialect, answer: ErrorAnswer) -> web.Response:
    headers = dict(answer.headers)
    if answer.resets_in_seconds is not None:
        headers["anthropic-ratelimit-unified-reset"] = str(int(time.time()) + answer.resets_in_seconds)
    return web.json_response(dialect.error(answer), status=answer.status, headers=headers)


async def serve(script: tuple[Turn, ...], *, port: int, pace_seconds: float) -> None:
    """Serve until SIGINT or SIGTERM; prints the address when it is ready."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with ModelServer(script, port=port, pace_seconds=pace_seconds) as server:
        print(server.base_url, flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A model server that follows a script.")
    parser.add_argument("--port", type=int, default=0, help="0 for any free port (default)")
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="demo")
    parser.add_argument("--pace", type=float, default=0, help=f"seconds between two pieces; {PACE_SECONDS} looks real")
    options = parser.parse_args()
    asyncio.run(serve(SCRIPTS[options.script], port=options.port, pace_seconds=options.pace))


if __name__ == "__main__":
    main()
