"""Command line and errors: behaviours 1 to 6."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.tart import Tart


def test_the_version_is_a_bare_number(tart: Tart) -> None:
    """1"""
    done = tart("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--no-such-option"],
        ["clone", "base"],
        ["set", "base", "--cpu", "many"],
        ["nonsense"],
        ["list", "--source", "x"],
        ["clone", "base", "a/b"],
    ],
)
def test_bad_arguments_are_told_with_a_usage_line(tart: Tart, arguments: list[str]) -> None:
    """1"""
    done = tart(*arguments)
    assert (done.returncode, done.stdout) == (64, "")
    first, usage, hint = done.stderr.splitlines()[:3]
    assert first.startswith("Error: ")
    assert usage.startswith("Usage: tart")
    assert re.fullmatch(r"  See 'tart.* --help' for more information\.", hint)


@pytest.mark.parametrize(
    "command", ["clone NAME b", "set NAME --cpu 2", "get NAME", "ip NAME", "stop NAME", "delete NAME"]
)
def test_an_unknown_vm_is_2_without_a_prefix(tart: Tart, command: str) -> None:
    """2"""
    done = tart(*command.replace("NAME", "gone").split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'the specified VM "gone" does not exist\n'


def test_what_is_not_running_is_2(tart: Tart) -> None:
    """2"""
    for command in (["stop", "base"], ["exec", "base", "true"]):
        done = tart(*command)
        assert (done.returncode, done.stderr) == (2, 'VM "base" is not running\n')


def test_a_vm_that_lacks_a_file_is_1(tart: Tart) -> None:
    """2"""
    (tart.home / "vms" / "base" / "nvram.bin").unlink()
    done = tart("get", "base")
    assert done.returncode == 1
    assert done.stderr.startswith("VM is missing ")


def test_run_of_an_unknown_vm_is_1_with_a_prefix(tart: Tart) -> None:
    """3"""
    done = tart("run", "gone", "--no-graphics")
    assert (done.returncode, done.stderr) == (1, 'Error: the specified VM "gone" does not exist\n')


def test_rename_failures_are_64(tart: Tart) -> None:
    """3"""
    tart.good("clone", "base", "b")
    missing, taken = tart("rename", "gone", "c"), tart("rename", "base", "b")
    assert missing.returncode == taken.returncode == 64
    assert "failed to rename a non-existent local VM: gone" in missing.stderr
    assert "failed to rename VM base, target VM b already exists, delete it first!" in taken.stderr


def test_suspend_of_a_stopped_vm_is_wrapped_twice(tart: Tart) -> None:
    """4"""
    done = tart("suspend", "base")
    assert (done.returncode, done.stderr) == (2, 'VM "VM "base" is not running" is not running\n')


def test_a_failed_garbage_collection_fails_nothing(dials: Tart) -> None:
    """5"""
    dials.dial(gc_fails=True)
    done = dials("list", "-q")
    assert (done.returncode, done.stdout) == (0, "base\n")
    assert done.stderr.startswith("Failed to perform garbage collection: ")


def test_the_home_is_made_and_laid_out_as_documented(tart: Tart) -> None:
    """6"""
    assert {file.name for file in (tart.home / "vms" / "base").iterdir()} >= {"config.json", "disk.img", "nvram.bin"}
    config = tart.config("base")
    keys = "version os arch cpuCountMin cpuCount memorySizeMin memorySize macAddress display"
    assert config.keys() >= set(keys.split())
    assert config["memorySize"] == 4 * 2**30


def test_a_home_that_cannot_be_made_is_told(tart: Tart, tmp_path: Path) -> None:
    """6"""
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [tart.program, "list"],
        env={**tart.environ, "TART_HOME": str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("TART_HOME is invalid: ")
