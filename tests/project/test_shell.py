"""Rules about the shell scripts: they run under the bash 3.2 of macOS, and shellcheck finds nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.project.tree import ROOT, files

RUN = [name for name in files() if name.startswith(("scripts/", ".ci/"))]
SCRIPTS = [*RUN, *(name for name in files() if name.endswith(".sh") and name not in RUN)]
NEWER_THAN_BASH_3_2 = {
    "associative array": r"\b(?:declare|local|typeset) -[a-z]*[An]\b",
    "mapfile": r"\b(?:mapfile|readarray|coproc)\b",
    "case change": r"\$\{\w+(?:,,?|\^\^?)",
    "transformation": r"\$\{\w+@[A-Z]",
    "&>>": r"&>>",
    "|&": r"\|&",
    "negative offset": r"\$\{\w+:\s*-\d+\}",
    "[[ -v ]]": r"\[\[? -v ",
    "globstar": r"\bshopt -s globstar\b",
    "wait -n": r"\bwait -n\b",
    "printf time": r"%\(.*\)T",
    "EPOCH": r"\bEPOCH(?:SECONDS|REALTIME)\b",
    "fraction of a second in read": r"\bread\b[^\n|;]* -t 0?\.\d",
}


@pytest.mark.parametrize("name", RUN)
def test_a_script_needs_nothing_newer_than_bash_3_2(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [what for what, pattern in NEWER_THAN_BASH_3_2.items() if re.search(pattern, text)] == []


@pytest.mark.parametrize(
    "line",
    [
        *("declare -A seen", "local -n ref=x", "mapfile -t rows", "echo ${name,,}", "make &>> log", "make |& tee log"),
        *("[[ -v x ]]", "wait -n", "read -t 0.5 x", "printf '%(%s)T'", "echo ${x@Q}"),
    ],
)
def test_each_newer_form_is_found(line: str) -> None:
    assert any(re.search(pattern, line) for pattern in NEWER_THAN_BASH_3_2.values())


@pytest.mark.parametrize("name", RUN)
def test_a_script_can_be_run_and_begins_with_what_it_does(name: str) -> None:
    first, second = (ROOT / name).read_text().splitlines()[:2]
    assert second.startswith("# ")
    if name == "scripts/common.sh":
        return
    assert first == "#!/usr/bin/env bash"
    assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", RUN)
def test_an_array_that_may_be_empty_is_never_expanded_bare(name: str) -> None:
    """``"${a[@]}"`` of an empty array is an unbound variable to bash before 4.4: each is looked at before."""
    text = (ROOT / name).read_text()
    for array in set(re.findall(r'"\$\{(\w+)\[@\]\}"', text)):
        assert f'"${{#{array}[@]}}" -gt 0' in text, array


@pytest.mark.needs("shellcheck")
def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck")
    assert program
    done = subprocess.run([program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
