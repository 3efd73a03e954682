"""A model server that follows a script: OpenAI Chat Completions with streaming and tool calls, and ``/v1/models``.

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
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tatin_jobs.demo.faults import Break, ErrorAnswer, fault_for
from tatin_jobs.demo.scripts import SCRIPTS, Turn, turn_for

MAX_REQUEST_BYTES = 64 * 2**20
PIECE_CHARACTERS = 12
BYTES_PER_TOKEN = 4
"""The usual estimate; the server reports usage from it, as a real one counts."""
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
        app.router.add_post("/v1/chat/completions", self._complete)
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
        try:
            body = json.loads(await request.read())
            messages, model = list(body["messages"]), str(body["model"])
        except (ValueError, KeyError, TypeError):
            return _error(ErrorAnswer(400, "invalid_request_error", "The body is no chat completion request."))
        self._note(request, body)
        if refusal := self._refusal(request):
            return refusal
        fault = fault_for(model, self._calls[model])
        self._calls[model] += 1
        match fault:
            case ErrorAnswer():
                return _error(fault)
            case Break.HANG:
                await asyncio.Event().wait()
            case Break.HTML:
                return web.Response(text="<html><body>Please log in.</body></html>", content_type="text/html")
            case Break.EMPTY:
                return web.Response(status=200, content_type="text/event-stream")
        answer = _Answer(body, model, self._turn(body, messages, model, fault))
        if body.get("stream"):
            return await self._stream(request, answer, fault)
        return web.json_response(answer.whole())

    def _turn(
        self, body: Mapping[str, Any], messages: list[Any], model: str, fault: Break | ErrorAnswer | None
    ) -> Turn:
        if fault is Break.NO_TEXT:
            return Turn()
        if not body.get("tools"):
            return Turn("A short title")  # agents ask for one aside, without offering tools
        return turn_for(SCRIPTS.get(model, self._script), _tool_results(messages))

    async def _stream(
        self, request: web.Request, answer: _Answer, fault: Break | ErrorAnswer | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        if fault is Break.SILENT:
            await asyncio.Event().wait()
        if fault is Break.BAD_JSON:
            await response.write(b"data: {this is no JSON\n\ndata: [DONE]\n\n")
            return response
        pause = SLOW_SECONDS if fault is Break.SLOW else self._pace_seconds
        chunks = answer.chunks("length" if fault is Break.LENGTH else None)
        for number, chunk in enumerate(chunks):
            if number == len(chunks) // 2 and fault in (Break.CUT, Break.UNFINISHED):
                if fault is Break.CUT and request.transport:
                    request.transport.abort()
                return response
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(pause)
        await response.write(b"data: [DONE]\n\n")
        return response

    def _note(self, request: web.Request, body: Mapping[str, Any]) -> None:
        self.requests.append(SeenRequest(request.method, request.raw_path, dict(request.headers), body))

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._key is None or request.headers.get("Authorization") == f"Bearer {self._key}":
            return None
        return _error(ErrorAnswer(401, "invalid_api_key", "Incorrect API key provided."))


class _Answer:
    """One turn in the words of the Chat Completions API."""

    def __init__(self, body: Mapping[str, Any], model: str, turn: Turn) -> None:
        self._turn = turn
        self._envelope = {"id": "chatcmpl-scripted", "created": 0, "model": model}
        self._with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._call_id = f"call_{len(_tool_results(list(body['messages']))) + 1}"
        self._arguments = json.dumps(dict(turn.call.arguments)) if turn.call else ""
        said = len(turn.text.encode()) + len(self._arguments)
        prompt, completion = len(json.dumps(body)) // BYTES_PER_TOKEN, max(1, said // BYTES_PER_TOKEN)
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    @property
    def _reason(self) -> str:
        return "tool_calls" if self._turn.call else "stop"

    def whole(self) -> dict[str, Any]:
        """The answer to a request without ``stream``."""
        message: dict[str, Any] = {"role": "assistant", "content": self._turn.text or None}
        if self._turn.call:
            message["tool_calls"] = [self._tool_call(self._turn.call.tool, self._arguments)]
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return {**self._envelope, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def chunks(self, reason: str | None) -> list[dict[str, Any]]:
        """The answer as the chunks of a stream; ``reason`` replaces the reason of its end."""
        text, call = self._turn.text, self._turn.call
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in _pieces(text)]
        if call:
            deltas.append({"tool_calls": [{"index": 0, **self._tool_call(call.tool, "")}]})
            deltas += [
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _pieces(self._arguments)
            ]
        chunks = [self._chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        chunks.append(self._chunk([{"index": 0, "delta": {}, "finish_reason": reason or self._reason}]))
        if self._with_usage:
            chunks.append({**self._chunk([]), "usage": self._usage})
        return chunks

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._envelope, "object": "chat.completion.chunk", "choices": choices}

    def _tool_call(self, tool: str, arguments: str) -> dict[str, Any]:
        return {"id": self._call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]


def _tool_results(messages: list[Any]) -> list[str]:
    """What the tools returned, oldest first."""
    results = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "tool":
            content = message.get("content")
            results.append(content if isinstance(content, str) else json.dumps(content))
    return results


def _error(answer: ErrorAnswer) -> web.Response:
    error = {"message": answer.message, "type": answer.code, "code": answer.code, "param": None}
    return web.json_response({"error": error}, status=answer.status, headers=answer.headers)


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
