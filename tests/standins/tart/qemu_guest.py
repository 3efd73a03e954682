"""A real guest for the stand-in: QEMU with the tests' image, gone on with from a frozen state where the VM is a fresh
clone of the shape that was frozen, else booted. Needs Tatin's environment, which the rest of the stand-in does not.

The stand-in starts this as a program; it ends with 0 when the guest switches itself off. As soon as the guest is up it
is made what a clone of a Tart image is after a boot: a guest agent with a way in of its own, no SSH host key, no key
that is let in, and so no SSH server until somebody gives it these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from tatin_jobs.home import Home
from tatin_jobs.tied import TIED
from tests.standins.tart.guests import AGENT_NOTE, AGENT_PORT, FOLDER
from tests.standins.tart.storage import new_config
from worker.capacity import host_arch
from worker.images.store import find_image, image_at
from worker.sandboxes.qemu import process, qmp
from worker.sandboxes.qemu.accelerator import find_accelerator
from worker.sandboxes.qemu.frozen import BOOT_SECONDS, CAPABILITIES, Frozen, FrozenStates, open_state
from worker.sandboxes.qemu.machine import Shape, arguments, disk_of
from worker.sandboxes.remote import RemoteSandbox
from worker.ssh import Endpoint, Link, worker_key

GUEST_ADDRESS = "10.0.2.15"
PREPARE_SECONDS = 120.0
AGENT_FOLDER = "/etc/tart-agent"
"""In the guest, on its disk: the agent is there again after a reboot, and in a machine that was stopped and started."""
_PREPARE = f"""
set -eu
mkdir -p {AGENT_FOLDER}
cat >{AGENT_FOLDER}/authorized_keys
cp /etc/ssh/ssh_host_ed25519_key {AGENT_FOLDER}/host_key
chmod 600 {AGENT_FOLDER}/host_key
printf '%s\\n' 'Port {AGENT_PORT}' 'HostKey {AGENT_FOLDER}/host_key' \
    'AuthorizedKeysFile {AGENT_FOLDER}/authorized_keys' \
    'PidFile none' 'UsePAM yes' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' \
    >{AGENT_FOLDER}/sshd_config
printf '%s\\n' '[Service]' 'ExecStartPre=/bin/mkdir -p /run/sshd' \
    'ExecStart=/usr/sbin/sshd -D -f {AGENT_FOLDER}/sshd_config' '[Install]' 'WantedBy=multi-user.target' \
    >/etc/systemd/system/tart-agent.service
systemctl stop ssh  # and its folder, which the other one needs
systemctl enable --now tart-agent
rm -f /etc/ssh/ssh_host_* /etc/tatin/authorized_keys/agent
resize2fs /dev/vda
"""


def install(home: Home, image_name: str, folder: Path, *, cpus: int, memory_mib: int) -> None:
    """Make ``folder`` the VM whose clones are real guests, of the image ``image_name`` of this home; clones of this
    many CPUs and MiB go on from a frozen state, which is made where there is none. Raises SandboxError, PartMissing."""
    image, found = find_image(home, image_name), find_accelerator(home.machines)
    shape = Shape(host_arch(), found.name, found.qemu, image.note.digest, cpus, memory_mib)
    key = home.machines.resolve() / "ssh_key"
    frozen = asyncio.run(FrozenStates(home).get(shape, image, worker_key(key)))
    source = {
        "python": sys.executable,
        "key": str(key),
        "image": str(image.folder),
        "shape": asdict(shape),
        "frozen": str(frozen.folder.resolve()),
        "host_key": frozen.host_key,
        "fresh": True,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(new_config(cpus=cpus, memory_mib=memory_mib)))
    shutil.copy(disk_of(frozen.folder), folder / "disk.img")
    (folder / "nvram.bin").write_text(json.dumps(source))


class Guest:
    """The machine of one ``tart run``."""

    def __init__(self, folder: Path, name: str, address: str) -> None:
        self._nvram = folder / "nvram.bin"
        self._source = json.loads(self._nvram.read_text())
        self._folder = folder / FOLDER
        self._name = name
        self._address = address

    async def run(self, cpus: int, memory_mib: int, *, is_fenced: bool) -> int:
        """Until it ends; the exit status."""
        self._make_folder()
        shape = Shape(**self._source["shape"])
        wanted = replace(shape, cpus=cpus, memory_mib=memory_mib)
        machine = await self._start(wanted, is_resumed=wanted == shape and self._source["fresh"], is_fenced=is_fenced)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._press_power_button)
        if not self._source.get("prepared"):
            await self._prepare(machine)
            self._note(prepared=True)
        await self._open_ports()
        await self._agent_is_up()
        (self._folder / AGENT_NOTE).write_text(self._address)
        words = await machine.wait_end()
        return 0 if "ended with status 0" in words else 1

    def _make_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        disk_of(self._folder).symlink_to(self._folder.parent / "disk.img")
        (self._folder / "seed.tar").symlink_to(Path(self._source["frozen"]) / "seed.tar")

    async def _start(self, shape: Shape, *, is_resumed: bool, is_fenced: bool) -> process.Machine:
        fds: Sequence[int] = ()
        if is_resumed:
            fds = open_state(Frozen(Path(self._source["frozen"]), self._source["host_key"]))
        # From here on the disk is no longer the one that the memory was saved with.
        self._note(fresh=False)
        argv = arguments(shape, image_at(Path(self._source["image"])), self._name, frozen=fds[0] if fds else None)
        argv.remove("-no-reboot")  # a reboot does not end a Tart VM
        if not is_fenced:
            argv = [text.replace("restrict=on", "restrict=off") for text in argv]
        tied = [*TIED, *argv]  # a machine dies with its ``tart run``
        machine = await process.start(self._name, self._folder, tied, fds)
        for fd in fds:
            os.close(fd)
        if is_resumed:
            await machine.running()
        return machine

    def _note(self, **more: bool) -> None:
        self._source |= more
        self._nvram.write_text(json.dumps(self._source))

    async def _prepare(self, machine: process.Machine) -> None:
        key = worker_key(Path(self._source["key"]))
        endpoint = Endpoint("127.0.0.1", await machine.ssh_port(), "agent", self._source["host_key"])
        await self._tell_disk_size()
        guest = RemoteSandbox(self._name, Link(self._name, endpoint, key, machine.death), CAPABILITIES)
        try:
            await guest.link.connect(BOOT_SECONDS)
            script = ["sudo", "-n", "sh", "-c", _PREPARE]
            done = await guest.run(script, stdin=f"{key.public}\n".encode(), cwd="/", timeout_seconds=PREPARE_SECONDS)
            if done.exit_status:
                sys.exit(f"the guest was not prepared: {done.stderr.decode(errors='replace')}")
        finally:
            await guest.close()

    async def _tell_disk_size(self) -> None:
        """A guest that was not booted does not know that `tart set` made its disk larger."""
        async with qmp.connect(self._name, self._folder) as control:
            (disk,) = [one for one in await control.ask("query-block") if one["device"] == "disk"]
            size = disk["inserted"]["image"]["virtual-size"]
            await control.ask("block_resize", {"device": "disk", "size": size})

    async def _open_ports(self) -> None:
        """The address is the guest's from here on; before, whoever connected was refused."""
        async with qmp.connect(self._name, self._folder) as control:
            for port in (22, AGENT_PORT):
                line = f"hostfwd_add net tcp:{self._address}:{port}-{GUEST_ADDRESS}:{port}"
                if said := await control.ask("human-monitor-command", {"command-line": line}):
                    sys.exit(f"{self._address}:{port} is not the guest's: {said}")

    async def _agent_is_up(self) -> None:
        """Return when its server says something. Whoever connects before the guest listens is hung up on."""
        async with asyncio.timeout(BOOT_SECONDS):
            while True:
                with suppress(OSError):
                    reader, writer = await asyncio.open_connection(self._address, AGENT_PORT)
                    said = await reader.read(4)
                    writer.close()
                    if said:
                        return
                await asyncio.sleep(0.2)

    def _press_power_button(self) -> None:
        self._pressing = asyncio.ensure_future(self._ask("system_powerdown"))

    async def _ask(self, command: str) -> None:
        async with qmp.connect(self._name, self._folder) as control:
            await control.ask(command)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("name", "address"):
        parser.add_argument(name)
    for name in ("cpus", "memory_mib"):
        parser.add_argument(name, type=int)
    parser.add_argument("network", choices=("nat", "softnet"))
    given = parser.parse_args()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a guest that is not up yet has no power button
    guest = Guest(given.folder, given.name, given.address)
    return asyncio.run(guest.run(given.cpus, given.memory_mib, is_fenced=given.network == "softnet"))


if __name__ == "__main__":
    sys.exit(main())
