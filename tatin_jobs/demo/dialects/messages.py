"""Anthropic Messages: ``POST /v1/messages``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tatin_jobs.demo.dialects.asked import Asked, Dialect, content_text, event, pieces
from tatin_jobs.demo.faults import ErrorAnswer
from tatin_jobs.demo.scripts import Turn

ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Messages(Dialect):
    path: ClassVar[str] = "/v1/messages"

    def read(self, body: Mapping[str, Any]) -> Asked:
        parts = [
            part
            for message in list(body["messages"])
            if isinstance(message["content"], list)
            for part in message["content"]
        ]
        return Asked(
            model=str(body["model"]),
            results=[content_text(part.get("content")) for part in parts if part.get("type") == "tool_result"],
            tools={
                tool["name"]: frozenset((tool.get("input_schema") or {}).get("properties") or ())
                for tool in body.get("tools") or ()
            },
            stream=bool(body.get("stream")),
            with_usage=True,
            size_bytes=len(json.dumps(body)),
        )

    def events(self, asked: Asked, turn: Turn, *, length: bool) -> list[bytes]:
        given, said = asked.usage(turn)
        events: list[dict[str, Any]] = [{"type": "message_start", "message": _message(asked, [], None, given, 1)}]
        for index, block in enumerate(_blocks(asked, turn)):
            events += _block_events(index, block)
        reason = "max_tokens" if length else _reason(turn)
        events.append(
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": None},
                "usage": {"output_tokens": said},
            }
        )
        events.append({"type": "message_stop"})
        return [event(item) for item in events]

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        return _message(asked, _blocks(asked, turn), _reason(turn), *asked.usage(turn))

    def error(self, answer: ErrorAnswer) -> dict[str, Any]:
        kind = ERROR_TYPES.get(answer.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": answer.message}, "request_id": "req_scripted"}


def _message(asked: Asked, content: list[dict[str, Any]], reason: str | None, given: int, said: int) -> dict[str, Any]:
    return {
        "id": f"msg_{len(asked.results) + 1}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": given,
            "output_tokens": said,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _blocks(asked: Asked, turn: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if turn.reasoning:
        blocks.append({"type": "thinking", "thinking": turn.reasoning, "signature": "c2NyaXB0ZWQ="})
    if turn.text:
        blocks.append({"type": "text", "text": turn.text})
    if turn.call:
        use = {"type": "tool_use", "id": f"toolu_{asked.call_id}", "name": turn.call.tool}
        blocks.append({**use, "input": dict(turn.call.arguments)})
    return blocks


def _block_events(index: int, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    match block["type"]:
        case "thinking":
            start: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            start = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case _:
            start = {**block, "input": {}}
            written = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(written)]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _reason(turn: Turn) -> str:
    return "tool_use" if turn.call else "end_turn"
