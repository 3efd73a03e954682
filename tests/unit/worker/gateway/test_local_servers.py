"""Model servers of the worker's own host."""

from __future__ import annotations

import socket

import pytest

from tatin_jobs.settings import ModelProvider
from worker.gateway import PRESETS
from worker.gateway.local_servers import start_command, why_silent


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("http://127.0.0.1:11434", "ollama serve"),
        ("http://127.0.0.1:11434/v1", "ollama serve"),
        ("http://127.0.0.1:4000", None),
        ("https://models.example.com", None),
    ],
)
def test_what_starts_a_server(address: str, command: str | None) -> None:
    assert start_command(ModelProvider(base_url=address)) == command


def test_every_preset_of_this_host_has_its_command() -> None:
    assert all(start_command(preset) for preset in PRESETS.values() if "127.0.0.1" in preset.base_url)


def test_whether_a_server_runs_is_seen_on_this_host_only(unused_tcp_port: int) -> None:
    assert why_silent(ModelProvider(base_url=f"http://localhost:{unused_tcp_port}")) == "Connection refused"
    assert why_silent(ModelProvider(base_url=f"https://models.example.com:{unused_tcp_port}")) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert why_silent(ModelProvider(base_url=f"http://127.0.0.1:{server.getsockname()[1]}")) is None
