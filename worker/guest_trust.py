"""Certificate authorities of the worker's settings, put beside those that a guest has of its own: for people whose
network looks into TLS. Programs find them by the variables that each of them reads."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from tatin_jobs.errors import SandboxError
from worker.sandboxes.base import GUEST_RUN, Sandbox

EXTRA_PATH = f"{GUEST_RUN}/trust/extra.pem"
BUNDLE_PATH = f"{GUEST_RUN}/trust/bundle.pem"
"""The settings' authorities, and these with the guest's own."""

_BUNDLES = (
    "SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CARGO_HTTP_CAINFO AWS_CA_BUNDLE"
    " NIX_SSL_CERT_FILE"
).split()
_EXTRAS = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
TRUST_VARIABLES: Mapping[str, str] = {**dict.fromkeys(_BUNDLES, BUNDLE_PATH), **dict.fromkeys(_EXTRAS, EXTRA_PATH)}
"""OpenSSL and Go read the first; requests, curl, pip, git and cargo their own; Node and Deno add to what they have."""

_SCRIPT = """
import os, ssl, sys
extra, bundle = sys.argv[1:]
os.makedirs(os.path.dirname(bundle), exist_ok=True)
given = sys.stdin.buffer.read()
usual = ssl.get_default_verify_paths()
places = (usual.cafile, usual.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
own = next((place for place in places if place and os.path.exists(place)), None)
with open(extra, "wb") as file:
    file.write(given)
with open(bundle, "wb") as file:
    file.write((open(own, "rb").read() + b"\\n" if own else b"") + given)
"""


def certificates_in(data: bytes) -> int:
    """How many certificates a PEM file holds.

    Raises:
        ValueError: none, or what is no PEM.
    """
    try:
        text = data.decode("ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ValueError("it holds no certificates in PEM form") from error
    return len(context.get_ca_certs())


async def put_trust(sandbox: Sandbox, certificates: bytes) -> None:
    """Write both files into the guest.

    Raises:
        SandboxError: they cannot be written there.
    """
    done = await sandbox.run(["python3", "-I", "-B", "-c", _SCRIPT, EXTRA_PATH, BUNDLE_PATH], stdin=certificates)
    if done.exit_status:
        seen = done.stderr.decode(errors="replace").strip()[-300:]
        raise SandboxError(f"The certificates cannot be put into sandbox '{sandbox.name}'.", seen=seen)
