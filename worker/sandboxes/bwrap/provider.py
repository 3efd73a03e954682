"""The bwrap provider: a process sandbox with namespaces of its own, for trying Tatin, for CI, and where there is no
virtualisation. It shares the host's kernel: not a VM, no sudo, no apt."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from worker.sandboxes.base import HOME_FOLDERS, Finding, SandboxProvider, SandboxSpec
from worker.sandboxes.bwrap.cli import (
    GUEST_FILES,
    GUEST_PYTHON,
    GUEST_UID,
    HOST_ETC,
    OWN_ETC,
    Layout,
    Shared,
    arguments,
    etc_folders,
)
from worker.sandboxes.bwrap.limits import Limits
from worker.sandboxes.bwrap.prereqs import check
from worker.sandboxes.bwrap.provider_facts import CAPABILITIES
from worker.sandboxes.bwrap.sandbox import BwrapSandbox, same_process
from worker.sandboxes.bwrap.userns import guest_host_uid, prepare_userns
from worker.sandboxes.names import is_ours
from worker.sandboxes.removal import remove_tree

READY_SECONDS = 20.0
OPEN_FILES = 65_536
CGROUP_STATUS = 71
USER_PATH = ("/home/agent/.local/bin",)
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
ERRORS_FILE = "bwrap.err"
SHARED_FOLDER = ".bwrap"
PYTHON = (GUEST_PYTHON, "-I", "-S")
_PACKAGE = Path(__file__).parent
_INIT = "import sys; sys.path.insert(0, sys.argv[1]); import init; init.main(int(sys.argv[2]), int(sys.argv[3]))"
"""Imported rather than run as a file, so that what was compiled for all is taken."""


class BwrapProvider(SandboxProvider):
    """Sandboxes are folders under ``<home>/sandboxes``, each with one bwrap process while it lives."""

    kind = "bwrap"
    capabilities = CAPABILITIES

    def __init__(self, home: Home, home_id: str) -> None:
        self._root = home.sandboxes
        self._home_id = home_id
        self._live: dict[str, BwrapSandbox] = {}
        self._shared = Shared(home.sandboxes / SHARED_FOLDER)
        self._userns: int | None = None
        self._prepared = False
        self._preparing = asyncio.Lock()

    async def create(self, spec: SandboxSpec) -> BwrapSandbox:
        self._check_name(spec.name)
        async with self._preparing:  # the first of a worker's sandboxes are often made at once
            if not self._prepared:
                self._userns = await asyncio.to_thread(self._prepare)
                self._prepared = True
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError("bwrap is not on this host.", try_="sudo apt-get install bubblewrap")
        layout = Layout(self._root / spec.name)
        limits = Limits(spec.name, spec.memory_mib, spec.cpus, spec.disk_mib)
        try:
            self._make_folders(layout)
            limits.prepare()
            sandbox = await self._launch(program, spec, layout, limits)
        except (OSError, SandboxError):
            await self._clear(spec.name)
            raise
        self._live[spec.name] = sandbox
        return sandbox

    async def list(self) -> Sequence[str]:
        try:
            return sorted(name for name in os.listdir(self._root) if is_ours(name, self._home_id))
        except OSError as error:
            raise SandboxError(f"'{self._root}' cannot be read.", seen=str(error)) from error

    async def destroy(self, name: str) -> None:
        self._check_name(name)
        sandbox = self._live.get(name)
        if sandbox is not None:
            await sandbox.close()
        await self._clear(name)
        self._live.pop(name, None)
        if (self._root / name).exists():
            raise SandboxError(f"Sandbox '{name}' is still there.")

    def check(self) -> Sequence[Finding]:
        return check()

    def _check_name(self, name: str) -> None:
        if not is_ours(name, self._home_id):
            raise SandboxError(f"'{name}' is no sandbox of this home; it is left alone.")

    def _prepare(self) -> int | None:
        """What all guests share; the files are written anew by each worker, which alone holds this home's lock."""
        shutil.rmtree(self._shared.root, ignore_errors=True)
        in_etc = [self._shared.etc / name for name in etc_folders()]  # what is bound there needs a place to be
        for folder in (self._shared.root, self._shared.etc, self._shared.programs, *in_etc):
            folder.mkdir()
            folder.chmod(0o755)  # whatever the worker's umask is
        for name, text in OWN_ETC.items():
            _write_shared(self._shared.etc / name, text.encode())
        for name in HOST_ETC:
            with suppress(FileNotFoundError):
                _write_shared(self._shared.etc / name, (Path("/etc") / name).read_bytes())
        for source in (_PACKAGE / "init.py", _PACKAGE.parent / "launcher.py"):
            _write_shared(self._shared.programs / source.name, source.read_bytes())
        self._compile()
        return prepare_userns()

    def _compile(self) -> None:
        """Our programs for the guests' Python, once for all of them. Without it, or after a change of Python, each
        guest compiles them for itself."""
        cache = self._shared.programs / "__pycache__"
        sources = [str(path) for path in self._shared.programs.glob("*.py")]
        subprocess.run([*PYTHON, "-m", "py_compile", *sources], check=False, capture_output=True)
        for path in (*cache.glob("*.pyc"), *cache.parent.glob(cache.name)):
            path.chmod(0o755 if path.is_dir() else 0o644)  # whatever the worker's umask is

    def _make_folders(self, layout: Layout) -> None:
        layout.root.mkdir(mode=0o700)
        uid, home = guest_host_uid(), str(layout.home)
        for path in (home, str(layout.run), str(layout.tmp), *(f"{home}/{name}" for name in HOME_FOLDERS)):
            os.mkdir(path)
            os.chmod(path, 0o755)  # whatever the worker's umask is
            if uid is not None:
                os.chown(path, uid, uid)

    async def _launch(self, program: str, spec: SandboxSpec, layout: Layout, limits: Limits) -> BwrapSandbox:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [
            program,
            *arguments(self._shared, layout, spec.tools, self._userns),
            "--",
            *(*PYTHON, "-B", "-c", _INIT, GUEST_FILES, str(GUEST_UID), str(theirs.fileno())),
        ]
        keep = [theirs.fileno(), *([self._userns] if self._userns is not None else [])]
        try:
            with (layout.root / ERRORS_FILE).open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *_entering(limits.folders, spec.disk_mib, argv),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=keep,
                    cwd="/",
                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        _note_process(layout, process.pid)
        env = {
            "HOME": "/home/agent",
            "USER": "agent",
            "LOGNAME": "agent",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "PATH": ":".join([*USER_PATH, *(f"{tool.target}/bin" for tool in spec.tools), *SYSTEM_PATH]),
        }
        sandbox = BwrapSandbox(spec.name, process, ours, limits, env, (layout.home, layout.run, layout.tmp))
        self._live[spec.name] = sandbox
        try:
            await sandbox.ready(READY_SECONDS)
        except SandboxError as error:
            await sandbox.close()
            del self._live[spec.name]
            seen = (layout.root / ERRORS_FILE).read_text(errors="replace").strip()[-300:]
            raise SandboxError(f"bwrap made no sandbox '{spec.name}'.", seen=seen or error.seen) from error
        return sandbox

    async def _clear(self, name: str) -> None:
        """Kill what the folder's note names, and remove cgroups and folder; fine on half a sandbox and on none."""
        layout = Layout(self._root / name)
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(layout.process.read_text())
            process = same_process(note["pid"], note["started"])
            if process is not None:
                for member in [*process.children(recursive=True), process]:
                    with suppress(psutil.Error):
                        member.kill()
        limits = Limits(name, 0)
        for tried in range(50):
            try:
                limits.kill_and_remove()
                break
            except OSError:
                if tried == 49:
                    raise
                await asyncio.sleep(0.02)
        try:
            await asyncio.to_thread(remove_tree, layout.root)
        except OSError as error:
            raise SandboxError(f"Sandbox '{name}' cannot be removed.", seen=str(error)) from error


def _write_shared(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def _note_process(layout: Layout, pid: int) -> None:
    """Who to kill after a crash: the pid is worth something only with its start time."""
    with suppress(psutil.Error):
        note = {"pid": pid, "started": psutil.Process(pid).create_time()}
        layout.process.write_text(json.dumps(note))  # not synced: no process outlives a loss of power


def _entering(cgroups: Sequence[str], disk_mib: int, argv: Sequence[str]) -> list[str]:
    """The command line that takes its limits and its cgroups upon itself and then becomes ``argv``. A shell, not a
    ``preexec_fn``: that would fork the worker with all of its memory and threads."""
    lines = ["ulimit -c 0", f"ulimit -n {OPEN_FILES} 2>/dev/null || ulimit -n $(ulimit -H -n)"]
    lines.append(f"ulimit -f {disk_mib * 2048}")  # in blocks of 512 bytes: no file is larger than the whole disk
    for folder in cgroups:
        lines += [f'echo $$ > "$1" || exit {CGROUP_STATUS}  # {os.path.basename(os.path.dirname(folder))}', "shift"]
    lines.append('exec "$@"')
    return ["/bin/sh", "-c", "\n".join(lines), "sh", *(f"{folder}/cgroup.procs" for folder in cgroups), *argv]
