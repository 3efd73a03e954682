"""Where secrets come from, and what is said when one cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tatin_jobs import secret_sources
from tatin_jobs.errors import BadInput
from tatin_jobs.secret_sources import SecretSource, take_from_environment
from tatin_jobs.settings import load_settings

SECRET = "hunter2hunter2"


def private(path: Path, data: bytes = SECRET.encode() + b"\n") -> Path:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def test_each_source_gives_the_secret_without_white_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", f" {SECRET}\n")
    file = private(tmp_path / "secret")
    for source in (
        SecretSource(env="SOME_SECRET"),
        SecretSource(file=file),
        SecretSource(command=["cat", str(file)]),
    ):
        assert source.read("The secret") == SECRET
        assert SECRET not in f"{source} {source!r}"


def test_keychain_is_asked_by_the_name_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real `security` is part of macOS; here a stand-in that takes what it takes."""
    program = tmp_path / "security"
    program.write_text(f'#!/bin/sh\n[ "$*" = "find-generic-password -s tatin key -w" ] && echo {SECRET}\n')
    program.chmod(0o755)
    monkeypatch.setattr(secret_sources, "KEYCHAIN_PROGRAM", str(program))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert SecretSource(keychain="tatin key").read("The secret") == SECRET
    with pytest.raises(BadInput, match="exited with 1"):
        SecretSource(keychain="another").read("The secret")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BadInput, match="part of macOS"):
        SecretSource(keychain="tatin key").read("The secret")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "cannot be started"),
        (["sh", "-c", "echo locked >&2; exit 3"], "exited with 3"),
        (["true"], "is empty"),
        (["printf", r"\377\376"], "is not UTF-8"),
        (["printf", r"a\000b"], "holds a NUL"),
        (["sh", "-c", "head -c 70000 /dev/zero | tr '\\0' x"], "more than 65536 bytes"),
    ],
)
def test_a_command_that_gives_none_is_one_clear_error(command: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        SecretSource(command=command).read("The secret")


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "COMMAND_SECONDS", 0.2)
    with pytest.raises(BadInput, match=r"took longer than 0\.2 s") as caught:
        SecretSource(command=["sh", "-c", f"echo {SECRET}; exec sleep 60"]).read("The secret")
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "secret")
    file.chmod(mode)
    with pytest.raises(BadInput, match="read by others"):
        SecretSource(file=file).read("The secret")
    with pytest.raises(BadInput, match="is no file"):
        SecretSource(file=Path("/dev/null")).read("The secret")


def test_a72_what_is_taken_out_of_the_environment_is_found_and_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A72: no program that the worker starts has the key in its environment."""
    monkeypatch.setattr(secret_sources, "_taken", {})
    monkeypatch.setenv("SOME_SECRET", SECRET)
    take_from_environment(["SOME_SECRET", "NOT_SET"])
    assert "SOME_SECRET" not in os.environ
    assert SECRET not in subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert SecretSource(env="SOME_SECRET").read("The secret") == SECRET
    with pytest.raises(BadInput, match="NOT_SET"):
        SecretSource(env="NOT_SET").read("The secret")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[secrets.A]", "write one of"),
        ("[secrets.A]\nenv = 'A'\nfile = 'a'", "write one of"),
        ("[secrets.A]\ncommand = []", "secrets.A.command"),
        ("[secrets.A]\nvalue = 'x'", "secrets.A"),
        ("[models.x]\nbase_url = 'http://h'\nkey_env = 'A'\nkey_file = 'a'", "at most one of"),
        ("[models.x]\nbase_url = 'http://h'\nkey_env = 'A'\nsubscription = true", "a subscription has"),
        ("[models.x]\nbase_url = 'http://h'\napi = 'anthropic'\nsubscription = true", "a subscription has"),
    ],
)
def test_settings_that_name_no_one_source_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "tatin.toml").write_text(text)
    with pytest.raises(BadInput, match=words):
        load_settings({"TATIN_HOME": str(tmp_path)})
