"""The builder of QEMU images as it is, but for what it is fed: a root file system of a shell and a few programs in
place of Debian, stages of a few lines in place of packer's, and nothing to boot. So a build takes seconds, and can be
held at each of its steps.

``python -m tests.support.tiny_build HOME PACKER`` builds; ``PACKER/stages/hold`` names the step that does not end, and
``PACKER/copy`` is there where no overlay can be mounted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

from tatin_jobs.errors import TatinError
from tatin_jobs.home import Home
from worker.images import build_qemu
from worker.images.layers import Layers
from worker.images.steps import ALONE, run_step
from worker.images.wish import BuildWish

PROGRAMS = ("sh", "sleep", "cat", "mkdir", "touch", "rm")


def held_seconds(packer: Path) -> str:
    """What a held step sleeps for: by it a test finds what is left of its own."""
    return f"98765.{crc32(str(packer).encode())}"


_STAGE = """set -eu
echo STAGE >>/log
read -r hold </mnt/stages/hold
if [ "$hold" = STAGE ]; then
    touch /held
    sleep SECONDS & wait
fi
"""
_FINALIZE = """mkdir -p /boot/tatin /opt/tatin
echo kernel >/boot/tatin/kernel
echo initrd >/boot/tatin/initrd
cat /log >/opt/tatin/packages.txt
echo '{"debian": "none", "parts": {"python": "Python 3", "opencode": "1.18"}, "tools": {}}' >/opt/tatin/image.json
"""


def make_packer(folder: Path) -> Path:
    """Stages that write their names into ``/log``; the rest is packer's own."""
    shutil.copytree(Path(__file__).parents[2] / "packer", folder)
    for stage in build_qemu.STAGES:
        text = _STAGE.replace("STAGE", stage).replace("SECONDS", held_seconds(folder))
        (folder / "stages" / f"{stage}.sh").write_text(text + (_FINALIZE if stage == "finalize" else ""))
    (folder / "stages" / "hold").write_text("nothing\n")
    return folder


def _debian(packer: Path, root: Path) -> list[str]:
    """A command that puts the programs with their libraries into ``root``, and holds when it is to."""
    files = [Path(shutil.which(name) or name) for name in PROGRAMS]
    listed = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=True).stdout
    libraries = {
        word for line in listed.splitlines() for word in line.split() if word.startswith("/") and ":" not in word
    }
    folders = " ".join(
        f"{root}/{name}" for name in ("proc", "sys", "dev", "mnt", "etc/apt/apt.conf.d", "etc/ssh", "bin")
    )
    copies = [f"cp -L --parents {library} {root}" for library in sorted(libraries)]
    copies += [f"cp -L {file} {root}/bin/{file.name}" for file in files]
    sleep = f"touch {root}/held; sleep {held_seconds(packer)}"
    hold = f'read -r hold <{packer}/stages/hold; [ "$hold" != Debian ] || {{ {sleep}; }}'
    return ["sh", "-c", " && ".join([f"mkdir -p {folders}", *copies, f": >{root}/etc/machine-id"]) + f"; {hold}"]


def main(home: Path, packer: Path) -> int:
    """0: the image is there; 1: why not is printed."""

    def held(step: str) -> bool:
        return (packer / "stages" / "hold").read_text().strip() == step

    def fetch_part(_name: str, _platform: str, target: Path, _report: object) -> None:
        target.mkdir()
        if held("programs"):
            (target.parent / "held").touch()
            time.sleep(float(held_seconds(packer)))

    def try_out(_home: Home, image: object, _wish: object, _parts: object, draft: Path) -> None:
        if held("broken"):
            raise TatinError("It is broken.", seen="by the test")
        if held("smoke test"):
            (draft / "held").touch()
            run_step([*ALONE, "sleep", held_seconds(packer)], draft / "log", {})

    changes = {
        "packer_folder": lambda: packer,
        "bootstrap_command": lambda root: _debian(packer, root),
        "check_host": lambda _home, _wish: None,
        "fetch_part": fetch_part,
        "try_out": try_out,
    }
    if (packer / "copy").exists():
        Layers._can_overlay = lambda self: False  # type: ignore[method-assign]
    for name, stand_in in changes.items():
        setattr(build_qemu, name, stand_in)
    wish = BuildWish(profile="ci", again=(packer / "again").exists())
    try:
        image = build_qemu.build(Home(home), wish, lambda line: print(line, flush=True))
    except TatinError as error:
        print(error)
        return 1
    print((image.folder / "packages.txt").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
