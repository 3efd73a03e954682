"""The scripts where they decide something: what is missing and who may install it, which tiers run, how the demo ends.

Each runs in a copy of the scripts with a PATH of stand-ins, so that nothing is installed and nothing is fetched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.wait import has_ended, until

ROOT = Path(__file__).parents[2]
TOOLS = [
    *("bash", "env", "dirname", "id", "sort", "tr", "mktemp", "cat", "cmp", "rm", "mkdir", "chmod", "ln", "ls", "head"),
    *("mkfifo", "sleep", "touch", "true", "find", "git", "bwrap", "shellcheck", "xargs"),
]
TIERS = "unit contract integration agents attacks acceptance simulation faults vms project".split()


class Copy:
    """A checkout with the scripts and nothing set up, on a machine that has only what is put on ``path``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tatin"
        self.path = root / "bin"
        self.home = root / "home"
        for folder in (self.root, self.path, self.home):
            folder.mkdir()
        for name in ("scripts", ".ci"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("requirements.lock", "requirements-dev.lock", "requirements-node.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        for name in ("packer", "tatin_jobs", "worker"):
            (self.root / name).mkdir()
        for name in TOOLS:
            if place := shutil.which(name):
                (self.path / name).symlink_to(place)
        self.program("bwrap", "exit 0")
        self.program("shellcheck", "exit 0")
        self.program("uname", "echo Linux")

    def program(self, name: str, script: str) -> None:
        path = self.path / name
        path.unlink(missing_ok=True)
        _script(path, script)

    def venv(self, script: str) -> None:
        """A Python in .venv that does what ``script`` says, with everything already installed into it."""
        (self.root / ".venv/bin").mkdir(parents=True)
        _script(self.root / ".venv/bin/python", script)
        stamp = [self.root / name for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml")]
        text = f"{self.root}\n" + "".join(path.read_text() for path in stamp)
        (self.root / ".venv/installed-from").write_text(text)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        script, *arguments = argv
        environ = {"PATH": str(self.path), "HOME": str(self.home), "PYTHON": "no-such-python", **env}
        return subprocess.run(
            [str(self.root / script), *arguments],
            env=environ,
            cwd=self.home,  # from anywhere
            capture_output=True,
            text=True,
            check=False,
        )


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


# setup


def test_without_a_python_setup_names_the_command_for_a_mac(copy: Copy) -> None:
    copy.program("uname", "echo Darwin")
    done = copy.run("scripts/setup")
    assert done.returncode == 3
    assert "brew install python@3.13" in done.stderr
    assert not (copy.root / ".venv").exists()


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_the_distributions_own_python_is_taken_first_but_not_a_macs(copy: Copy, system: str) -> None:
    copy.program("uname", f"echo {system}")
    copy.program("python3.14", 'case "$*" in *venv*) echo "another one is asked" >&2; exit 1;; esac')
    (copy.root / "requirements.lock").write_text("no such thing")  # that nothing is fetched
    done = copy.run("scripts/setup", PYTHON="")
    assert done.returncode == 1
    assert ("another one is asked" in done.stderr) is (system == "Darwin")
    if system == "Linux":
        assert (copy.root / ".venv/bin/python").resolve() == Path("/usr/bin/python3").resolve()


def test_without_rights_setup_names_the_one_apt_command(copy: Copy) -> None:
    (copy.path / "bwrap").unlink()
    copy.program("apt-get", "echo must not be called; exit 1")
    copy.program("id", "echo 1000")
    copy.program("sudo", "exit 1")
    done = copy.run("scripts/setup")
    assert done.returncode == 3
    assert "sudo apt-get install -y bubblewrap python3 python3-venv" in done.stderr


@pytest.mark.parametrize("user", [0, 1000])
def test_with_rights_setup_installs_what_is_missing_and_nothing_else(copy: Copy, user: int) -> None:
    (copy.path / "bwrap").unlink()
    copy.venv('case "$*" in *list) echo opencode 1 /there;; esac')
    copy.program("id", f"echo {user}")
    copy.program("sudo", 'echo "sudo $*" >> "$HOME/asked"; shift; exec "$@"')
    copy.program("apt-get", 'echo "apt-get $*" >> "$HOME/asked"')
    done = copy.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    asked = (copy.home / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("apt-get")] == [
        "apt-get install -y --no-install-recommends bubblewrap"
    ]
    assert any(line.startswith("sudo -n") for line in asked) is (user != 0)


def test_old_package_lists_are_fetched_anew(copy: Copy) -> None:
    (copy.path / "bwrap").unlink()
    copy.venv('case "$*" in *list) echo opencode 1 /there;; esac')
    copy.program("id", "echo 0")
    lists = '[ "$1" = update ] && touch "$HOME/fresh"; [ -e "$HOME/fresh" ]'
    copy.program("apt-get", f'echo "$1" >> "$HOME/asked"; {lists}')
    done = copy.run("scripts/setup")
    assert done.returncode == 0, done.stderr
    assert (copy.home / "asked").read_text().split() == ["install", "update", "install"]


def test_a_system_package_that_cannot_be_installed_stops_setup_with_its_output(copy: Copy) -> None:
    (copy.path / "bwrap").unlink()
    copy.program("id", "echo 0")
    copy.program("apt-get", "echo E: no space left >&2; exit 100")
    done = copy.run("scripts/setup")
    assert done.returncode == 1
    assert "E: no space left" in done.stderr


def test_a_host_without_a_sandbox_is_set_up_and_told_what_lacks(copy: Copy) -> None:
    (copy.path / "bwrap").unlink()
    copy.venv('case "$*" in *list) echo opencode 1 /there;; esac')
    done = copy.run("scripts/setup")  # no apt-get on this PATH
    assert done.returncode == 3
    assert "package manager" in done.stderr
    assert "bubblewrap" in done.stderr


def test_setup_of_what_is_set_up_installs_nothing(copy: Copy) -> None:
    copy.venv('echo "$*" >> "$HOME/asked"; case "$*" in *list) echo opencode 1 /there;; esac')
    done = copy.run("scripts/setup")
    assert (done.returncode, done.stderr) == (0, "")
    asked = (copy.home / "asked").read_text()
    assert "install" not in asked
    assert "-m tatin_jobs.tools list" in asked


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_is_installed_with_its_hashes(copy: Copy, changed: str) -> None:
    copy.venv('echo "$*" >> "$HOME/asked"; case "$*" in *list) echo opencode 1 /there;; esac')
    with (copy.root / changed).open("a") as file:
        file.write("\n# changed\n")
    assert copy.run("scripts/setup").returncode == 0
    asked = (copy.home / "asked").read_text()
    assert "--require-hashes -r requirements.lock" in asked
    assert "--no-deps --no-build-isolation -e ." in asked
    (copy.home / "asked").unlink()
    assert copy.run("scripts/setup").returncode == 0
    assert "pip" not in (copy.home / "asked").read_text()


def test_packages_that_fail_to_install_are_tried_again_next_time(copy: Copy) -> None:
    copy.venv('echo "$*" >> "$HOME/asked"; case "$*" in *" pip "*) exit 1;; *list) echo opencode 1 /there;; esac')
    (copy.root / "requirements.lock").write_text("changed")
    assert [copy.run("scripts/setup").returncode for _ in range(2)] == [1, 1]
    assert (copy.home / "asked").read_text().count("--require-hashes") == 2


@pytest.mark.parametrize("has_npm", [True, False])
def test_an_agent_cli_that_is_missing_is_installed_with_node_where_needed(copy: Copy, has_npm: bool) -> None:
    cases = f"*list) echo opencode 1 not installed;; *npm) exit {0 if has_npm else 3};;"
    copy.venv(f'echo "$*" >> "$HOME/asked"; case "$*" in {cases} esac')
    assert copy.run("scripts/setup").returncode == 0
    asked = (copy.home / "asked").read_text()
    assert ("-r requirements-node.lock" in asked) is not has_npm
    assert "-m tatin_jobs.tools install" in asked


def test_an_unknown_option_is_refused(copy: Copy) -> None:
    done = copy.run("scripts/setup", "--development")
    assert done.returncode == 2
    assert "--dev" in done.stderr


# test, check, CI

RECORD = (
    'case "$*" in *list) echo opencode 1 /there;; *pytest*|*ruff*|*mypy*) echo "CI=${CI:-} $*" >> "$HOME/asked";; esac'
)


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["scripts/test", "unit"], ["CI= -m pytest tests/unit"]),
        (["scripts/test", "unit", "attacks", "-k", "a b"], ["CI= -m pytest tests/unit tests/attacks -k a b"]),
        (["scripts/check", "-x"], ["CI= -m ruff", "CI= -m ruff", "CI= -m mypy", "CI= -m pytest tests/unit -x"]),
        ([".ci/run"], ["CI=1 -m ruff", "CI=1 -m ruff", "CI=1 -m mypy", "CI=1 -m pytest tests/unit tests/contract"]),
    ],
)
def test_the_tiers_that_are_named_run(copy: Copy, argv: list[str], asked: list[str]) -> None:
    copy.venv(RECORD)
    done = copy.run(*argv)
    assert done.returncode == 0, done.stderr
    lines = (copy.home / "asked").read_text().splitlines()
    assert len(lines) == len(asked)
    assert [line[: len(want)] for line, want in zip(lines, asked, strict=True)] == asked


def test_without_an_argument_every_tier_there_is_runs(copy: Copy) -> None:
    copy.venv(RECORD)
    copy.run("scripts/test")
    last = (copy.home / "asked").read_text().splitlines()[-1]
    assert last.endswith("pytest " + " ".join(f"tests/{tier}" for tier in TIERS))
    assert {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").exists()} == {
        *TIERS,
        "standins",
        "support",
    }


@pytest.mark.parametrize("fails", ["ruff", "mypy", "pytest"])
def test_one_check_that_fails_fails_all_and_the_others_still_run(copy: Copy, fails: str) -> None:
    copy.venv(f'{RECORD}; case "$*" in *{fails}*) exit 1;; esac')
    assert copy.run("scripts/test").returncode == 1
    asked = (copy.home / "asked").read_text()
    assert all(word in asked for word in ("ruff check", "mypy", "pytest"))


# demo

SERVER = """case "$*" in
*list) echo opencode 1 /there; echo crush 1 by hand, from there ;;
*modelserver*) echo $$ > "$HOME/server"; echo http://127.0.0.1:9; exec sleep 60 ;;
esac"""
RAN = 'echo "$TATIN_HOME $*" >> "$HOME/ran"'


def demo_venv(copy: Copy, tatin: str) -> None:
    copy.venv(SERVER)
    _script(copy.root / ".venv/bin/tatin", tatin)


def server_is_gone(copy: Copy) -> bool:
    return has_ended(int((copy.home / "server").read_text()))


def test_the_demo_runs_its_job_shows_the_patch_and_ends_its_model_server(copy: Copy) -> None:
    demo_venv(copy, f'{RAN}; case "$1" in run) mkdir -p "$TATIN_HOME/jobs/demo-1";; diff) echo the patch;; esac')
    done = copy.run("scripts/demo", "--set", "name=a b")
    home = copy.home / ".tatin/demo"
    assert done.returncode == 0, done.stderr
    assert (copy.home / "ran").read_text().splitlines() == [
        f"{home} run jobs/opencode-demo.yaml --set name=a b",
        f"{home} diff demo-1",
    ]
    assert "the patch" in done.stdout
    assert 'base_url = "http://127.0.0.1:9"' in (home / "tatin.toml").read_text()
    assert os.readlink(home / "tools") == "../tools"
    assert home.stat().st_mode & 0o077 == 0
    until(lambda: server_is_gone(copy), what="the end of the model server")


def test_the_demo_of_a_benchmark_ends_with_its_report(copy: Copy) -> None:
    folder = '"$TATIN_HOME/jobs/x/attempt-1"'
    result = f'mkdir -p {folder}; echo \'  "batch": "b-abc",\' > {folder}/result.json'
    demo_venv(copy, f'{RAN}; case "$1" in run) {result}; exit 1;; esac')
    done = copy.run("scripts/demo", "benchmark", "--set", "trials=1")
    home = copy.home / ".tatin/demo"
    command = "[{tool: command, command: sh jobs/baseline.sh}]"
    in_its_place = f"--set matrix.tool=[claude, opencode, pi, command] --set matrix.include={command}"
    assert "Crush is not here" in done.stdout
    assert done.returncode == 0, done.stderr  # a trial that failed is a figure
    assert (copy.home / "ran").read_text().splitlines() == [
        f"{home} run jobs/benchmark.yaml {in_its_place} --set trials=1",
        f"{home} report b-abc --html {home}/benchmark.html",
    ]
    until(lambda: server_is_gone(copy), what="the end of the model server")


def test_the_demo_ends_as_its_job_did(copy: Copy) -> None:
    demo_venv(copy, f'{RAN}; [ "$1" != run ] || exit 124')
    done = copy.run("scripts/demo", TATIN_HOME=str(copy.home / "elsewhere"))
    assert done.returncode == 124
    assert "The patch" not in done.stdout  # there is no new job
    assert (copy.home / "elsewhere/demo/tatin.toml").exists()
    until(lambda: server_is_gone(copy), what="the end of the model server")


def test_the_demo_that_is_interrupted_ends_its_model_server(copy: Copy) -> None:
    demo_venv(copy, 'touch "$HOME/running"; exec sleep 60')
    environ = {"PATH": str(copy.path), "HOME": str(copy.home)}
    process = subprocess.Popen(
        [copy.root / "scripts/demo"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        until((copy.home / "running").exists, what="the start of the job")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) != 0
        until(lambda: server_is_gone(copy), what="the end of the model server")
    finally:
        process.kill()
        process.wait()


def test_a_model_server_that_does_not_start_ends_the_demo(copy: Copy) -> None:
    copy.venv('case "$*" in *list) echo opencode 1 /there;; esac')
    done = copy.run("scripts/demo")
    assert done.returncode == 1
    assert "model server did not start" in done.stderr


def test_on_a_mac_without_tart_setup_and_demo_say_what_to_do(copy: Copy) -> None:
    copy.venv('case "$*" in *list) echo opencode 1 /there;; esac')
    copy.program("uname", "echo Darwin")
    setup, demo = copy.run("scripts/setup"), copy.run("scripts/demo")
    assert setup.returncode == 0
    assert "brew install openai/tools/tart" in setup.stdout
    assert demo.returncode == 3
    assert "brew install openai/tools/tart" in demo.stderr
