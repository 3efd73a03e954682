#!/usr/bin/env python3
"""A stand-in for Crush, which cannot be had here: what its source says of ``crush run`` and ``crush session last``,
as far as Tatin's adapter relies on it. One tool, ``bash``; Chat Completions only, not streamed.

Runs in a guest: Python 3.9, standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BASH = {"type": "function", "function": {"name": "bash", "parameters": {"properties": {"command": {}}}}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="crush")
    parser.add_argument("-D", dest="data", default=".crush")
    parser.add_argument("-q", action="store_true")
    parser.add_argument("-m", dest="model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--version", action="version", version="crush version v0.96.1 (stand-in)")
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    store = Path(options.data, "stand-in.json")
    if options.words[:2] == ["session", "last"]:
        sys.stdout.write(store.read_text() + "\n")
        return 0
    prompt = sys.stdin.read()
    if not prompt.strip():
        return fail("no prompt provided")
    store.parent.mkdir(parents=True, exist_ok=True)
    config = json.loads((Path.home() / ".config/crush/crush.json").read_text())
    if not config.get("providers"):
        return fail("no providers configured - please run 'crush' to set up a provider interactively")
    provider, _, model = options.model.partition("/")
    return run(prompt, config["providers"][provider], model, store)


def run(prompt: str, provider: dict[str, str], model: str, store: Path) -> int:
    messages: list[Any] = [{"role": "user", "content": prompt}]
    shown: list[Any] = [{"role": "user", "parts": [{"type": "text", "text": prompt}]}]
    status = 0
    while True:
        try:
            choice = ask(provider, model, messages)["choices"][0]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read())["error"]["message"]
            shown.append({"role": "assistant", "parts": [{"type": "finish", "reason": "error"}]})
            status = fail(f"agent processing failed: {error.code} {error.reason}: {said}")
            break
        message = choice["message"]
        parts = [{"type": "text", "text": message["content"]}] if message.get("content") else []
        sys.stdout.write(message.get("content") or "")
        sys.stdout.flush()
        calls = message.get("tool_calls") or []
        for call in calls:
            function = call["function"]
            parts.append(
                {"type": "tool_call", "tool_call_id": call["id"], "name": "bash", "input": function["arguments"]}
            )
        reasons = {"length": "max_tokens", "tool_calls": "tool_use"}
        parts.append({"type": "finish", "reason": reasons.get(choice["finish_reason"], "end_turn")})
        shown.append({"role": "assistant", "model": model, "parts": parts})
        messages.append(message)
        if not calls:
            break
        for call in calls:
            done = subprocess.run(
                ["sh", "-c", json.loads(call["function"]["arguments"]).get("command", "true")],
                capture_output=True,
                text=True,
                check=False,
            )
            result = {"type": "tool_result", "tool_call_id": call["id"], "name": "bash", "content": done.stdout}
            shown.append({"role": "tool", "parts": [{**result, "is_error": done.returncode != 0}]})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": done.stdout})
    print()
    store.write_text(json.dumps({"meta": {"id": "1", "cost": 0}, "messages": shown}))
    return status


def ask(provider: dict[str, str], model: str, messages: list[Any]) -> Any:
    key = os.path.expandvars(provider["api_key"])
    request = urllib.request.Request(
        provider["base_url"] + "/chat/completions",
        data=json.dumps({"model": model, "messages": messages, "tools": [BASH]}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.loads(answer.read())


def fail(text: str) -> int:
    sys.stderr.write(f"\n  ERROR\n\n  {text}.\n\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
