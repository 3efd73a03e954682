"""What the tools say of where they go, read into lists. Their programs are stand-ins here, which print what the real
ones were seen to print (npm 11, apt 2.6) or are documented to (go 1.21); pip is the real one in
tests/integration/test_guest_network.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.toollists import guest
from worker.toollists.ask import _answers, _host_of_repository, _tool_list

NPM = {
    "registry": "https://packages.example/npm/",
    "@team:registry": "https://team.example:8443/",
    "//packages.example/npm/:username": "x",
    "https-proxy": None,
}
GO = {"GOPROXY": "https://proxy.example,https://other.example|direct", "GOSUMDB": "sum.example"}
APT = """\
'http://deb.example/debian/dists/stable/InRelease' deb.example_debian_dists_stable_InRelease 0
'http://deb.example/debian/dists/stable-updates/InRelease' deb.example_debian_dists_stable-updates_InRelease 0
'https://security.example/debian-security/dists/x/InRelease' security.example_debian-security_dists_x_InRelease 0
'file:/srv/packages/InRelease' srv_packages_InRelease 0
"""


def ask(tmp_path: Path, tool: str, programs: dict[str, str]) -> Any:
    """What the guest's program says with these programs, each a shell script's text, and no others."""
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    command = [sys.executable, "-I", guest.__file__, tool]
    env = {"PATH": f"{tmp_path}:/bin", "HOME": str(tmp_path)} if programs else {"PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, check=True, env=env)
    return _tool_list(_answers(done.stdout).get(tool), "nothing was said")


@pytest.mark.parametrize(
    ("tool", "program", "prints", "hosts"),
    [
        ("npm", "npm", json.dumps(NPM), ["packages.example:443", "team.example:8443"]),
        ("go", "go", json.dumps(GO), ["proxy.example:443", "other.example:443", "sum.example:443"]),
        ("go", "go", '{"GOPROXY": "off", "GOSUMDB": "off"}', []),
        (
            "go",
            "go",
            '{"GOPROXY": "http://p.example", "GOSUMDB": "n+h+k https://s.example"}',
            ["p.example:80", "s.example:443"],
        ),
        ("apt", "apt-get", APT, ["deb.example:80", "security.example:443"]),
    ],
)
def test_a_tool_says_where_it_goes(tmp_path: Path, tool: str, program: str, prints: str, hosts: list[str]) -> None:
    found = ask(tmp_path, tool, {program: f"cat <<'-- END'\n{prints}\n-- END"})
    assert [str(target) for target in found.targets] == hosts
    assert bool(found.seen) is not bool(hosts)


@pytest.mark.parametrize("tool", ["npm", "go", "apt", "cargo"])
def test_a_tool_that_is_not_there_has_an_empty_list_that_says_so(tmp_path: Path, tool: str) -> None:
    found = ask(tmp_path, tool, {})
    assert found.targets == ()
    assert "there is no" in found.seen


@pytest.mark.parametrize("script", ["exit 1", "echo rubbish", "echo '[]'", "echo '{}'"])
def test_a_tool_that_says_rubbish_has_an_empty_list(tmp_path: Path, script: str) -> None:
    found = ask(tmp_path, "go", {"go": script})
    assert found.targets == ()
    assert found.seen


def test_cargo_tells_where_crates_are_once_it_has_read_its_index(tmp_path: Path) -> None:
    """A stand-in for cargo writes what the real one (1.95) keeps of its index's settings."""
    folder = '"$HOME/.cargo/registry/index/index.example-1"'
    settings = '{"dl": "https://crates.example/dl", "api": "https://api.example"}'
    found = ask(tmp_path, "cargo", {"cargo": f"mkdir -p {folder}; echo '{settings}' > {folder}/config.json"})
    assert [str(target) for target in found.targets] == ["crates.example:443", "api.example:443"]


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://git.example/a/b.git", ["git.example:443"]),
        ("https://git.example:8443/a", ["git.example:8443"]),
        ("http://git.example/a", ["git.example:80"]),
        ("git@git.example:a/b.git", ["git.example:443"]),
        ("ssh://git@git.example:2222/a", ["git.example:443"]),
        (None, []),
        ("ext::sh -c x", []),
    ],
)
def test_git_is_the_host_of_the_repository(url: str | None, hosts: list[str]) -> None:
    found = _host_of_repository(url)
    assert [str(target) for target in found.targets] == hosts
    assert bool(found.seen) is not bool(hosts)


@given(st.binary(max_size=200))
def test_whatever_a_guest_prints_is_an_answer_or_none(data: bytes) -> None:
    answers = _answers(data)
    assert isinstance(answers, dict)
    for tool in answers:
        _tool_list(answers[tool], "seen")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=9))
def test_whatever_stands_for_addresses_becomes_a_list(addresses: Any) -> None:
    found = _tool_list({"addresses": addresses}, "seen")
    assert found.targets or found.seen


def test_the_program_for_the_guest_is_read_by_an_old_python() -> None:
    """3.9 is the oldest that a guest may have: no syntax of later ones."""
    import ast

    ast.parse(Path(guest.__file__).read_text(), feature_version=(3, 9))
    assert os.path.basename(guest.__file__) == "guest.py"
