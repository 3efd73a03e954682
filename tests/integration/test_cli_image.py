"""``tatin image``: what is listed, what is said of an image that cannot be used, and wishes that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tatin_jobs.home import Home
from tests.support.images import publish_image


def tatin(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tatin_jobs.cli", *arguments]
    env = {**os.environ, "TATIN_HOME": str(home.root)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With one image, built where Crush could not be reached."""
    made = Home(tmp_path / "home")
    made.prepare()
    publish_image(
        made,
        tools={"jq": "jq-1.7", "go": "go version go1.24.4 linux/amd64"},
        remarks={"crush": "not verified here, since it could not be downloaded: no route"},
    )
    return made


def test_the_list_has_each_part_and_what_was_not_verified(home: Home) -> None:
    said = tatin(home, "image", "list")
    assert said.returncode == 0
    assert "tatin: go 1.24.4, crush -\n" in said.stdout
    assert "  crush: not verified here, since it could not be downloaded: no route\n" in said.stdout
    listed = json.loads(tatin(home, "image", "list", "--json").stdout)["images"]
    assert listed[0]["tools"]["jq"] == "jq-1.7"
    assert listed[0]["remarks"].keys() == {"crush"}


def test_an_image_that_is_not_whole_is_told_and_not_listed(home: Home) -> None:
    (home.images / "tatin/current/disk.qcow2").unlink()
    said = tatin(home, "image", "list")
    assert "The image 'tatin' is not whole." in said.stderr
    assert "lacks disk.qcow2" in said.stderr
    assert "tatin image build --sandbox qemu --again" in said.stderr
    assert json.loads(tatin(home, "image", "list", "--json").stdout)["images"] == []


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (("--name", "../x"), 2, "An image cannot be called '../x'."),
        (("--profile", "none"), 2, "There is no profile 'none'."),
        (("--without", "jq"), 2, "The profile 'full' has no part 'jq'."),
        (("--if-reachable", "node"), 2, "The part 'node' is not one that may be missing."),
        (("--ca-certificate", "/nonexistent"), 2, "The certificate '/nonexistent' cannot be read."),
        (("--sandbox", "bwrap"), 2, "No image is built for the sandbox 'bwrap'."),
    ],
)
def test_a_wish_that_cannot_be_is_told_in_one_sentence(
    home: Home, options: tuple[str, ...], code: int, what: str
) -> None:
    said = tatin(home, "image", "build", *options)
    assert (said.returncode, said.stderr.splitlines()[0]) == (code, what)
    assert {path.name for path in home.images.iterdir()} <= {"tatin", ".lock"}
