"""What a host needs for bwrap, each with the command that mends it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from worker.sandboxes.base import Finding
from worker.sandboxes.bwrap.limits import method

_TRY = ("--unshare-all", "--ro-bind", "/", "/", "--", "/bin/true")


def check() -> Sequence[Finding]:
    """Findings for ``doctor``; starts one short process."""
    if platform.system() != "Linux":
        return [Finding("bwrap", False, f"{platform.system()} has no bubblewrap", "run the jobs on a Linux host")]
    return [
        _bwrap(),
        _program("git in the guest", "/usr/bin/git", "git"),
        _program("bash in the guest", "/bin/bash", "bash"),
        _kernel(),
        _memory(),
    ]


def _bwrap() -> Finding:
    program = shutil.which("bwrap")
    if program is None:
        return Finding("bwrap", False, "not found", "sudo apt-get install bubblewrap")
    try:
        done = subprocess.run([program, *_TRY], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("bwrap", False, str(error), "sudo apt-get install --reinstall bubblewrap")
    if done.returncode:
        seen = done.stderr.decode(errors="replace").strip()[-200:]
        fix = "allow user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
        return Finding("bwrap", False, seen, fix)
    version = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)
    return Finding("bwrap", True, version.stdout.decode(errors="replace").strip())


def _kernel() -> Finding:
    """Entering all namespaces of a process at once came with Linux 5.8."""
    release = platform.release()
    ok = tuple(int(number) for number in re.findall(r"\d+", release)[:2]) >= (5, 8)
    return Finding("kernel", ok, f"Linux {release}", "" if ok else "upgrade to a kernel of 5.8 or newer")


def _program(name: str, path: str, package: str) -> Finding:
    if Path(path).exists():
        return Finding(name, True, path)
    return Finding(name, False, f"{path} is missing", f"sudo apt-get install {package}")


def _memory() -> Finding:
    text = {
        "cgroup2": "by a cgroup (v2)",
        "cgroup1": "by a cgroup (v1)",
        "watcher": "by a watcher, twice a second: no cgroup can be made here",
    }
    return Finding("memory limit", True, text[method()])
