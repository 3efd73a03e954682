"""Which way of running guests works on this host: found by running one, not by looking at a device file.

A device that opens is no proof: here ``/dev/kvm`` opens and QEMU then aborts, or hangs. So QEMU runs a guest of a few
instructions that switches itself off, with a limit of time. What was found is kept with what it was found for.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tatin_jobs.errors import PartMissing
from worker.capacity import host_arch
from worker.sandboxes.qemu.machine import MACHINES, PROGRAMS

TRY_SECONDS = 10
OLDEST_QEMU = (7, 0)
"""``-accel``, ``vmgenid`` and ``werror`` as used here; 7.2 is what was tried."""
_ANSWER = 0x2A
_BOOT_SECTOR = bytes.fromhex("b02a e6f4 f4 ebfd".replace(" ", "")).ljust(510, b"\0") + b"\x55\xaa"
"""x86: ``mov al, 0x2a; out 0xf4, al``: QEMU's exit device ends it with status 0x2a * 2 + 1."""
_ARM_PROGRAM = bytes.fromhex("00018052 0080b072 020000d4 00000014".replace(" ", ""))
"""arm64: the firmware call that switches the machine off; QEMU ends with status 0."""


@dataclass(frozen=True)
class Accelerator:
    """``name`` is QEMU's: kvm, hvf or tcg (emulation). ``seen`` says what came of the others."""

    name: str
    qemu: str
    host: str
    seen: str


def find_accelerator(folder: Path) -> Accelerator:
    """The best that works here; asked of the host once per QEMU and kernel, and kept in ``folder``.

    Raises:
        PartMissing: there is no QEMU, it is too old, or it runs nothing.
    """
    version, host = qemu_version(), f"{platform.system()} {platform.release()}"
    path = folder / "accelerator.json"
    with suppress(OSError, ValueError, TypeError):
        known = Accelerator(**json.loads(path.read_text()))
        if (known.qemu, known.host) == (version, host):
            return known
    seen: list[str] = []
    for name in {"Linux": ("kvm", "tcg"), "Darwin": ("hvf", "tcg")}.get(platform.system(), ("tcg",)):
        wrong = _try(name)
        if wrong is None:
            found = Accelerator(name, version, host, "; ".join(seen))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(asdict(found)))
            draft.replace(path)
            return found
        seen.append(f"{name}: {wrong}")
    raise PartMissing(
        "QEMU runs no guest on this host.", seen="; ".join(seen), try_="look at `qemu-system-* --version`"
    )


def qemu_version() -> str:
    """Raises PartMissing: QEMU is not here, or too old."""
    program = PROGRAMS[host_arch()] if host_arch() in PROGRAMS else "qemu-system-x86_64"
    try_ = "sudo apt-get install qemu-system-x86 qemu-utils" if platform.system() == "Linux" else "brew install qemu"
    for needed in (program, "qemu-img"):
        if shutil.which(needed) is None:
            raise PartMissing(f"QEMU is not on this host: there is no '{needed}'.", try_=try_)
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=TRY_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartMissing(f"'{program}' does not run.", seen=str(error), try_=try_) from error
    found = re.search(rb"version (\d{1,3})\.(\d{1,3})[.\d]*", said)
    if found is None:
        raise PartMissing(f"'{program}' does not say its version.", seen=repr(said[:100]), try_=try_)
    if (int(found[1]), int(found[2])) < OLDEST_QEMU:
        raise PartMissing(f"QEMU {found[1].decode()}.{found[2].decode()} is too old; 7.0 is the oldest.", try_=try_)
    return found[0].decode().removeprefix("version ")


def _try(name: str) -> str | None:
    """Run the little guest; None when it ran, else what was seen."""
    if name == "kvm" and not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    arch = host_arch()
    with tempfile.TemporaryDirectory(prefix="tatin-accelerator-") as folder:
        guest = Path(folder, "guest")
        argv = [PROGRAMS[arch], "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "64"]
        argv += ["-machine", MACHINES[arch], "-accel", name, "-cpu", "max"]
        if arch == "amd64":
            guest.write_bytes(_BOOT_SECTOR.ljust(2**20, b"\0"))
            argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-drive", f"file={guest},format=raw,if=ide"]
            wanted = 2 * _ANSWER + 1
        else:
            guest.write_bytes(_ARM_PROGRAM)
            argv += ["-kernel", str(guest)]
            wanted = 0
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"a guest of three instructions had not ended after {TRY_SECONDS} s"
        except OSError as error:
            return str(error)
    if done.returncode == wanted:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else "")[:200] or f"QEMU ended with status {done.returncode}"
