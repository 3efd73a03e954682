"""One virtual machine for a person, and a shell in a job's: what ``tatin up ssh down delete status attach`` do.

A person's machine is called ``tatin-<home>-me<name>-1`` and has a note that keeps it from every sweep until it is
deleted. Its state: ``running``, ``stopped`` (its disk is there), or it is not there.
"""

from __future__ import annotations

import asyncio
import io
import re
import shlex
import shutil
import signal
import tarfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tatin_jobs.errors import BadInput, Missing, PartMissing, SandboxError
from tatin_jobs.home import Home
from tatin_jobs.models import Need
from tatin_jobs.settings import Settings
from worker.capacity import offer_of
from worker.kept import Kept, KeptNotes, is_running, over_memory
from worker.sandboxes import KINDS, choose_provider
from worker.sandboxes.base import GUEST_WORK, SandboxProvider, SandboxSpec
from worker.sandboxes.names import sandbox_name
from worker.sandboxes.transfer import push_tar
from worker.ssh import Endpoint

NAME = re.compile(r"[a-z0-9]{1,16}")
DEFAULT_NAME = "tatin"
WORK_BYTES = 1024 * 2**20
_PREFIX = "me"
_END_SECONDS = 5.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """A machine that has a note, and whether it runs."""

    kept: Kept
    state: str


def run_at_terminal(work: Coroutine[Any, Any, _T]) -> _T:
    """Run what a command does. A closed terminal (SIGHUP) and SIGTERM end it as Ctrl-C does: what it has begun it
    clears away.

    Raises:
        KeyboardInterrupt: one of these came.
    """

    async def heeding() -> _T:
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            if not task.cancelling():  # the clearing away goes on: a shell says once more that the terminal is closed
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, end)
        return await work

    try:
        return asyncio.run(heeding())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def machine_name(home: Home, name: str) -> str:
    """The sandbox of a person's machine. Raises BadInput."""
    if NAME.fullmatch(name) is None:
        raise BadInput(f"A machine cannot be called '{name}'.", try_="small letters and digits, 16 at most.")
    return sandbox_name(home.id(), f"me-{_PREFIX}{name}", 1)


def provider_of_machines(settings: Settings, home: Home) -> SandboxProvider:
    """The provider of virtual machines that works here. Raises PartMissing: none does."""
    wanted = settings.sandbox
    kinds = [kind for kind, make in KINDS.items() if getattr(make, "own_image", False)]
    if wanted not in ("auto", *kinds):
        raise PartMissing(f"The sandbox '{wanted}' is no virtual machine.", try_=f"TATIN_SANDBOX={' or '.join(kinds)}")
    errors = []
    for kind in kinds if wanted == "auto" else [wanted]:
        try:
            return choose_provider(settings, home, home.id(), kind)
        except PartMissing as error:
            errors.append(error)
    raise PartMissing("No virtual machine can be made on this host.", seen=errors[0].seen, try_=errors[0].try_)


async def bring_up(
    settings: Settings,
    home: Home,
    name: str,
    image: str,
    work: Path,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> str:
    """The machine ``name`` running, made if it is not there, with what is in ``work`` in its own work/; its sandbox.
    ``warn``: that there is less memory than it may use.

    Raises:
        SandboxError: it cannot be made. PartMissing: this host has no virtual machines. BadInput: the name, or the
        folder, will not do.
    """
    sandbox = machine_name(home, name)
    provider = provider_of_machines(settings, home)
    notes = KeptNotes(home.kept)
    if sandbox in await provider.list():
        say(f"starting '{name}'")
        _tell_of_room(settings, home, _note_of(home, sandbox), warn)
        await (await provider.start(sandbox)).let_go()
        return sandbox
    cpus, memory_mib = size_of(settings, provider.kind)
    packed = await asyncio.to_thread(_pack, work)
    need = Need(cpus=cpus, memory_mib=memory_mib, disk_mib=settings.default_disk_mib)
    kept = Kept(sandbox=sandbox, kind=provider.kind, name=name, made_at=datetime.now(UTC), need=need)
    notes.add(kept)  # before it is made: a worker of this home sweeps what has no note
    say(f"making '{name}' ({need.cpus} CPUs, {need.memory_mib} MiB of memory)")
    _tell_of_room(settings, home, kept, warn)
    spec = SandboxSpec(sandbox, need.cpus, need.memory_mib, need.disk_mib, image=image)
    try:
        made = await provider.create(spec)
        if packed:
            say(f"copying {work} into its work/")
            await push_tar(made, [packed], GUEST_WORK)
        await made.let_go()
    except BaseException:
        notes.remove(sandbox)
        await asyncio.shield(provider.destroy(sandbox))
        raise
    return sandbox


def size_of(settings: Settings, kind: str) -> tuple[int, int]:
    """CPUs and MiB of memory of a person's machine: the defaults of jobs, or what this host gives where that is less.

    Raises:
        BadInput: the settings ask for more than this host gives one.
    """
    offer = offer_of(settings, kind)
    sizes = []
    for name, most, what, variable in (
        ("default_cpus", offer.cpus, "CPUs", "TATIN_CPUS"),
        ("default_memory_mib", offer.memory_mib, "MiB of memory", "TATIN_MEMORY"),
    ):
        wanted = getattr(settings, name)
        if wanted > most and name in settings.model_fields_set:
            seen = f"{wanted} {what} are asked for, and at most {most} are given"
            raise BadInput("This host is too small for such a machine.", seen=seen, try_=f"{variable}={most}")
        sizes.append(min(wanted, most))
    return sizes[0], sizes[1]


async def take_down(settings: Settings, home: Home, name: str) -> bool:
    """Stop it; its disk stays. False when it does not run."""
    found = find_machine(home, name)
    if found.state != "running":
        return False
    await provider_of_machines(settings, home).stop(found.kept.sandbox)
    return True


async def delete(settings: Settings, home: Home, name: str) -> None:
    """Remove it with all that is in it."""
    found = find_machine(home, name)
    await provider_of_machines(settings, home).destroy(found.kept.sandbox)
    KeptNotes(home.kept).remove(found.kept.sandbox)


def machines(home: Home) -> Sequence[Found]:
    """Every machine that has a note: a person's, and those that jobs have kept."""
    return [Found(kept, _state(home, kept)) for kept in KeptNotes(home.kept).all()]


def find_machine(home: Home, name: str) -> Found:
    """Raises BadInput: there is none of that name."""
    sandbox = machine_name(home, name)
    for found in machines(home):
        if found.kept.sandbox == sandbox and found.state != "gone":
            return found
    raise BadInput(f"There is no machine '{name}'.", try_=f"tatin up {'' if name == DEFAULT_NAME else name}".strip())


async def shell(
    settings: Settings, home: Home, sandbox: str, command: Sequence[str], warn: Callable[[str], None]
) -> int:
    """Run ssh into the machine for the person at the terminal, a shell or ``command``; its exit status. One that was
    stopped is started for it, and one that a job had kept is stopped again afterwards. ``warn``: that there is less
    memory than it may use.

    Raises:
        SandboxError: it is not there, or not to be reached. Missing: there is no ssh on this host.
    """
    provider = provider_of_machines(settings, home)
    kept = _note_of(home, sandbox)
    ran = is_running(home, sandbox)
    _tell_of_room(settings, home, kept, warn)
    made = await (provider.start(sandbox) if kept else provider.adopt(sandbox))
    try:
        link = getattr(made, "link", None)
        if link is None:
            raise SandboxError(f"Sandbox '{sandbox}' is not reached over SSH.")
        endpoint: Endpoint = link.endpoint
        await made.let_go()
        return await _run_ssh(_ssh_argv(home, sandbox, endpoint, command))
    finally:
        if kept and kept.job and not ran:
            await provider.stop(sandbox)


def _note_of(home: Home, sandbox: str) -> Kept | None:
    return next((note for note in KeptNotes(home.kept).all() if note.sandbox == sandbox), None)


def _tell_of_room(settings: Settings, home: Home, kept: Kept | None, warn: Callable[[str], None]) -> None:
    """Before it is started; one that runs has its room."""
    if kept is None or is_running(home, kept.sandbox):
        return
    if seen := over_memory(home, offer_of(settings, kept.kind), kept):
        warn(seen)


async def _run_ssh(argv: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        return await process.wait()
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM first: ssh gives the terminal back as it was."""
    for end in (process.terminate, process.kill):
        if process.returncode is None:
            with suppress(ProcessLookupError, TimeoutError):
                end()
                await asyncio.wait_for(process.wait(), _END_SECONDS)


def _ssh_argv(home: Home, sandbox: str, endpoint: Endpoint, command: Sequence[str]) -> Sequence[str]:
    """Its known host is written down as well."""
    program = shutil.which("ssh")
    if program is None:
        raise Missing("There is no ssh on this host.", try_="sudo apt-get install openssh-client")
    known = home.sandboxes / sandbox / "known_hosts"
    known.write_text(f"[{endpoint.host}]:{endpoint.port} {' '.join(endpoint.host_key.split()[:2])}\n")
    options = {
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentityFile": home.machines / "ssh_key",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "LogLevel": "ERROR",
    }
    argv = [program, "-F", "none", "-p", str(endpoint.port)]
    if endpoint.proxy:
        options["ProxyCommand"] = shlex.join(endpoint.proxy).replace("%", "%%")
    argv += [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    inside = shlex.join(command) if command else "cd work; exec bash -l"
    return [*argv, *(() if command else ("-t",)), f"{endpoint.user}@{endpoint.host}", inside]


def _pack(folder: Path) -> bytes | None:
    """What is in ``folder``, for the guest, links as links; None when it is not there. Raises BadInput: too much."""
    if not folder.is_dir():
        return None
    out = io.BytesIO()
    size = 0

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal size
        size += info.size
        if size > WORK_BYTES:
            raise BadInput(f"'{folder}' holds more than {WORK_BYTES // 2**20} MiB.", try_="tatin up --work another")
        info.uid = info.gid = 1000
        return info

    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(folder, ".", filter=owned)
    return out.getvalue()


def _state(home: Home, kept: Kept) -> str:
    if not (home.sandboxes / kept.sandbox).is_dir():
        return "gone"
    return "running" if is_running(home, kept.sandbox) else "stopped"
