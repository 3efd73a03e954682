"""Builds a QEMU image: Debian by mmdebstrap, the stages of packer/ run in it, an ext4 disk with its kernel beside it.

Everything is made in a draft folder, and takes its place in one step when it is whole. The mounts that the stages need
live in a mount namespace of their own: they are gone with the build, however it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tatin_jobs.data import packer_folder
from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tatin_jobs.home import Home
from tatin_jobs.names import IMAGE
from tatin_jobs.tools import pins
from worker.capacity import free_disk_mib, host_arch
from worker.images.parts import debian_release, fetch_parts, wanted_parts
from worker.images.steps import SYSTEM_PATH, Report, only_one, read_certificate, run_step
from worker.images.store import Image, ImageNote, find_image, publish
from worker.images.wish import BuildWish

STAGES = ("base-system", "create-agent-user", "languages", "bun", "agent-tools", "qemu-machine", "finalize")
NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
    "chroot": "coreutils",
}
"""Program -> the Debian package that has it."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HOST_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
SPARE_MIB = 512
"""What the disk has beyond its content, so that the machine can boot before its disk is grown."""
NEEDED_MIB = {"ci": 6_000, "full": 20_000}
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NPM_CONFIG_REGISTRY")
"""Of the builder's environment the stages see these: how this host reaches the registries. None of it stays."""
_BUILD = "opt/tatin/build"
_ENTER = """set -e
root=$1
shift
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


def build(home: Home, wish: BuildWish, report: Report) -> Image:
    """Build the image unless it is there. Safe to call by two processes at once: the second waits.

    ``report`` gets a line for each step. What is cut off leaves nothing that counts as an image, and the next build
    removes it.

    Raises:
        BadInput: the wish is wrong. PartMissing: this host lacks something, or a part could not be had.
        TatinError: a step failed; the message has its last words.
    """
    parts = wanted_parts(wish.profile, wish.without)
    if IMAGE.fullmatch(wish.name) is None:
        raise BadInput(f"An image cannot be called '{wish.name}'.", try_="small letters, digits and dashes.")
    certificates = {path.name: read_certificate(path) for path in wish.ca_certificates}
    key = _key(wish, parts, certificates)
    home.prepare()
    with only_one(home.images / ".lock", report):
        with suppress(PartMissing):
            there = find_image(home, wish.name)
            if there.note.build_key == key and not wish.again:
                return there
        _check_host(home, wish)
        draft = home.images / ".building"
        _discard(draft)
        draft.mkdir(mode=0o700)
        try:
            return _Build(home, wish, parts, certificates, key, draft, report).run()
        finally:
            _discard(draft)


class _Build:
    """One build in its draft folder."""

    def __init__(
        self,
        home: Home,
        wish: BuildWish,
        parts: Sequence[str],
        certificates: Mapping[str, bytes],
        key: str,
        draft: Path,
        report: Report,
    ) -> None:
        self._home = home
        self._wish = wish
        self._parts = parts
        self._certificates = certificates
        self._key = key
        self._draft = draft
        self._root = draft / "root"
        self._out = draft / "out"
        self._report = report

    def run(self) -> Image:
        self._step("Debian", self._bootstrap)
        self._step("programs of the parts", self._bring_files)
        for stage in STAGES:
            self._step(stage, lambda stage=stage: self._stage(stage))  # type: ignore[misc]
        self._step("disk", self._make_disk)
        return publish(self._home, self._out, self._note())

    def _step(self, name: str, work: Callable[[], None]) -> None:
        self._report(f"◐ {name}")
        started = time.monotonic()
        work()
        self._report(f"✓ {name} ({time.monotonic() - started:.0f}s)")

    def _bootstrap(self) -> None:
        argv = ["mmdebstrap", "--mode=root", "--variant=apt", f"--architectures={host_arch()}", "--format=directory"]
        argv += [f"--keyring={KEYRING}"] if KEYRING.exists() else []
        argv += [f"--aptopt={line}" for line in _apt_options()]
        argv += ["--include=ca-certificates,python3", debian_release(), str(self._root), *_apt_sources()]
        run_step(argv, self._draft / "bootstrap.log", dict(os.environ))

    def _bring_files(self) -> None:
        target = self._root / _BUILD
        target.mkdir(parents=True)
        fetch_parts(self._parts, _npm_platform(), target / "tools", lambda line: self._report(f"  {line}"))
        packer = packer_folder()
        shutil.copytree(packer / "stages", target / "stages")
        shutil.copytree(packer / "qmd", target / "files" / "qmd")
        for name, data in self._certificates.items():
            (target / "ca").mkdir(exist_ok=True)
            (target / "ca" / f"{Path(name).stem}.crt").write_bytes(data)
        if HOST_CAS.exists():  # the build trusts what this host trusts; the image only what it was given
            shutil.copy(HOST_CAS, target / "host-ca.pem")
        (self._root / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", self._root / "etc/resolv.conf")

    def _stage(self, name: str) -> None:
        authorities = f"/{_BUILD}/host-ca.pem"
        env = {variable: os.environ[variable] for variable in PASSED_ON if variable in os.environ}
        env |= {"PATH": SYSTEM_PATH, "HOME": "/root", "TATIN_PARTS": " ".join(self._parts), "TATIN_BUILD": f"/{_BUILD}"}
        env |= {"SSL_CERT_FILE": authorities, "NODE_EXTRA_CA_CERTS": authorities} if HOST_CAS.exists() else {}
        inside = ["/bin/sh", f"/{_BUILD}/stages/{name}.sh"]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        run_step([*unshare, "/bin/sh", "-c", _ENTER, "sh", str(self._root), *inside], self._draft / f"{name}.log", env)

    def _make_disk(self) -> None:
        self._out.mkdir(mode=0o700)
        (self._root / "etc/resolv.conf").write_text("")
        for option in (self._root / "etc/apt/apt.conf.d").glob("*mmdebstrap*"):
            option.unlink()
        for name in ("kernel", "initrd"):
            shutil.move(self._root / "boot/tatin" / name, self._out / name)
        shutil.copy(self._root / "opt/tatin/packages.txt", self._out / "packages.txt")
        content = int(_output(["du", "-sm", "--one-file-system", str(self._root)]).split()[0])
        size = content + content // 8 + SPARE_MIB
        raw = self._draft / "disk.raw"
        make = ["mkfs.ext4", "-q", "-F", "-L", "tatin", "-m", "1", "-E", "lazy_itable_init=1,lazy_journal_init=1"]
        run_step([*make, "-d", str(self._root), str(raw), f"{size}M"], self._draft / "mkfs.log", dict(os.environ))
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(self._out / "disk.qcow2")]
        run_step(convert, self._draft / "convert.log", dict(os.environ))
        self._disk_mib = size

    def _note(self) -> ImageNote:
        found = json.loads((self._root / "opt/tatin/image.json").read_text())
        lacking = [part for part in self._parts if not found["parts"].get(part)]
        if lacking:
            raise TatinError(f"The image lacks what was wanted: {', '.join(lacking)}.")
        with (self._out / "disk.qcow2").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ImageNote(
            name=self._wish.name,
            digest=digest,
            build_key=self._key,
            profile=self._wish.profile,
            arch=host_arch(),
            debian=found["debian"],
            disk_mib=self._disk_mib,
            built_at=datetime.now(UTC),
            parts=found["parts"],
        )


def _key(wish: BuildWish, parts: Sequence[str], certificates: Mapping[str, bytes]) -> str:
    """What the image is built from, as one hash: the same key makes the same image, but for newer Debian packages."""
    whole = hashlib.sha256()
    packer = packer_folder()
    files = [*sorted(path for path in packer.rglob("*") if path.is_file()), Path(pins.__file__).with_name("tools.toml")]
    for path in [*files, Path(__file__)]:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for name, data in sorted(certificates.items()):
        whole.update(name.encode() + b"\0" + data)
    whole.update(json.dumps([wish.profile, list(parts), host_arch(), debian_release()]).encode())
    return whole.hexdigest()


def _check_host(home: Home, wish: BuildWish) -> None:
    if platform.system() != "Linux":
        raise PartMissing(f"A QEMU image is built on Linux; this is {platform.system()}.")
    if os.geteuid() != 0:
        raise PartMissing("Building an image needs root: it makes a root file system.", try_="the same with sudo -E")
    lacking = [package for program, package in NEEDED.items() if shutil.which(program, path=SYSTEM_PATH) is None]
    if lacking:
        raise PartMissing(
            "Programs that build an image are not on this host.",
            seen=f"missing: {', '.join(lacking)}",
            try_=f"sudo apt-get install {' '.join(lacking)} debian-archive-keyring",
        )
    free, needed = free_disk_mib(home.images), NEEDED_MIB.get(wish.profile, 20_000)
    if free < needed:
        raise PartMissing(f"Building this image takes up to {needed} MiB of disk; {free} MiB are free.")


def _apt_sources() -> list[str]:
    """Where this host's own apt gets Debian from, for the images' release; none on a host that is no Debian, and then
    mmdebstrap knows where Debian is."""
    with suppress(OSError, subprocess.CalledProcessError):
        listed = _output(["apt-get", "indextargets", "--format", "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)"])
        release = debian_release()
        found: dict[str, str] = {}
        for line in listed.splitlines():
            origin, label, uri = line.split("\t")
            if origin == "Debian" and label in ("Debian", "Debian-Security"):
                found.setdefault(label, uri)
        if "Debian" in found:
            lines = [f"deb {found['Debian']} {release} main", f"deb {found['Debian']} {release}-updates main"]
            if "Debian-Security" in found:
                lines.append(f"deb {found['Debian-Security']} {release}-security main")
            return lines
    return []


def _apt_options() -> list[str]:
    """What this host's apt was told about fetching (proxies, dates), for the build alone."""
    with suppress(OSError, subprocess.CalledProcessError):
        lines = _output(["apt-config", "dump"]).splitlines()
        names = ("acquire::http", "acquire::https", "acquire::check-", "acquire::retries")
        return [line.rstrip(";") for line in lines if line.lower().startswith(names) and not line.endswith('"";')]
    return []


def _npm_platform() -> str:
    return {"amd64": "linux-x64", "arm64": "linux-arm64"}[host_arch()]


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, check=True, text=True, timeout=300).stdout


def _discard(draft: Path) -> None:
    """Remove a draft; never through a mount, of which none is left once its namespace is gone."""
    if draft.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(draft)], check=False)
