"""The worker as a service of this user: a systemd unit on Linux, a launchd agent on a Mac.

Keys are not written into it: they come from ``tatin.toml``, which names files or commands. An address of Redis may hold
a password, so it is taken from there too.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.settings import ENVIRONMENT, Settings
from worker.reach import SERVICE_VARIABLE

UNIT = "tatin-worker.service"
LABEL = "dev.tatin.worker"
STOP_MARGIN_SECONDS = 180
"""What a worker may take after its drain: to hand back what runs and destroy the sandboxes."""
COMMAND_SECONDS = 60.0
LOOK_SECONDS = 0.5
OPEN_FILES = 8192
"""launchd gives 256, which some ten attempts use up."""
Run = Callable[[Sequence[str], float], None]
"""Runs a command of the service manager for so many seconds at most. Raises PartMissing: it failed, or took longer."""


@dataclass(frozen=True)
class Service:
    """One file, and the commands that make it count or end it."""

    path: Path
    text: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    stop_seconds: float
    """How long it may take to end: its drain, and what comes after."""
    look: str
    """How a person sees what it does."""
    left: tuple[str, ...]
    """Succeeds where it is there though its file is gone; it may have ended by then."""
    loaded: tuple[str, ...] = ()
    """Succeeds as long as the one before is not wholly gone, which must be waited for before ``start``; empty where
    ``start`` sees to that itself."""
    after: tuple[tuple[str, ...], ...] = ()
    """When the file is gone."""
    hint: str = ""
    """What else a person should know of it."""
    tells_reach: bool = False
    """It notes whether it reaches its guests (``worker.reach``)."""


def service(
    settings: Settings,
    flags: Sequence[str],
    platform: str = sys.platform,
    environ: Mapping[str, str] = os.environ,
) -> Service:
    """What would be installed on this kind of host. ``flags``: of ``tatin worker``; ``environ``: of this shell, whose
    settings the service gets too.

    Raises:
        PartMissing: there is no such thing here.
    """
    argv = [sys.executable, "-m", "tatin_jobs.cli", "worker", *flags]
    if platform == "darwin":
        return _launchd(settings, argv, environ)
    if platform == "linux":
        return _systemd(settings, argv, environ)
    raise PartMissing(f"A worker cannot be installed as a service on '{platform}'.", try_="tatin worker, in tmux")


def install(wanted: Service, settings: Settings, run: Run | None = None) -> None:
    """Write it and start it; one that is there is replaced when what it runs has ended.

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
    _write(wanted)
    try:
        if wanted.loaded:  # also where somebody has removed its file
            _end(wanted, run)
        for command in wanted.start:
            run(command, COMMAND_SECONDS)
    except PartMissing:
        wanted.path.unlink(missing_ok=True)
        raise


def uninstall(wanted: Service, run: Run | None = None) -> bool:
    """Drain it, wait for its end and remove it; whether there was one.

    Raises:
        PartMissing: it does not end; it is still there.
    """
    run = run or _run
    if not wanted.path.exists() and not _succeeds(wanted.left, run, wanted.stop_seconds):
        return False
    _end(wanted, run)
    wanted.path.unlink(missing_ok=True)
    _quietly(run, wanted.after, COMMAND_SECONDS)
    return True


def _write(wanted: Service) -> None:
    """Whole or not at all, and for nobody else to write: launchd takes no other."""
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    draft = wanted.path.with_name(f".{wanted.path.name}")
    draft.write_bytes(wanted.text)
    draft.chmod(0o644)
    draft.replace(wanted.path)


def _end(wanted: Service, run: Run) -> None:
    """Stop it and wait until it is gone: launchd answers at once, and takes no other of that name for as long as the
    old one drains."""
    deadline = time.monotonic() + wanted.stop_seconds
    _quietly(run, wanted.stop, wanted.stop_seconds)
    while wanted.loaded and _succeeds(wanted.loaded, run, COMMAND_SECONDS):
        if time.monotonic() > deadline:
            raise PartMissing(
                f"The service that is there has not ended after {wanted.stop_seconds:g} s.", try_=wanted.look
            )
        time.sleep(LOOK_SECONDS)


def _succeeds(command: Sequence[str], run: Run, seconds: float) -> bool:
    try:
        run(command, seconds)
    except PartMissing:
        return False
    return True


def _environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What the service is given of this shell: what Tatin reads, but for an address that may hold a password."""
    told = {name: environ[name] for name, field in ENVIRONMENT.items() if settings.source(field) == name}
    told.pop("TATIN_REDIS_URL", None)
    if "TART_HOME" in environ:
        told["TART_HOME"] = environ["TART_HOME"]
    return {"TATIN_HOME": str(settings.home), "PATH": environ.get("PATH", os.defpath), **told}


def _systemd(settings: Settings, argv: Sequence[str], environ: Mapping[str, str]) -> Service:
    """``KillMode=process``: only the worker is told to stop. It ends its sandboxes itself, and machines that outlive a
    worker which crashed are adopted by the next. ``OOMPolicy``: systemd would end the worker too when the kernel
    kills one of its machines. ``restart`` replaces one that runs, and nobody waits for its drain.

    ``disable --now`` stops none whose file is gone, and ``is-active`` sees none that drains or waits to be started
    again; ``stop`` fails where there is none."""
    is_root = os.geteuid() == 0
    folder = Path("/etc/systemd/system") if is_root else Path.home() / ".config/systemd/user"
    call = ("systemctl",) if is_root else ("systemctl", "--user")
    network = "Wants=network-online.target\nAfter=network-online.target\n" if is_root else ""
    given = _environment(settings, environ)
    lines = "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in given.items())
    stop_seconds = settings.drain_seconds + STOP_MARGIN_SECONDS
    text = f"""[Unit]
Description=Tatin worker
{network}
[Service]
ExecStart={" ".join(_quoted(word).replace("$", "$$") for word in argv)}
{lines}
Restart=on-failure
RestartSec=10
KillMode=process
OOMPolicy=continue
TimeoutStopSec={int(stop_seconds)}

[Install]
WantedBy={"multi-user.target" if is_root else "default.target"}
"""
    return Service(
        folder / UNIT,
        text.encode(),
        start=((*call, "daemon-reload"), (*call, "enable", UNIT), (*call, "restart", "--no-block", UNIT)),
        stop=((*call, "disable", UNIT), (*call, "stop", UNIT)),
        stop_seconds=stop_seconds,
        after=((*call, "daemon-reload"),),
        look=f"{' '.join(call)} status {UNIT}",
        left=(*call, "stop", UNIT),
        hint="" if is_root else "it ends when you log out, unless you say: loginctl enable-linger",
    )


def _quoted(text: str) -> str:
    """One word of a unit file. systemd fills in `%` everywhere, and `$` in commands only."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _launchd(settings: Settings, argv: Sequence[str], environ: Mapping[str, str]) -> Service:
    """An agent of the user who is logged in, not a daemon: Tart's machines and the keychain are this user's."""
    path = Path.home() / "Library/LaunchAgents" / f"{LABEL}.plist"
    log = str(settings.home / "launchd.log")
    stop_seconds = settings.drain_seconds + STOP_MARGIN_SECONDS
    body = {
        "Label": LABEL,
        "ProgramArguments": list(argv),
        "EnvironmentVariables": {**_environment(settings, environ), SERVICE_VARIABLE: "launchd"},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": int(stop_seconds),
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    domain = f"gui/{os.getuid()}"
    target = f"{domain}/{LABEL}"
    return Service(
        path,
        plistlib.dumps(body),
        start=(("launchctl", "enable", target), ("launchctl", "bootstrap", domain, str(path))),
        stop=(("launchctl", "bootout", target),),
        stop_seconds=stop_seconds,
        loaded=("launchctl", "print", target),
        left=("launchctl", "print", target),
        tells_reach=True,
        look=f"launchctl print {target}; tail -f {log}",
    )


def _run(argv: Sequence[str], seconds: float) -> None:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartMissing(f"The service manager of this host does not answer: '{argv[0]}'.", seen=str(error)) from error
    if done.returncode:
        seen = done.stderr.decode(errors="replace").strip()[-300:]
        raise PartMissing(f"`{' '.join(argv)}` failed.", seen=seen, try_="tatin worker, in tmux")


def _quietly(run: Run, commands: Sequence[Sequence[str]], seconds: float) -> None:
    for command in commands:
        try:
            run(command, seconds)
        except PartMissing:
            continue  # it was not running
