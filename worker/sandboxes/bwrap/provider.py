"""The bwrap provider: a process sandbox with namespaces of its own, for trying Tatin, for CI, and where there is no
virtualisation. It shares the host's kernel: not a VM, no sudo, no apt."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tatin_jobs.errors import SandboxError
from tatin_jobs.home import Home
from worker.sandboxes.base import HOME_FOLDERS, Finding, SandboxProvider, SandboxSpec
from worker.sandboxes.bwrap.cli import (
    GUEST_UID,
    HOST_ETC,
    OWN_ETC,
    Layout,
    Shared,
    arguments,
    etc_folders,
)
from worker.sandboxes.bwrap.inside import kill_tree
from worker.sandboxes.bwrap.limits import Limits
from worker.sandboxes.bwrap.prereqs import check
from worker.sandboxes.bwrap.process_files import began_at
from worker.sandboxes.bwrap.provider_facts import CAPABILITIES
from worker.sandboxes.bwrap.sandbox import BwrapSandbox
from worker.sandboxes.bwrap.userns import guest_host_uid, prepare_userns
from worker.sandboxes.bwrap.wardens import Wardens
from worker.sandboxes.names import is_ours
from worker.sandboxes.removal import remove_tree

READY_SECONDS = 20.0
OPEN_FILES = 65_536
FIRST_PAUSE, LAST_PAUSE, LONGER = 0.0002, 0.6, 1.5
USER_PATH = ("/home/agent/.local/bin",)
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
ERRORS_FILE = "bwrap.err"
SHARED_FOLDER = ".bwrap"


class BwrapProvider(SandboxProvider):
    """Sandboxes are folders under ``<home>/sandboxes``, each with one bwrap process while it lives."""

    kind = "bwrap"
    capabilities = CAPABILITIES

    def __init__(self, home: Home, home_id: str) -> None:
        self._root = home.sandboxes
        self._home_id = home_id
        self._live: dict[str, BwrapSandbox] = {}
        self._shared = Shared(home.sandboxes / SHARED_FOLDER)
        self._wardens = Wardens(home.sandboxes)
        self._program = ""
        self._userns: int | None = None
        self._prepared = False
        self._preparing = asyncio.Lock()

    async def create(self, spec: SandboxSpec) -> BwrapSandbox:
        self._check_name(spec.name)
        async with self._preparing:  # the first of a worker's sandboxes are often made at once
            if not self._prepared:
                self._userns = await asyncio.to_thread(self._prepare)
                self._prepared = True
        layout = Layout(self._root / spec.name)
        limits = Limits(spec.name, spec.memory_mib, spec.cpus, spec.disk_mib)
        try:
            self._make_folders(layout)
            limits.prepare()
            return await self._launch(spec, layout, limits)
        except (OSError, SandboxError):
            await self._kill_noted(spec.name)
            await self._clear(spec.name)
            raise

    async def list(self) -> Sequence[str]:
        try:
            return sorted(name for name in os.listdir(self._root) if is_ours(name, self._home_id))
        except OSError as error:
            raise SandboxError(f"'{self._root}' cannot be read.", seen=str(error)) from error

    async def destroy(self, name: str) -> None:
        self._check_name(name)
        sandbox = self._live.get(name)
        if sandbox is None or not await sandbox.close():
            await self._kill_noted(name)
        try:
            await self._clear(name, has_ended=sandbox is not None and sandbox.has_ended)
        finally:
            if sandbox is not None:
                await sandbox.gone()
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
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError("bwrap is not on this host.", try_="sudo apt-get install bubblewrap")
        self._program = program
        shutil.rmtree(self._shared.root, ignore_errors=True)
        in_etc = [self._shared.etc / name for name in etc_folders()]  # what is bound there needs a place to be
        for folder in (self._shared.root, self._shared.etc, self._shared.shell.parent, *in_etc):
            folder.mkdir()
            folder.chmod(0o755)  # whatever the worker's umask is
        for name, text in OWN_ETC.items():
            _write_shared(self._shared.etc / name, text.encode())
        for name in HOST_ETC:
            with suppress(FileNotFoundError):
                _write_shared(self._shared.etc / name, (Path("/etc") / name).read_bytes())
        shutil.copyfile("/bin/bash", self._shared.shell)
        self._shared.shell.chmod(0o111)
        self._wardens.start()
        return prepare_userns()

    def _make_folders(self, layout: Layout) -> None:
        layout.root.mkdir(mode=0o700)
        uid, home = guest_host_uid(), str(layout.home)
        for path in (home, str(layout.run), str(layout.tmp), *(f"{home}/{name}" for name in HOME_FOLDERS)):
            os.mkdir(path)
            os.chmod(path, 0o755)  # whatever the worker's umask is
            if uid is not None:
                os.chown(path, uid, uid)

    async def _launch(self, spec: SandboxSpec, layout: Layout, limits: Limits) -> BwrapSandbox:
        env = {
            "HOME": "/home/agent",
            "USER": "agent",
            "LOGNAME": "agent",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "PATH": ":".join([*USER_PATH, *(f"{tool.target}/bin" for tool in spec.tools), *SYSTEM_PATH]),
        }
        control = self._wardens.new(self._userns)
        folders, note = (layout.home, layout.run, layout.tmp), partial(_note_process, layout)
        sandbox = BwrapSandbox(spec.name, control, limits, env, folders, note)
        self._live[spec.name] = sandbox
        making = {
            "argv": [self._program, *arguments(self._shared, layout, spec.tools, userns=self._userns is not None)],
            "cgroups": limits.joins,
            "limits": {
                "RLIMIT_CORE": 0,
                "RLIMIT_NOFILE": OPEN_FILES,
                "RLIMIT_FSIZE": spec.disk_mib * 2**20,  # no file is larger than the whole disk
            },
            "errors": str(layout.root / ERRORS_FILE),
            "uid": GUEST_UID,
            "ports": list(spec.ports),
        }
        try:
            async with asyncio.timeout(READY_SECONDS):
                await sandbox.make(making)
        except (SandboxError, TimeoutError) as error:
            await sandbox.close()
            await sandbox.gone()
            del self._live[spec.name]
            if not sandbox.warden:
                self._wardens.give_up()  # it took what it was told, and forked nobody
            seen = _said(layout) or str(error) or f"it was not ready within {READY_SECONDS:g} s"
            raise SandboxError(f"bwrap made no sandbox '{spec.name}'.", seen=seen) from error
        return sandbox

    async def _kill_noted(self, name: str) -> None:
        """Kill what the folder's note names; fine where there is none."""
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(Layout(self._root / name).process.read_text())
            if began_at(note["pid"]) == note["began"]:
                await asyncio.to_thread(kill_tree, note["pid"])

    async def _clear(self, name: str, *, has_ended: bool = False) -> None:
        """Remove cgroups and folder; fine on half a sandbox and on none. ``has_ended``: nothing of the guest runs."""
        try:
            await asyncio.to_thread(_remove, Limits(name, 0), self._root / name, has_ended=has_ended)
        except OSError as error:
            raise SandboxError(f"Sandbox '{name}' cannot be removed.", seen=str(error)) from error


def _remove(limits: Limits, root: Path, *, has_ended: bool) -> None:
    """The folder last, when nobody writes to it any more. Where the guest has ended nobody does, and its warden is in
    the cgroups for some milliseconds more: time enough for the folder. Raises OSError."""
    if has_ended:
        with suppress(OSError):  # which the second try tells
            remove_tree(root)
    _remove_cgroups(limits)
    remove_tree(root)


def _remove_cgroups(limits: Limits) -> None:
    """Kill what is in there, and wait until it is gone. Raises OSError."""
    pause = FIRST_PAUSE
    while True:
        try:
            limits.kill_and_remove()
        except OSError:
            if pause > LAST_PAUSE:
                raise
            time.sleep(pause)
            pause *= LONGER
        else:
            return


def _write_shared(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def _said(layout: Layout) -> str:
    """The last words of bwrap, or of the warden."""
    with suppress(OSError):
        return (layout.root / ERRORS_FILE).read_text(errors="replace").strip()[-300:]
    return ""


def _note_process(layout: Layout, pid: int) -> None:
    """Who to kill after a crash, should it still live: the pid is worth something only with its start time."""
    began = began_at(pid)
    if began is None:
        return
    with suppress(OSError):  # not synced: no process outlives a loss of power
        layout.process.write_text(json.dumps({"pid": pid, "began": began}))
