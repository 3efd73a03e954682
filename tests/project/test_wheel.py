"""What is installed from a wheel is whole: templates, images, Lua and shell files come along and are found."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.tree import ROOT, files

DATA = ("provision", "packer")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [made] = folder.glob("*.whl")
    return made


def test_a_wheel_has_every_file_of_the_packages_and_the_data(wheel: Path) -> None:
    wanted = {name for name in files() if name.startswith(("tatin_jobs/", "worker/"))}
    wanted |= {f"tatin_jobs/_data/{name}" for name in files() if name.startswith(tuple(f"{one}/" for one in DATA))}
    assert {Path(name).suffix for name in wanted} >= {".py", ".lua", ".sh", ".toml", ".j2"}
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    assert wanted - there == set()
    assert {name.split("/")[0] for name in there if ".dist-info" not in name} == {"tatin_jobs", "worker"}


def test_an_installed_tatin_finds_its_own_data(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from tatin_jobs import data, tools; print(data.provision_folder(), data.packer_folder(), *tools.TOOLS)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    folders = [str(tmp_path / "tatin_jobs/_data" / name) for name in DATA]
    assert done.stdout.split() == [*folders, "claude", "opencode", "crush", "pi"]


def test_a_wheel_has_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [entry_points] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "tatin = tatin_jobs.cli:main" in archive.read(entry_points).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
