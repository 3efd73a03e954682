"""Images of a home: found whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.home import Home
from tests.support.images import publish_image
from worker.images.build_qemu import build
from worker.images.parts import wanted_parts
from worker.images.store import find_image, images, unusable, version_in
from worker.images.wish import BuildWish


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def test_a_new_image_takes_the_place_of_the_old_one(home: Home) -> None:
    first = publish_image(home)
    for digest in ("a", "b"):
        (home.machines / f"frozen/amd64-tcg-7.2-{digest * 16}-2cpu-2048mib").mkdir(parents=True)
    second = publish_image(home, digest="b" * 64)
    assert find_image(home, "tatin").folder == second
    assert not first.exists()
    assert [path.name for path in (home.machines / "frozen").glob("*mib")] == [
        "amd64-tcg-7.2-bbbbbbbbbbbbbbbb-2cpu-2048mib"
    ]
    assert [image.note.digest for image in images(home)] == ["b" * 64]


def test_an_image_that_a_sandbox_stands_on_stays(home: Home) -> None:
    first = publish_image(home)
    (home.sandboxes / "one").mkdir()
    (home.sandboxes / "one" / "machine.json").write_text(json.dumps({"image": first.name}))
    publish_image(home, digest="b" * 64)
    assert first.exists()


def test_an_image_that_is_missing_or_not_whole_or_for_another_cpu_is_told_with_the_command(home: Home) -> None:
    with pytest.raises(PartMissing, match="no image 'tatin'") as missing:
        find_image(home, "tatin")
    assert missing.value.try_ == "tatin image build --sandbox qemu"
    folder = publish_image(home)
    (folder / "kernel").unlink()
    with pytest.raises(PartMissing, match="not whole") as half:
        find_image(home, "tatin")
    assert "kernel" in (half.value.seen or "")
    (folder / "image.json").write_text("{")
    with pytest.raises(PartMissing, match="not whole"):
        find_image(home, "tatin")
    assert images(home) == []
    [why] = unusable(home)
    assert why.what == "The image 'tatin' is not whole."
    with pytest.raises(PartMissing, match="for riscv64"):
        publish_image(home, digest="c" * 64, arch="riscv64")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "A", "x" * 41])
def test_no_name_leads_out_of_the_folder(home: Home, name: str) -> None:
    with pytest.raises(PartMissing):
        find_image(home, name)
    with pytest.raises(BadInput):
        build(home, BuildWish(name=name), print)


def test_parts_are_left_out_by_name_only() -> None:
    everything = wanted_parts(BuildWish())
    some = wanted_parts(BuildWish(without=("crush", "bd")))
    assert some == tuple(part for part in everything if part not in ("crush", "bd"))
    for profile, without in (("none", ()), ("full", ("crash",)), ("ci", ("crush",)), ("full", ("node",))):
        with pytest.raises(BadInput):
            wanted_parts(BuildWish(profile=profile, without=without))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.24.4 linux/amd64", "1.24.4"),
        ("2.1.332 (Claude Code)", "2.1.332"),
        ("v24.21.0", "24.21.0"),
        ("odd", "odd"),
    ],
)
def test_the_version_is_found_in_what_a_program_says(said: str, version: str) -> None:
    assert version_in(said) == version
