"""The package registry that this machine's own pip is set up to use, and what a worker here must trust to reach it.

No address is written down anywhere: pip is asked, and the system looks the name up. Behind an inspecting proxy the name
is at an address that is not public, and a further authority signs; then the worker's settings say so, and these are
they.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import ssl
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from tatin_jobs.settings import GatewaySettings
from worker.addresses import is_public
from worker.toollists import guest

_SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Registry:
    """``addresses``: where this machine finds it. ``certificate``: the authorities that this machine trusts."""

    addresses: tuple[str, ...]
    certificate: Path | None

    @property
    def is_public(self) -> bool:
        return all(is_public(text) for text in self.addresses)

    @property
    def settings(self) -> GatewaySettings:
        """What a worker of this machine has under [gateway]."""
        trusted = [ipaddress.ip_network(text) for text in self.addresses if not is_public(text)]
        return GatewaySettings.model_validate({"trusted_networks": trusted, "ca_certificate": self.certificate})


@cache
def registry() -> Registry:
    """Raises OSError or CalledProcessError when there is none."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    asked = subprocess.run([_SYSTEM_PYTHON, guest.__file__, "pip"], capture_output=True, check=True, env=environ)
    addresses = json.loads(asked.stdout)["pip"]["addresses"]
    host = next(name for text in addresses if (name := urlsplit(text).hostname))
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    with socket.create_connection((host, 443), timeout=10):
        pass
    return Registry(tuple(dict.fromkeys(str(item[4][0]) for item in found)), _certificate())


def _certificate() -> Path | None:
    usual = ssl.get_default_verify_paths()
    named = [os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    return next((Path(text) for text in (*named, usual.cafile) if text and Path(text).exists()), None)


def why_none() -> str | None:
    """None when a guest of this machine can install packages, else what is missing."""
    if subprocess.run([_SYSTEM_PYTHON, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        return "the system's Python cannot make virtual environments (sudo apt-get install python3-venv)"
    try:
        registry()
    except (OSError, ValueError, StopIteration, subprocess.CalledProcessError) as error:
        return f"no registry is reached: {error}"
    return None
