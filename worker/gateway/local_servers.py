"""Model servers on the worker's own host: whether they run, and what starts them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address

from yarl import URL

from tatin_jobs.settings import ModelProvider
from worker.gateway.providers import PRESETS, api_root, same_server

ASK_SECONDS = 2.0
_STARTED_BY: Mapping[str, str] = {
    "ollama": "ollama serve",
    "lmstudio": "lms server start",
    "vllm": "vllm serve MODEL",
    "mlx": "mlx_lm.server --model MODEL",
}
"""By the names of their presets."""


def start_command(provider: ModelProvider) -> str | None:
    """What starts this server; None when it is none that people run themselves, or not known."""
    names = (name for name in _STARTED_BY if same_server(PRESETS[name].base_url, provider.base_url))
    return next(map(_STARTED_BY.__getitem__, names), None)


def why_silent(provider: ModelProvider) -> str | None:
    """Why nothing answers at the address of a server on this host; None when something does, or it is elsewhere. Blocks
    for two seconds at most. Raises AttemptError: the address cannot be used."""
    root = api_root(provider)
    if not _is_loopback(root):
        return None
    try:
        with socket.create_connection((root.host or "", root.port or 80), ASK_SECONDS):
            return None
    except OSError as error:
        return os.strerror(error.errno) if error.errno else "it does not answer in time"


def _is_loopback(root: URL) -> bool:
    if root.host == "localhost":
        return True
    try:
        return ip_address(root.host or "").is_loopback
    except ValueError:
        return False
