"""What a night needs of this host, checked quickly and without changing anything: for ``tatin doctor``."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import tatin_jobs
from tatin_jobs.errors import PartMissing, TatinError
from tatin_jobs.home import Home
from tatin_jobs.settings import Settings
from tatin_jobs.tools import TOOLS, find_tool, install_command
from worker import awake
from worker.agents import ADAPTERS, adapter
from worker.capacity import free_disk_mib
from worker.gateway.local_servers import start_command, why_silent
from worker.gateway.prices import check_prices
from worker.gateway.providers import api_root
from worker.guest_trust import certificates_in
from worker.reach import read_reach, wait_for_reach
from worker.sandboxes import KINDS
from worker.sandboxes.base import Finding, SandboxProvider

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
OLDEST_GIT = (2, 30)
BEATS_IN_A_LEASE = 3
"""A lease that holds fewer beats is lost by one late beat and one lost reply."""
COMMAND_SECONDS = 10
_NO_HOME_ID = "00000000"
"""``check`` of a provider looks at the host, not at the sandboxes of a home."""


def checks(settings: Settings) -> list[Finding]:
    """One finding for each thing that was looked at, in the order in which to mend them; starts nothing that lasts."""
    home = Home(settings.home)
    return [
        _python(sys.version_info[:2]),
        *_sandbox(settings, home),
        *_reach(home),
        *_trust(settings),
        *_agent_tools(settings, home),
        *_own_agents(settings),
        _git(),
        _home(home),
        _disk(settings),
        _clock(datetime.now(UTC)),
        _sleep(awake.command()),
        _lease(settings),
        *_models(settings),
        *_secrets(settings),
        *_prices(settings),
        *_notify(settings),
    ]


def _python(version: tuple[int, ...]) -> Finding:
    text = ".".join(str(part) for part in version)
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return Finding("python", True, text)
    return Finding("python", False, text, "run scripts/setup with a Python from 3.11 to 3.14")


def _sandbox(settings: Settings, home: Home) -> list[Finding]:
    """``auto`` is content with one kind that works, so what the others lack is told only when none does."""
    if settings.sandbox != "auto" and settings.sandbox not in KINDS:
        return [
            Finding("sandbox", False, f"there is no kind '{settings.sandbox}'", f"one of: auto, {', '.join(KINDS)}")
        ]
    wrong: list[Finding] = []
    for kind, make in KINDS.items():
        if settings.sandbox in ("auto", kind):
            provider = make(home, _NO_HOME_ID)
            provider.configure(settings)
            found = list(provider.check())
            if all(finding.ok for finding in found):
                return [*found, _egress(provider)]
            wrong += found
    return wrong


def _reach(home: Home) -> Iterator[Finding]:
    """What the service of launchd saw; while it tries, that is waited for."""
    if read_reach(home) and (reach := wait_for_reach(home)):
        yield reach.finding


def _egress(provider: SandboxProvider) -> Finding:
    """Whether guests reach more than their jobs allow."""
    warning = provider.capabilities.egress_warning
    fix = f"run jobs whose network matters on another kind of sandbox than {provider.kind}"
    return Finding("network of guests", not warning, warning or "only what their jobs allow", fix if warning else "")


def _trust(settings: Settings) -> Iterator[Finding]:
    path = settings.gateway.ca_certificate
    if path is None:
        return
    try:
        count = certificates_in(path.expanduser().read_bytes())
    except (OSError, ValueError) as error:
        fix = "mend `ca_certificate` under [gateway] in tatin.toml"
        yield Finding("ca_certificate", False, f"{path}: {error}", fix)
    else:
        yield Finding("ca_certificate", True, f"{path}: {count} certificate{'' if count == 1 else 's'}")


def _agent_tools(settings: Settings, home: Home) -> Iterator[Finding]:
    """Not where only virtual machines are wanted: their image has the tools."""
    if getattr(KINDS.get(settings.sandbox), "own_image", False):
        return
    for name in sorted({package for made in ADAPTERS.values() for package in made.tool_packages}):
        try:
            tool = find_tool(home, name, settings.agent(name).version)
        except PartMissing as error:
            if not TOOLS[name].by_hand:  # which is missed only by who wants it
                yield Finding(f"agent tool {name}", False, error.seen or error.what, install_command(name))
        else:
            yield Finding(f"agent tool {name}", True, tool.version)


def _own_agents(settings: Settings) -> Iterator[Finding]:
    for name in settings.agent_classes:
        try:
            adapter(name, settings.agent_classes)
        except TatinError as error:
            yield Finding(f"agent class {name}", False, error.seen or error.what, error.try_ or "mend it")
        else:
            yield Finding(f"agent class {name}", True, "found; its code runs in the worker")


def _git() -> Finding:
    fix = "sudo apt-get install git" if sys.platform == "linux" else "brew install git"
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("git", False, str(error), fix)
    said = done.stdout.decode(errors="replace").strip()
    match = re.search(r"(\d{1,3})\.(\d{1,3})", said)
    if match is None:
        return Finding("git", False, said[:200] or f"it exited with {done.returncode}", fix)
    new_enough = (int(match[1]), int(match[2])) >= OLDEST_GIT
    return (
        Finding("git", True, said)
        if new_enough
        else Finding("git", False, f"{said}; 2.30 is the oldest that will do", fix)
    )


def _home(home: Home) -> Finding:
    """Whoever reaches the store's socket, which is in there, runs jobs as this user."""
    try:
        mode = home.root.stat().st_mode & 0o777
    except FileNotFoundError:
        return Finding("home", True, f"{home.root} will be made")
    except OSError as error:
        return Finding("home", False, str(error), "set TATIN_HOME to a folder of yours")
    if mode & 0o077:
        return Finding("home", False, f"{home.root} is open to other users ({mode:o})", f"chmod 700 {home.root}")
    return Finding("home", True, f"{home.root} is private")


def _disk(settings: Settings) -> Finding:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = free_disk_mib(place)
    seen = f"{free} MiB free; no job starts below {settings.disk_floor_mib} MiB"
    if free > settings.disk_floor_mib:
        return Finding("disk", True, seen)
    return Finding("disk", False, seen, "tatin prune, or set TATIN_DISK_FLOOR lower")


def _clock(now: datetime) -> Finding:
    """``not_before`` and what a night's report covers go by it. It cannot be earlier than Tatin's own files."""
    newest = datetime.fromtimestamp(Path(tatin_jobs.__file__).stat().st_mtime, UTC)
    seen = f"{now:%Y-%m-%d %H:%M} UTC"
    if (newest - now).total_seconds() < 86_400:
        return Finding("clock", True, seen)
    return Finding("clock", False, f"{seen}, which is before Tatin was installed", "sudo timedatectl set-ntp true")


def _sleep(argv: Sequence[str]) -> Finding:
    """A host that sleeps runs nothing; jobs go on, or run again, when it wakes. A server without logind never sleeps of
    itself, so this is told and not required."""
    seen = awake.works(argv) if argv else "no caffeinate or systemd-inhibit here"
    if seen is None:
        return Finding("sleep", True, f"{argv[0]} keeps this host awake while jobs run")
    return Finding("sleep", True, f"nothing keeps this host from sleeping while jobs run ({seen})")


def _lease(settings: Settings) -> Finding:
    seen = f"lease {settings.lease_seconds:g} s, a beat every {settings.beat_seconds:g} s"
    if settings.lease_seconds >= BEATS_IN_A_LEASE * settings.beat_seconds:
        return Finding("lease", True, seen)
    least = BEATS_IN_A_LEASE * settings.beat_seconds
    return Finding(
        "lease", False, f"{seen}: one late beat may lose a job", f"set TATIN_LEASE_SECONDS to {least:g} or more"
    )


def _models(settings: Settings) -> Iterator[Finding]:
    for name, provider in sorted(settings.models.items()):
        try:
            address = api_root(provider)
            key = "key found" if provider.key() else "no key wanted"
            silent = why_silent(provider)
        except TatinError as error:
            seen = f"{error.what} {error.seen or ''}".strip()
            yield Finding(f"model server {name}", False, seen, error.try_ or f"mend [models.{name}] in tatin.toml")
        else:
            seen = f"{address} does not run: {silent}" if silent else f"{address}, {key}"
            fix = start_command(provider) or "start it"
            yield Finding(f"model server {name}", not silent, seen, fix if silent else "")


def _secrets(settings: Settings) -> Iterator[Finding]:
    for name, setting in sorted(settings.secrets.items()):
        try:
            setting.source.read(f"The secret '{name}'")
        except TatinError as error:
            seen = f"{error.what} {error.seen or ''}".strip()
            yield Finding(f"secret {name}", False, seen, error.try_ or f"mend [secrets.{name}] in tatin.toml")
        else:
            yield Finding(f"secret {name}", True, f"found ({setting.source})")


def _prices(settings: Settings) -> Iterator[Finding]:
    """Of the user's own file, when there is one."""
    try:
        count = check_prices(settings)
    except TatinError as error:
        yield Finding("prices", False, f"{error.what} {error.seen or ''}".strip(), error.try_ or "mend it")
    else:
        if count is not None:
            yield Finding("prices", True, f"{count} of your own")


def _notify(settings: Settings) -> Iterator[Finding]:
    if not settings.notify:
        return
    program = settings.notify[0]
    found = shutil.which(program)
    yield (
        Finding("notify", True, found)
        if found
        else Finding("notify", False, f"there is no program '{program}'", "mend `notify` in tatin.toml")
    )
