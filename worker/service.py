"""The worker as a service of this user: a systemd unit on Linux, a launchd agent on a Mac.

Keys are not written into it: they come from ``tatin.toml``, which names files or commands. An address of Redis may hold
a password, so it is taken from there too.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.settings import Settings

UNIT = "tatin-worker.service"
LABEL = "dev.tatin.worker"
STOP_MARGIN_SECONDS = 180
"""What a worker may take after its drain: to hand back what runs and destroy the sandboxes."""
COMMAND_SECONDS = 60
Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Service:
    """One file, and the commands that make it count or end it."""

    path: Path
    text: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    look: str
    """How a person sees what it does."""


def service(settings: Settings, flags: Sequence[str], platform: str = sys.platform) -> Service:
    """What would be installed on this kind of host. ``flags``: of ``tatin worker``.

    Raises:
        PartMissing: there is no such thing here.
    """
    argv = [sys.executable, "-m", "tatin_jobs.cli", "worker", *flags]
    if platform == "darwin":
        return _launchd(settings, argv)
    if platform == "linux":
        return _systemd(settings, argv)
    raise PartMissing(f"A worker cannot be installed as a service on '{platform}'.", try_="tatin worker, in tmux")


def install(wanted: Service, settings: Settings, run: Run | None = None) -> None:
    """Write it and start it; one that is there is replaced.

    Raises:
        BadInput: the address of Redis came from the environment, which a service does not have.
        PartMissing: the service manager does not take it; nothing is left behind.
    """
    if settings.source("redis_url") == "TATIN_REDIS_URL":
        raise BadInput(
            "A service does not see TATIN_REDIS_URL of this shell.",
            try_=f"put `redis_url` into '{settings.home / 'tatin.toml'}' (chmod 600), and unset TATIN_REDIS_URL.",
        )
    run = run or _run
    was_there = wanted.path.exists()
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    draft = wanted.path.with_name(f".{wanted.path.name}")
    draft.write_bytes(wanted.text)
    draft.replace(wanted.path)
    try:
        if was_there:
            _quietly(run, wanted.stop)
        for command in wanted.start:
            run(command)
    except PartMissing:
        wanted.path.unlink(missing_ok=True)
        raise


def uninstall(wanted: Service, run: Run | None = None) -> bool:
    """Drain it and remove it; whether there was one."""
    was_there = wanted.path.exists()
    if was_there:
        _quietly(run or _run, wanted.stop)
        wanted.path.unlink(missing_ok=True)
    return was_there


def _systemd(settings: Settings, argv: Sequence[str]) -> Service:
    """``KillMode=process``: only the worker is told to stop. It ends its sandboxes itself, and machines that outlive a
    worker which crashed are adopted by the next."""
    is_root = os.geteuid() == 0
    folder = Path("/etc/systemd/system") if is_root else Path.home() / ".config/systemd/user"
    call = ("systemctl",) if is_root else ("systemctl", "--user")
    text = f"""[Unit]
Description=Tatin worker
After=network-online.target

[Service]
ExecStart={" ".join(map(_unit_word, argv))}
Environment={_unit_word(f"TATIN_HOME={settings.home}")}
Restart=on-failure
RestartSec=10
KillMode=process
TimeoutStopSec={int(settings.drain_seconds) + STOP_MARGIN_SECONDS}

[Install]
WantedBy={"multi-user.target" if is_root else "default.target"}
"""
    return Service(
        folder / UNIT,
        text.encode(),
        start=((*call, "daemon-reload"), (*call, "enable", "--now", UNIT)),
        stop=((*call, "disable", "--now", UNIT),),
        look=f"{' '.join(call)} status {UNIT}",
    )


def _unit_word(text: str) -> str:
    """One word of a unit file; systemd fills in `%` and `$` otherwise."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _launchd(settings: Settings, argv: Sequence[str]) -> Service:
    """An agent of the user who is logged in, not a daemon: Tart's machines and the keychain are this user's."""
    path = Path.home() / "Library/LaunchAgents" / f"{LABEL}.plist"
    log = str(settings.home / "launchd.log")
    body = {
        "Label": LABEL,
        "ProgramArguments": list(argv),
        "EnvironmentVariables": {"TATIN_HOME": str(settings.home), "PATH": os.environ.get("PATH", os.defpath)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": int(settings.drain_seconds) + STOP_MARGIN_SECONDS,
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    domain = f"gui/{os.getuid()}"
    return Service(
        path,
        plistlib.dumps(body),
        start=(("launchctl", "bootstrap", domain, str(path)),),
        stop=(("launchctl", "bootout", f"{domain}/{LABEL}"),),
        look=f"launchctl print {domain}/{LABEL}; tail -f {log}",
    )


def _run(argv: Sequence[str]) -> None:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartMissing(f"The service manager of this host does not answer: '{argv[0]}'.", seen=str(error)) from error
    if done.returncode:
        seen = done.stderr.decode(errors="replace").strip()[-300:]
        raise PartMissing(f"`{' '.join(argv)}` failed.", seen=seen, try_="tatin worker, in tmux")


def _quietly(run: Run, commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        try:
            run(command)
        except PartMissing:
            continue  # it was not running
