"""Renders prompt templates in a process of its own, which takes limits upon itself first (A36).

Run as a program, in isolated mode, by ``templates``. stdin: JSON, ``{"templates": [text], "items": [[index, values]],
"cpu_seconds", "memory_bytes", "most_bytes", "most_bytes_in_all"}``. stdout: for each item a line of JSON, ``{"text"}``
or ``{"error"}``, as soon as it is done. When a limit is met the lines end.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    _limit(asked["cpu_seconds"], asked["memory_bytes"])
    left = asked["most_bytes_in_all"]  # whoever asked keeps all of it in memory
    for index, values in asked["items"]:
        line = json.dumps(_rendered(asked["templates"][index], values, asked["most_bytes"]))
        left -= len(line)
        if left < 0:
            break
        print(line, flush=True)


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    import jinja2.sandbox  # noqa: F401  while files may still be read

    limits = [(resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)]
    for kind, most in [*limits, (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_AS, memory_bytes)]:
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of the address space
            resource.setrlimit(kind, (most, most))


def _rendered(template: str, values: dict[str, Any], most_bytes: int) -> dict[str, str]:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # a prompt is no page
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        text = environment.from_string(template).render(values)
        if len(text) > most_bytes or len(text.encode()) > most_bytes:
            return {"error": "makes a prompt that is too long"}
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"is no template: line {error.lineno}: {error.message}"}
    except MemoryError:
        return {"error": "takes too much memory"}
    except Exception as error:
        return {"error": f"cannot be rendered: {error or type(error).__name__}"}
    return {"text": text} if text.strip() else {"error": "makes an empty prompt"}


if __name__ == "__main__":
    main()
