"""What is made in a home's folders of sandboxes and results lies apart, where the file system can do that."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tatin_jobs.home import Home
from tatin_jobs.spread import spread


def _marked(folder: Path) -> bool | None:
    """What ``lsattr`` says; None where it can say nothing."""
    try:
        done = subprocess.run(["lsattr", "-d", str(folder)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return "T" in done.stdout.split()[0] if done.returncode == 0 else None


def _can_be_marked(folder: Path) -> bool:
    folder.mkdir()
    if _marked(folder) is None:
        return False
    return subprocess.run(["chattr", "+T", str(folder)], capture_output=True, check=False).returncode == 0


def test_sandboxes_and_results_lie_apart(tmp_path: Path) -> None:
    """ext4 can; the mark is then seen by its own tools."""
    can = _can_be_marked(tmp_path / "probe")
    home = Home(tmp_path / "home")
    home.prepare()
    home.prepare()
    assert bool(_marked(home.sandboxes)) == can
    assert bool(_marked(home.jobs)) == can
    assert not _marked(home.store)


def test_a_folder_that_cannot_be_marked_is_left_as_it_is(tmp_path: Path) -> None:
    spread(Path("/proc/self"))
    spread(tmp_path / "missing")
