"""Builds a QEMU image: Debian by mmdebstrap, the stages of packer/ run in it, an ext4 disk with its kernel beside it; a
machine made from that is asked whether it is what was wanted.

Each step's result is a layer (``worker.images.layers``), so a build that was cut off is gone on with. The image takes
its place in one step, when it has answered. The mounts that the stages need live in a mount namespace of their own:
they are gone with the build, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tatin_jobs.data import packer_folder
from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tatin_jobs.file_locks import only_one
from tatin_jobs.home import Home
from tatin_jobs.names import IMAGE
from worker.capacity import host_arch
from worker.images import debian
from worker.images.builder_host import check_host
from worker.images.debian import bootstrap_command
from worker.images.layers import Layers, key_of
from worker.images.owner import owner_of
from worker.images.parts import Gathered, debian_release, fetch_part, gather, is_fetched, pin_of, wanted_parts
from worker.images.smoke import read_manifest
from worker.images.smoke_qemu import try_out
from worker.images.steps import ALONE, SYSTEM_PATH, Report, read_certificate, run_step
from worker.images.store import Image, ImageNote, find_image, publish, sweep
from worker.images.wish import BuildWish

STAGES: Mapping[str, tuple[str, ...]] = {
    "base-system": ("build-essential",),
    "create-agent-user": (),
    "languages": ("python", "go", "ruby", "rust", "node", "mise"),
    "bun": ("bun",),
    "agent-tools": ("claude", "opencode", "pi", "crush", "bd", "qmd"),
    "qemu-machine": (),
    "finalize": (),
}
"""In their order, each with the parts that it puts in: it is told of no others. The last is told of all."""
HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
SPARE_MIB = 512
"""What the disk has beyond its content, so that the machine can boot before its disk is grown."""
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NPM_CONFIG_REGISTRY")
"""Of the builder's environment the stages see these: how this host reaches the registries. None of it stays."""
_BUILD = "mnt"
"""Where the stages find the builder's folder: a folder that Debian has, and that is empty again afterwards."""
_STAGE = """mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -o bind,ro .building/build "$root/mnt"
mount --bind .building/resolv.conf "$root/etc/resolv.conf"
exec chroot "$root" "$@"
"""
_DISK = """cd .building
rm -f "$root"/etc/apt/apt.conf.d/*mmdebstrap*
mv "$root/boot/tatin/kernel" "$root/boot/tatin/initrd" out/
rmdir "$root/boot/tatin"
cp "$root/opt/tatin/packages.txt" out/
cp "$root/opt/tatin/image.json" manifest.json
content=$(du -sm --one-file-system "$root" | cut -f 1)
size=$((content + content / 8 + $1))
mkfs.ext4 -q -F -L tatin -m 1 -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" disk.raw "${size}M"
echo "$size" >size
"""


def build(home: Home, wish: BuildWish, report: Report) -> Image:
    """Build the image unless it is there. Safe to call by two processes at once: the second waits.

    ``report`` gets a line for each step. What is cut off leaves nothing that counts as an image and nothing that runs;
    the next build goes on after the last finished step. The image that was there stays until another has answered.

    Raises:
        BadInput: the wish is wrong. PartMissing: this host lacks something, or a part could not be had.
        TatinError: a step failed, or the new image is not what was wanted; the message has its last words.
    """
    wanted_parts(wish)
    if IMAGE.fullmatch(wish.name) is None:
        raise BadInput(f"An image cannot be called '{wish.name}'.", try_="small letters, digits and dashes.")
    certificates = {path.name: read_certificate(path) for path in wish.ca_certificates}
    with owner_of(home).acting():
        home.prepare()
    with only_one(home.images / ".lock", "build", report):
        key = stage_keys(wish, wanted_parts(wish), certificates)["finalize"]
        with suppress(PartMissing):
            there = find_image(home, wish.name)
            if there.note.build_key == key and not wish.again:
                return there
        check_host(home, wish)
        sweep(home, wish.name)
        made = Layers(home.images)
        try:
            made.begin()
            return _Build(home, wish, certificates, key, made, report).run()
        except BaseException:
            if made.any():
                report("✗ not done: what is finished is kept for a day, and the next build goes on from there")
            raise
        finally:
            made.end()


def stage_keys(
    wish: BuildWish, parts: tuple[str, ...], certificates: Mapping[str, bytes], kind: str = ""
) -> Mapping[str, str]:
    """Step -> the hash of all that it and the steps before it are made from: the same key makes the same, but for newer
    packages of Debian's. ``kind`` is that of the layers."""
    stages = packer_folder() / "stages"
    shared = (stages / "lib.sh").read_bytes()
    key = key_of(
        kind, debian_release(), host_arch(), *(Path(part).read_bytes() for part in (__file__, debian.__file__))
    )
    keys = {"Debian": key}
    for stage in STAGES:
        own = _own_parts(stage, parts)
        sources: list[bytes | str] = [
            (stages / f"{stage}.sh").read_bytes(),
            shared,
            *(pin_of(part, _npm_platform()) for part in own),
        ]
        if stage == "base-system":
            sources += [name.encode() + data for name, data in sorted(certificates.items())]
        if stage == "finalize":
            sources += [wish.profile, (stages / "tools.txt").read_bytes()]
        if "qmd" in own:
            sources += [path.read_bytes() for path in sorted((packer_folder() / "qmd").iterdir())]
        key = keys[stage] = key_of(key, stage, *sources)
    return keys


class _Build:
    """One build in its draft folder."""

    def __init__(
        self,
        home: Home,
        wish: BuildWish,
        certificates: Mapping[str, bytes],
        key: str,
        made: Layers,
        report: Report,
    ) -> None:
        self._home = home
        self._wish = wish
        self._certificates = certificates
        self._key = key
        self._layers = made
        self._draft = made.draft
        self._report = report

    def run(self) -> Image:
        gathered = self._bring_files()
        keys = stage_keys(self._wish, gathered.parts, self._certificates, self._layers.kind)
        for step, key in keys.items():
            if self._layers.has(key):
                self._report(f"✓ {step} (kept from a build that was not done)")
            else:
                with self._told(step):
                    self._make(step, key, gathered.parts)
            self._layers.use(key)
        with self._told("disk"):
            self._make_disk()
        image = publish(
            self._home, self._draft / "out", self._note(gathered), lambda image: self._try_out(image, gathered.parts)
        )
        self._layers.clear()
        return image

    @contextmanager
    def _told(self, step: str) -> Iterator[None]:
        self._report(f"◐ {step}")
        started = time.monotonic()
        yield
        self._report(f"✓ {step} ({time.monotonic() - started:.0f}s)")

    def _bring_files(self) -> Gathered:
        """The folder that the stages find at ``TATIN_BUILD``."""
        folder = self._draft / "build"
        shutil.copytree(packer_folder() / "stages", folder / "stages")
        shutil.copytree(packer_folder() / "qmd", folder / "files" / "qmd")
        (folder / "tools").mkdir()
        for name, data in self._certificates.items():
            (folder / "ca").mkdir(exist_ok=True)
            (folder / "ca" / f"{Path(name).stem}.crt").write_bytes(data)
        if HOST_CAS.exists():  # the build trusts what this host trusts; the image only what it was given
            shutil.copy(HOST_CAS, folder / "host-ca.pem")
        with self._told("programs of the parts"):
            return gather(self._wish, _npm_platform(), self._take_part, lambda line: self._report(f"  {line}"))

    def _take_part(self, name: str) -> None:
        if not is_fetched(name):
            return
        key = f"{name}-{key_of(pin_of(name, _npm_platform()))}"
        if not self._layers.has(key):
            fetch_part(name, _npm_platform(), self._draft / name, lambda line: self._report(f"  {line}"))
            self._layers.keep(key, self._draft / name)
        target = self._draft / "build/tools" / name
        shutil.copytree(self._layers.path(key), target, symlinks=True, copy_function=os.link)

    def _make(self, step: str, key: str, parts: tuple[str, ...]) -> None:
        upper = self._layers.upper()
        if step == "Debian":
            run_step([*ALONE, *bootstrap_command(upper)], self._draft / "bootstrap.log", dict(os.environ))
            (upper / "etc/resolv.conf").unlink(missing_ok=True)
            (upper / "etc/resolv.conf").write_text("")
        else:
            shutil.copy("/etc/resolv.conf", self._draft / "resolv.conf")
            argv = ["/bin/sh", f"/{_BUILD}/stages/{step}.sh"]
            self._layers.run(_STAGE, argv, self._draft / f"{step}.log", _stage_environment(step, parts))
        self._layers.keep(key, upper)

    def _make_disk(self) -> None:
        out = self._draft / "out"
        out.mkdir(mode=0o700)
        self._layers.upper()
        self._layers.run(_DISK, [str(SPARE_MIB)], self._draft / "disk.log", {"PATH": SYSTEM_PATH})
        raw = self._draft / "disk.raw"
        check_disk(raw)
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(out / "disk.qcow2")]
        run_step([*ALONE, *convert], self._draft / "convert.log", {"PATH": SYSTEM_PATH})

    def _try_out(self, image: Image, parts: tuple[str, ...]) -> None:
        owner_of(self._home).own(image.folder.parent)
        with self._told("smoke test"):
            try:
                try_out(self._home, image, self._wish, parts, self._draft)
            except TatinError as error:
                self._layers.clear()  # what came out is not to be trusted
                what = f"The new image '{image.note.name}' failed its smoke test and is gone; one that was there stays."
                raise TatinError(what, seen=f"{error.what} {error.seen or ''}".strip()) from error

    def _note(self, gathered: Gathered) -> ImageNote:
        found = read_manifest((self._draft / "manifest.json").read_bytes())
        with (self._draft / "out/disk.qcow2").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ImageNote(
            name=self._wish.name,
            digest=digest,
            build_key=self._key,
            profile=self._wish.profile,
            arch=host_arch(),
            debian=found.debian,
            disk_mib=int((self._draft / "size").read_text()),
            built_at=datetime.now(UTC),
            parts=found.parts,
            tools=found.tools,
            remarks=gathered.remarks,
        )


def _own_parts(stage: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return parts if stage == "finalize" else tuple(part for part in parts if part in STAGES[stage])


def _stage_environment(stage: str, parts: tuple[str, ...]) -> Mapping[str, str]:
    authorities = f"/{_BUILD}/host-ca.pem"
    env = {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ}
    env |= {"PATH": SYSTEM_PATH, "HOME": "/root", "TATIN_BUILD": f"/{_BUILD}"}
    env |= {"SSL_CERT_FILE": authorities, "NODE_EXTRA_CA_CERTS": authorities} if HOST_CAS.exists() else {}
    return env | {"TATIN_PARTS": " ".join(_own_parts(stage, parts))}


def _npm_platform() -> str:
    return {"amd64": "linux-x64", "arm64": "linux-arm64"}[host_arch()]


def check_disk(raw: Path) -> None:
    """Raises TatinError: the disk has something on it that every machine must draw for itself."""
    keys = _debugfs(raw, "ls -p /etc/ssh")
    if "ssh_host_" in keys or _debugfs(raw, "cat /etc/machine-id").strip():
        raise TatinError("The disk of the new image has a host key or a machine id.", seen=keys[-300:])


def _debugfs(raw: Path, request: str) -> str:
    argv = ["debugfs", "-R", request, str(raw)]
    done = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=60, env={"PATH": SYSTEM_PATH})
    return done.stdout
