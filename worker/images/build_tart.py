"""Builds the Tart image on a Mac: Packer runs the stages of packer/ in a clone of a pinned Debian, under a name of its
own; what comes out is booted and asked, and only then takes the place of the image.

The questions are those of every kind (``worker.images.smoke``). Not tried on a Mac; tested against stand-ins for Tart
and Packer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from tatin_jobs.data import packer_folder
from tatin_jobs.errors import BadInput, PartMissing, SandboxError, TatinError
from tatin_jobs.file_locks import only_one
from tatin_jobs.home import Home
from tatin_jobs.names import IMAGE
from tatin_jobs.tools import pins
from worker.images.parts import Gathered, fetch_part, gather, is_fetched, wanted_parts
from worker.images.smoke import Manifest, smoke_test
from worker.images.steps import Report, read_certificate, run_step
from worker.images.store import Image, ImageNote
from worker.images.wish import BuildWish
from worker.sandboxes.base import SandboxSpec
from worker.sandboxes.names import sandbox_name
from worker.sandboxes.tart.cli import call, find_tart, list_machines, must, search_path, tart_environment, tart_home
from worker.sandboxes.tart.provider import TartProvider

NOTE = "tatin-image.json"
"""In the machine's own folder: gone with it, and not copied to a clone."""
DISK_GB = 20
STEP_SECONDS = 60.0
PULL_SECONDS = 3600.0
_ARCH = "arm64"
_PLATFORM = "linux-arm64"
_DIGEST = re.compile(r"\S{1,300}@sha256:[0-9a-f]{64}")

TryOut = Callable[[Home, str, BuildWish, Sequence[str]], Manifest]


def build(home: Home, wish: BuildWish, report: Report, try_out: TryOut | None = None) -> Image:
    """Build it unless it is there. ``try_out`` boots a machine by its name, asks it, and returns its manifest.

    Raises:
        BadInput: the wish is wrong. PartMissing: this host lacks something, or a part could not be had.
        TatinError: a step failed. The image that was there stays until another is whole.
    """
    wanted_parts(wish)
    if IMAGE.fullmatch(wish.name) is None:
        raise BadInput(f"An image cannot be called '{wish.name}'.", try_="small letters, digits and dashes.")
    certificates = {path.name: read_certificate(path) for path in wish.ca_certificates}
    packer = _find_packer()
    home.prepare()
    with only_one(home.images / ".lock-tart", "build", report):
        asyncio.run(_mend(wish.name))
        asyncio.run(_check_free(wish.name))
        base = asyncio.run(_pinned_base(home, wish, report))
        key = _key(wish, certificates, base)
        there = find_image(wish.name)
        if there and there.note.build_key == key and not wish.again:
            return there
        draft, name = home.images / ".building-tart", f"tatin-build-{secrets.token_hex(4)}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        try:
            gathered = _bring_files(draft / "build", wish, certificates, report)
            report("◐ packer")
            _pack(packer, draft, name, base, gathered.parts)
            report("◐ smoke test")
            found = (try_out or ask_a_clone)(home, name, wish, gathered.parts)
            note = _note(wish, key, base, found, gathered)
            (tart_home() / "vms" / name / NOTE).write_text(note.model_dump_json())
            asyncio.run(_promote(name, wish.name))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            asyncio.run(_discard(name))
    return Image(note, tart_home() / "vms" / wish.name)


def find_image(name: str) -> Image | None:
    """The image of this name that Tatin built; None: there is none."""
    folder = tart_home() / "vms" / name
    try:
        note = ImageNote.model_validate_json((folder / NOTE).read_bytes())
    except (OSError, ValidationError):
        return None
    return Image(note, folder)


def images() -> Sequence[Image]:
    """All that Tatin built for Tart on this host."""
    found = (find_image(note.parent.name) for note in sorted((tart_home() / "vms").glob(f"*/{NOTE}")))
    return [image for image in found if image is not None]


def _find_packer() -> str:
    find_tart()
    program = shutil.which("packer", path=search_path())
    if program is None:
        raise PartMissing("Packer is not on this host.", try_="brew install hashicorp/tap/packer")
    return program


async def _pinned_base(home: Home, wish: BuildWish, report: Report) -> str:
    """The base by its digest. A name without one is looked up once, and what it was then is kept in this home."""
    pin = home.images / "tart-base"
    if not wish.base:
        with suppress(OSError):
            return pin.read_text().strip()
        raise BadInput(
            "No base image is pinned in this home yet.",
            try_="tatin image build --sandbox tart --base IMAGE, with a Debian 13 image of Tart's (docs/machines.md).",
        )
    base = wish.base
    if not _DIGEST.fullmatch(base):
        report(f"◐ pulling {base}")
        await must("pull", base, seconds=PULL_SECONDS, what=f"The base image '{base}' cannot be had.")
        said = await must("fqn", base, seconds=STEP_SECONDS, what=f"The digest of '{base}' cannot be had.")
        base = said.strip()
        if not _DIGEST.fullmatch(base):
            raise TatinError(f"Tart does not say the digest of '{wish.base}'.", seen=base[:200])
    draft = pin.with_suffix(".draft")
    draft.write_text(base + "\n")
    draft.replace(pin)
    return base


def _key(wish: BuildWish, certificates: Mapping[str, bytes], base: str) -> str:
    """What the image is built from, as one hash."""
    whole = hashlib.sha256()
    files = [*sorted(path for path in packer_folder().rglob("*") if path.is_file())]
    for path in [*files, Path(pins.__file__).with_name("tools.toml"), Path(__file__)]:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for name, data in sorted(certificates.items()):
        whole.update(name.encode() + b"\0" + data)
    whole.update(json.dumps([wish.profile, wanted_parts(wish), base]).encode())
    return whole.hexdigest()


def _bring_files(folder: Path, wish: BuildWish, certificates: Mapping[str, bytes], report: Report) -> Gathered:
    def told(line: str) -> None:
        report(f"  {line}")

    def take(part: str) -> None:
        if is_fetched(part):
            fetch_part(part, _PLATFORM, folder / "tools" / part, told)

    (folder / "tools").mkdir(parents=True)
    gathered = gather(wish, _PLATFORM, take, told)
    shutil.copytree(packer_folder() / "qmd", folder / "files" / "qmd")
    for name, data in certificates.items():
        (folder / "ca").mkdir(exist_ok=True)
        (folder / "ca" / f"{Path(name).stem}.crt").write_bytes(data)
    return gathered


def _pack(packer: str, draft: Path, name: str, base: str, parts: Sequence[str]) -> None:
    template = str(packer_folder() / "tart.pkr.hcl")
    env = {**tart_environment(), "PACKER_CACHE_DIR": str(draft / "cache"), "HOME": os.environ.get("HOME", "/")}
    variables = {
        "base": base,
        "vm_name": name,
        "build": str(draft / "build"),
        "parts": " ".join(parts),
        "disk_gb": str(DISK_GB),
    }
    run_step([packer, "init", template], draft / "packer-init.log", env)
    given = [word for variable, value in variables.items() for word in ("-var", f"{variable}={value}")]
    run_step([packer, "build", "-color=false", *given, template], draft / "packer-build.log", env)


def ask_a_clone(home: Home, name: str, wish: BuildWish, parts: Sequence[str]) -> Manifest:
    """Boot a clone of the machine ``name`` as a job's would be, have the smoke test ask it, and destroy it.

    Raises:
        TatinError: it does not boot, or is not what was wanted.
    """
    home_id = home.id()

    async def ask() -> Manifest:
        provider = TartProvider(home, home_id)
        sandbox = sandbox_name(home_id, f"image-{secrets.token_hex(5)}", 1)
        disk_mib = DISK_GB * 10**9 // 2**20
        spec = SandboxSpec(sandbox, wish.cpus, wish.memory_mib, disk_mib, image=name)
        try:
            return await smoke_test(await provider.create(spec), parts)
        finally:
            await provider.destroy(sandbox)

    return asyncio.run(ask())


def _note(wish: BuildWish, key: str, base: str, found: Manifest, gathered: Gathered) -> ImageNote:
    return ImageNote(
        name=wish.name,
        digest=hashlib.sha256(f"{base} {key}".encode()).hexdigest(),
        build_key=key,
        profile=wish.profile,
        arch=_ARCH,
        debian=found.debian,
        disk_mib=DISK_GB * 10**9 // 2**20,
        built_at=datetime.now(UTC),
        parts=found.parts,
        tools=found.tools,
        remarks=gathered.remarks,
    )


async def _promote(name: str, target: str) -> None:
    """The old image steps aside, the new one takes its name, the old one goes; ``_mend`` ends what was cut off."""
    what = f"The image '{target}' could not be put in place."
    if target in {row.name for row in await list_machines()}:
        await must("rename", target, _aside(target), seconds=STEP_SECONDS, what=what)
    await must("rename", name, target, seconds=STEP_SECONDS, what=what)
    await _discard(_aside(target))


async def _mend(target: str) -> None:
    """After a build that was killed: its machine goes, and an image that had stepped aside comes back."""
    names = {row.name for row in await list_machines()}
    if _aside(target) in names and target not in names and find_image(_aside(target)):
        await must(
            "rename", _aside(target), target, seconds=STEP_SECONDS, what=f"The image '{target}' is not in place."
        )
    for name in names:
        aside = name == _aside(target) and target in names and find_image(name) is not None
        if re.fullmatch(r"tatin-build-[0-9a-f]{8}", name) or aside:
            await _discard(name)


async def _check_free(name: str) -> None:
    """Raises BadInput: somebody's machine has this name, or the one that an image has while another replaces it."""
    for taken in (name, _aside(name)):
        if taken in {row.name for row in await list_machines()} and find_image(taken) is None:
            raise BadInput(
                f"A machine '{taken}' that Tatin did not build is there already; it is left alone.",
                try_="build under another name: --name NAME",
            )


def _aside(name: str) -> str:
    return f"{name}.replaced"


async def _discard(name: str) -> None:
    with suppress(SandboxError):
        await call("stop", "--timeout", "5", name, seconds=STEP_SECONDS)
        await call("delete", name, seconds=STEP_SECONDS)
