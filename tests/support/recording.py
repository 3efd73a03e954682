"""Records what a real agent CLI prints against the scripted model server, for ``tests/recordings/<tool>``.

    python -m tests.support.recording claude                      every case of tests/recordings/claude/cases.toml
    python -m tests.support.recording claude well-done no-text    these

Runs as the tests do, in bwrap and through the model route, so what it writes is what Tatin would read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from tests.support.agents import Ran, agent_bench

RECORDINGS = Path(__file__).parents[1] / "recordings"


async def record(tool: str, name: str, case: dict[str, Any]) -> Ran:
    """Run one case and write its files."""
    api = case.pop("api", "openai")
    case.pop("what", None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with agent_bench(tool, Path(folder), api) as bench:
            ran = await bench.run(case.pop("model", f"fail-{name}"), **{**case, "args": tuple(case.pop("args", ()))})
    place = RECORDINGS / tool / f"{name}.jsonl"
    place.write_bytes(ran.output)
    stderr = place.with_suffix(".stderr")
    stderr.unlink(missing_ok=True)
    if ran.stderr.strip():
        stderr.write_bytes(ran.stderr)
    return ran


async def main(tool: str, names: list[str]) -> None:
    cases = tomllib.loads((RECORDINGS / tool / "cases.toml").read_text())
    for name in names or list(cases):
        ran = await record(tool, name, dict(cases[name]))
        verdict = ran.verdict or ran.usage.blame(stalled=True)
        print(json.dumps({"case": name, "exit": ran.followed.exit_status, "seconds": round(ran.followed.seconds, 1)}))
        print(f"    {verdict}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    asyncio.run(main(options.tool, options.cases))
