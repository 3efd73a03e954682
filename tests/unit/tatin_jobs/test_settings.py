"""Settings: where each value comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput
from tatin_jobs.settings import load_settings


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "tatin.toml").write_text("slots = 1\ncpus = 1\nlease_seconds = 30\n")
    environ = {"TATIN_HOME": str(tmp_path), "TATIN_SLOTS": "2", "TATIN_CPUS": "3", "TATIN_DISK": "5"}
    found = load_settings(environ, {"slots": 3, "memory_mib": None})
    assert (found.slots, found.cpus, found.lease_seconds, found.default_cpus) == (3, 1, 30, 3)
    assert found.default_disk_mib == 5000
    assert [found.source(name) for name in ("slots", "cpus", "default_disk_mib", "tags")] == [
        *("flag", str(tmp_path / "tatin.toml"), "TATIN_DISK", "default")
    ]


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("slot = 1", {}, "slot"),
        ("slots = 0", {}, "slots"),
        ("sources = 1", {}, "sources"),
        ("slots =", {}, "cannot be read"),
        ("[models.x]\nbase_url = 'http://h'\napi = 'other'", {}, "models.x.api"),
        ("[gateway]\ntrusted_networks = ['10.0.0.1/8']", {}, "gateway.trusted_networks"),
        ("[gateway]\ntrusted = []", {}, "gateway.trusted"),
        ("[agents.clod]\nversion = '1'", {}, "no agent tool 'clod'"),
        ("[agents.claude]\nversion = '../x'", {}, "agents.claude.version"),
        ("", {"TATIN_SLOTS": "many"}, "TATIN_SLOTS"),
        ("", {"TATIN_DISK": "20GB"}, "whole number of GB"),
        ("", {"TATIN_WORKER_NAME": "a:*"}, "TATIN_WORKER_NAME"),
        ("", {"TATIN_WORKER_NAME": "a\n"}, "TATIN_WORKER_NAME"),
    ],
)
def test_what_is_wrong_is_named_with_its_source(tmp_path: Path, text: str, environ: dict[str, str], words: str) -> None:
    (tmp_path / "tatin.toml").write_text(text)
    with pytest.raises(BadInput, match=words):
        load_settings({"TATIN_HOME": str(tmp_path), **environ})


def test_a_setting_that_does_not_exist_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "tatin.toml").write_text("nonsense = 1\n")
    with pytest.raises(BadInput, match="there is none of that name") as caught:
        load_settings({"TATIN_HOME": str(tmp_path)})
    assert str(tmp_path / "tatin.toml") in caught.value.what
