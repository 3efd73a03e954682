"""OpenAI Responses: ``POST /v1/responses``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tatin_jobs.demo.dialects.asked import Asked, Dialect, arguments_of, content_text, event, pieces
from tatin_jobs.demo.faults import ErrorAnswer
from tatin_jobs.demo.scripts import Turn


class Responses(Dialect):
    path: ClassVar[str] = "/v1/responses"

    def read(self, body: Mapping[str, Any]) -> Asked:
        given = body["input"]
        items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        outputs = [item.get("output") for item in items if item.get("type") == "function_call_output"]
        return Asked(
            model=str(body["model"]),
            results=[content_text(output) for output in outputs],
            tools={
                tool["name"]: frozenset((tool.get("parameters") or {}).get("properties") or ())
                for tool in body.get("tools") or ()
                if tool.get("type") == "function"
            },
            stream=bool(body.get("stream")),
            with_usage=True,
            size_bytes=len(json.dumps(body)),
        )

    def events(self, asked: Asked, turn: Turn, *, length: bool) -> list[bytes]:
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": _response(asked, [], "in_progress", None)}
        ]
        items = _items(asked, turn)
        for index, item in enumerate(items):
            events += _item_events(index, item)
        status = "incomplete" if length else "completed"
        events.append({"type": f"response.{status}", "response": _response(asked, items, status, asked.usage(turn))})
        return [event({**item, "sequence_number": number}) for number, item in enumerate(events)]

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        return _response(asked, _items(asked, turn), "completed", asked.usage(turn))

    def error(self, answer: ErrorAnswer) -> dict[str, Any]:
        return {"error": {"message": answer.message, "type": answer.code, "code": answer.code, "param": None}}

    def error_event(self, answer: ErrorAnswer) -> bytes:
        return event({"type": "error", "code": answer.code, "message": answer.message, "param": None})


def _response(asked: Asked, items: list[dict[str, Any]], status: str, usage: tuple[int, int] | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": f"resp_{len(asked.results) + 1}",
        "object": "response",
        "created_at": 0,
        "model": asked.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": items,
        "usage": None,
    }
    if usage:
        made["usage"] = {
            "input_tokens": usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        }
    return made


def _items(asked: Asked, turn: Turn) -> list[dict[str, Any]]:
    number = len(asked.results) + 1
    items: list[dict[str, Any]] = []
    if turn.reasoning:
        summary = [{"type": "summary_text", "text": turn.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary})
    if turn.text:
        content = [{"type": "output_text", "text": turn.text, "annotations": []}]
        items.append(
            {"type": "message", "id": f"out_{number}", "role": "assistant", "status": "completed", "content": content}
        )
    if turn.call:
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": asked.call_id, "name": turn.call.tool}
        items.append({**call, "arguments": arguments_of(turn), "status": "completed"})
    return items


def _item_events(index: int, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {"output_index": index, "item_id": item["id"]}
    match item["type"]:
        case "reasoning":
            text = item["summary"][0]["text"]
            start: dict[str, Any] = {**item, "summary": []}
            part: dict[str, Any] = {"type": "summary_text", "text": ""}
            kind = "response.reasoning_summary"
            where = {**where, "summary_index": 0}
            inner = [
                {"type": f"{kind}_part.added", **where, "part": part},
                *({"type": f"{kind}_text.delta", **where, "delta": piece} for piece in pieces(text)),
                {"type": f"{kind}_text.done", **where, "text": text},
                {"type": f"{kind}_part.done", **where, "part": {**part, "text": text}},
            ]
        case "message":
            text, start = item["content"][0]["text"], {**item, "content": [], "status": "in_progress"}
            where = {**where, "content_index": 0}
            part = {"type": "output_text", "text": "", "annotations": []}
            inner = [
                {"type": "response.content_part.added", **where, "part": part},
                *({"type": "response.output_text.delta", **where, "delta": piece} for piece in pieces(text)),
                {"type": "response.output_text.done", **where, "text": text},
                {"type": "response.content_part.done", **where, "part": {**part, "text": text}},
            ]
        case _:
            text, start = item["arguments"], {**item, "arguments": "", "status": "in_progress"}
            kind = "response.function_call_arguments"
            inner = [
                *({"type": f"{kind}.delta", **where, "delta": piece} for piece in pieces(text)),
                {"type": f"{kind}.done", **where, "arguments": text},
            ]
    return [
        {"type": "response.output_item.added", "output_index": index, "item": start},
        *inner,
        {"type": "response.output_item.done", "output_index": index, "item": dict(item)},
    ]
