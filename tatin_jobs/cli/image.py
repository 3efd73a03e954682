"""``tatin image build``, ``tatin image list``: what the sandboxes of virtual machines are made from."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tatin_jobs.cli.options import AsJson
from tatin_jobs.cli.output import cell, console, plain_table, print_json, say, warn, write_text
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings
from tatin_jobs.units import format_duration, format_size

if TYPE_CHECKING:
    from worker.images.store import Image


class Action(StrEnum):
    """What to do with images."""

    BUILD = "build"
    LIST = "list"


def command(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="build: make one; list: show those of this home.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What jobs call it.")] = "tatin",
    sandbox: Annotated[str, typer.Option("--sandbox", metavar="KIND", help="The kind of sandbox it is for.")] = "qemu",
    profile: Annotated[
        str, typer.Option("--profile", help="full: everything; ci: a small one with OpenCode.")
    ] = "full",
    without: Annotated[
        str, typer.Option("--without", metavar="PARTS", help="Parts to leave out, with commas between: crush,bd")
    ] = "",
    if_reachable: Annotated[
        str,
        typer.Option(
            "--if-reachable", metavar="PARTS", help="Parts to leave out if they cannot be downloaded: crush,bd"
        ),
    ] = "",
    ca_certificate: Annotated[
        list[Path] | None,
        typer.Option("--ca-certificate", metavar="FILE", help="A certificate authority that the image trusts."),
    ] = None,
    base: Annotated[
        str, typer.Option("--base", metavar="IMAGE", help="For tart: the Debian 13 image to begin with.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Build though it is there, built from the same.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build an image, or list the images of this home.

    A part that cannot be had stops the build; one that is left out by name stands in the image's manifest as missing.
    """
    settings = load_settings(os.environ)
    home = Home(settings.home)
    if action is Action.LIST:
        _list(home, as_json)
        return
    from worker.capacity import offer_of
    from worker.images.building import build_image
    from worker.images.owner import owner_of
    from worker.images.wish import BuildWish

    with owner_of(home).acting():
        home.prepare()
    offer = offer_of(settings, sandbox)  # a job that names no size gets no more than that
    wish = BuildWish(
        name=name,
        profile=profile,
        without=_names(without),
        if_reachable=_names(if_reachable),
        ca_certificates=tuple(ca_certificate or ()),
        again=again,
        base=base,
        cpus=min(settings.default_cpus, offer.cpus),
        memory_mib=min(settings.default_memory_mib, offer.memory_mib),
    )
    image = build_image(sandbox, home, wish, say)
    if as_json:
        print_json({"image": _facts(image)})
        return
    say(f"✓ image '{image.note.name}' {image.note.digest[:16]}, {format_size(image.size_bytes)}")


def _list(home: Home, as_json: bool) -> None:
    from worker.images.building import list_images
    from worker.images.store import age_of, unusable

    for error in unusable(home):
        warn(str(error))
    found = list_images(home)
    if as_json:
        print_json({"images": [_facts(image) for image in found]})
        return
    table = plain_table("NAME", "DIGEST", "PROFILE", "SIZE", "AGE", "DEBIAN", right=("SIZE", "AGE"))
    for image in found:
        note = image.note
        age = format_duration(age_of(note))
        size = format_size(image.size_bytes)
        row = (note.name, note.digest[:16], note.profile, size, age, note.debian)
        table.add_row(*(cell(text) for text in row))
    if not found:
        say("No image is here. Try: tatin image build --sandbox qemu")
        return
    console().print(table)
    for image in found:
        parts = ", ".join(_part(name, said) for name, said in image.note.parts.items())
        write_text(f"\n{image.note.name}: {parts}\n")
        for name, remark in image.note.remarks.items():
            write_text(f"  {name}: {remark}\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _part(name: str, said: str | None) -> str:
    """A part with its version, as ``go 1.24.4``; one that was left out as ``crush -``."""
    from worker.images.store import version_in

    return f"{name} -" if said is None else f"{name} {version_in(said)}"


def _facts(image: Image) -> dict[str, object]:
    return {**image.note.model_dump(mode="json"), "size_bytes": image.size_bytes, "folder": str(image.folder)}
