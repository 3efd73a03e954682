"""OpenAI Chat Completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tatin_jobs.demo.dialects.asked import Asked, Dialect, arguments_of, content_text, event, pieces
from tatin_jobs.demo.faults import ErrorAnswer
from tatin_jobs.demo.scripts import Turn


class Chat(Dialect):
    path: ClassVar[str] = "/v1/chat/completions"
    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def read(self, body: Mapping[str, Any]) -> Asked:
        messages = [message for message in list(body["messages"]) if isinstance(message, dict)]
        offered = [tool["function"] for tool in body.get("tools") or ()]
        return Asked(
            model=str(body["model"]),
            results=[content_text(message.get("content")) for message in messages if message.get("role") == "tool"],
            tools={tool["name"]: _arguments(tool.get("parameters")) for tool in offered},
            stream=bool(body.get("stream")),
            with_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            size_bytes=len(json.dumps(body)),
        )

    def events(self, asked: Asked, turn: Turn, *, length: bool) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in pieces(turn.reasoning)]
        deltas += [{"content": piece} for piece in pieces(turn.text)]
        if turn.call:
            deltas.append({"tool_calls": [{"index": 0, **_tool_call(asked, turn.call.tool, "")}]})
            deltas += [
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces(arguments_of(turn))
            ]
        chunks = [_chunk(asked, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        reason = "length" if length else _reason(turn)
        chunks.append(_chunk(asked, [{"index": 0, "delta": {}, "finish_reason": reason}]))
        if asked.with_usage:
            chunks.append({**_chunk(asked, []), "usage": _usage(asked, turn)})
        return [event(chunk) for chunk in chunks]

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
        if turn.call:
            message["tool_calls"] = [_tool_call(asked, turn.call.tool, arguments_of(turn))]
        choice = {"index": 0, "message": message, "finish_reason": _reason(turn)}
        return {
            **_envelope(asked),
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(asked, turn),
        }

    def error(self, answer: ErrorAnswer) -> dict[str, Any]:
        return {"error": {"message": answer.message, "type": answer.code, "code": answer.code, "param": None}}


def _envelope(asked: Asked) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "created": 0, "model": asked.model}


def _chunk(asked: Asked, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {**_envelope(asked), "object": "chat.completion.chunk", "choices": choices}


def _tool_call(asked: Asked, tool: str, arguments: str) -> dict[str, Any]:
    return {"id": asked.call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}


def _reason(turn: Turn) -> str:
    return "tool_calls" if turn.call else "stop"


def _usage(asked: Asked, turn: Turn) -> dict[str, int]:
    given, said = asked.usage(turn)
    return {"prompt_tokens": given, "completion_tokens": said, "total_tokens": given + said}


def _arguments(schema: Any) -> frozenset[str]:
    return frozenset((schema or {}).get("properties") or ())
