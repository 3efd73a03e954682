"""The Tart image, built against stand-ins for Tart and Packer: what is in place at each end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tatin_jobs.home import Home
from tests.support.tart import STAND_IN, Tart
from worker.images import build_tart
from worker.images.build_tart import build, images
from worker.images.parts import wanted_parts
from worker.images.smoke import Manifest
from worker.images.wish import BuildWish

PACKER = STAND_IN.parents[1] / "packer"
BASE = "images.example/space/debian:13"
WISH = BuildWish(profile="ci", base=BASE)


@pytest.fixture
def tart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tart]:
    """A Tart whose registry has the base."""
    made = Tart(tmp_path / "tart")
    made.good("create", "source", "--linux", "--disk-size", "2")
    made.dial(registry={BASE: {"from": str(made.home / "vms" / "source")}})
    monkeypatch.setenv("TART_HOME", str(made.home))
    monkeypatch.setenv("PATH", os.pathsep.join([str(STAND_IN.parent), str(PACKER), os.environ["PATH"]]))
    monkeypatch.setattr(build_tart, "fetch_part", lambda _name, _platform, folder, _report: folder.mkdir())
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def whole(_home: Home, _name: str, _wish: BuildWish, parts: Sequence[str]) -> Manifest:
    assert parts == wanted_parts(WISH)
    return Manifest("13.8", {"python": "3.13", "opencode": "1.18"}, {"jq": "jq-1.7"})


def broken(_home: Home, _name: str, _wish: BuildWish, _parts: Sequence[str]) -> Manifest:
    raise TatinError("The tool 'jq' of the new image does not answer.")


def silent(_line: str) -> None:
    return None


def names(tart: Tart) -> set[str]:
    return {row["Name"] for row in tart.rows("--source", "local")}


def test_it_is_built_once_from_a_base_that_is_pinned(tart: Tart, home: Home) -> None:
    image = build(home, WISH, silent, whole)
    assert names(tart) == {"source", "tatin"}
    assert (home.images / "tart-base").read_text().startswith("images.example/space/debian@sha256:")
    assert [found.note for found in images()] == [image.note]
    tart.dial(registry={})
    again = build(home, BuildWish(profile="ci"), silent, whole)
    assert again.note == image.note


def test_without_a_base_it_says_what_to_do(tart: Tart, home: Home) -> None:
    with pytest.raises(BadInput, match="No base image is pinned") as caught:
        build(home, BuildWish(profile="ci"), silent, whole)
    assert "--base" in (caught.value.try_ or "")
    assert names(tart) == {"source"}


def test_a_failed_build_leaves_the_old_image_and_nothing_else(tart: Tart, home: Home) -> None:
    old = build(home, WISH, silent, whole)
    (tart.home / "packer-fails").write_text("")
    with pytest.raises(TatinError, match="packer-build") as caught:
        build(home, BuildWish(profile="ci", again=True), silent, whole)
    assert "no network" in (caught.value.seen or "")
    assert names(tart) == {"source", "tatin"}
    assert images()[0].note == old.note
    assert not (home.images / ".building-tart").exists()


def test_one_that_fails_its_smoke_test_does_not_take_the_images_place(tart: Tart, home: Home) -> None:
    with pytest.raises(TatinError, match="'jq' of the new image"):
        build(home, WISH, silent, broken)
    assert names(tart) == {"source"}
    old = build(home, WISH, silent, whole)
    with pytest.raises(TatinError, match="'jq' of the new image"):
        build(home, BuildWish(profile="ci", again=True), silent, broken)
    assert [image.note for image in images()] == [old.note]
    assert names(tart) == {"source", "tatin"}


@pytest.mark.parametrize("theirs", ["tatin", "tatin.replaced"])
def test_a_machine_of_that_name_that_tatin_did_not_build_is_left_alone(tart: Tart, home: Home, theirs: str) -> None:
    tart.good("clone", "source", theirs)
    with pytest.raises(BadInput, match=f"'{theirs}' that Tatin did not build") as caught:
        build(home, WISH, silent, whole)
    assert "--name" in (caught.value.try_ or "")
    assert names(tart) == {"source", theirs}


def test_a_new_one_takes_the_place_of_the_old(tart: Tart, home: Home) -> None:
    old = build(home, WISH, silent, whole)
    new = build(home, BuildWish(profile="ci", again=True), silent, whole)
    assert new.note.built_at > old.note.built_at
    assert names(tart) == {"source", "tatin"}


def test_what_a_killed_build_left_is_mended(tart: Tart, home: Home) -> None:
    old = build(home, WISH, silent, whole)
    tart.good("rename", "tatin", "tatin.replaced")
    tart.good("clone", "source", "tatin-build-0123abcd")
    again = build(home, BuildWish(profile="ci"), silent, whole)
    assert again.note == old.note
    assert names(tart) == {"source", "tatin"}


def test_a_host_without_packer_says_how_to_get_it(tart: Tart, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_tart, "search_path", lambda: str(STAND_IN.parent))
    with pytest.raises(PartMissing, match="Packer is not on this host"):
        build(home, WISH, silent, whole)
