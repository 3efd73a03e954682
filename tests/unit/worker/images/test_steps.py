"""A step dies with its build, also with one that died while the step was begun."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from worker.images import steps

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is Linux's")


@pytest.mark.parametrize(("parent", "begun"), [("ours", True), ("gone", False)])
def test_a_step_whose_build_is_gone_is_not_begun(tmp_path: Path, parent: str, begun: bool) -> None:
    pid = os.getpid() if parent == "ours" else os.getppid()
    subprocess.run([*steps._TIED, str(pid), "touch", str(tmp_path / "begun")], check=False, timeout=60)
    assert (tmp_path / "begun").exists() == begun
