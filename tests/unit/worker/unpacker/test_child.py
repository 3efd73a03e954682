"""What the unpacking child is: small, and started without the rest of Tatin."""

from __future__ import annotations

import subprocess
import sys


def test_the_child_imports_the_standard_library_and_itself_only() -> None:
    code = "import sys, worker.unpacker.__main__; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name for name in done.stdout.split() if name.split(".")[0] in ("worker", "tatin_jobs", "pydantic")}
    assert {name for name in modules if not name.startswith("worker.unpacker")} == {"worker"}
    assert "asyncio" not in done.stdout.split()
