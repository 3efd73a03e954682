"""A build of an image that is cut off: nothing runs, nothing is mounted, nothing counts as an image, and the next build
goes on after the last step that was finished. The builder is real, what it builds is tiny (tests.support.tiny_build).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tatin_jobs.errors import PartMissing
from tatin_jobs.home import Home
from tests.support.disks import small_disk
from tests.support.tiny_build import held_seconds, make_packer
from tests.support.wait import until
from worker.images.build_qemu import STAGES
from worker.images.layers import KEPT_SECONDS
from worker.images.store import find_image

pytestmark = [pytest.mark.needs("image-build"), pytest.mark.needs("root")]
STEPS = ("Debian", *STAGES)
SECONDS = 120.0
CALLER = 65_534
"""nobody."""


class Builder:
    """Builds in a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.packer = make_packer(folder / "packer")
        self._begun: list[subprocess.Popen[str]] = []

    def hold(self, step: str) -> None:
        (self.packer / "stages" / "hold").write_text(f"{step}\n")

    def begin(self, **environment: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.support.tiny_build", str(self.home.root), str(self.packer)]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            argv,
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self._begun.append(process)
        return process

    def wait_held(self) -> None:
        draft = self.home.images / ".building"
        until(lambda: (draft / "held").exists() or (draft / "upper/held").exists(), SECONDS, "the held step")

    def build(self) -> str:
        """What it printed, when it ended with 0."""
        process = self.begin()
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        return said

    def close(self) -> None:
        for process in self._begun:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        until(lambda: not self.left(), what="the end of all steps")

    def left(self) -> list[str]:
        """Processes of a held step, and mounts in the home, of this mount namespace."""
        lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        held = [line for line in lines if f"sleep {held_seconds(self.packer)}" in line]
        return held + [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.home.root) in line
        ]


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    made = Builder(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("step", ["programs", "Debian", "base-system", "agent-tools", "finalize", "smoke test"])
def test_a_build_that_is_cut_off_is_gone_on_with(builder: Builder, step: str, number: signal.Signals) -> None:
    builder.hold(step)
    process = builder.begin()
    builder.wait_held()
    process.send_signal(number)
    said, _ = process.communicate(timeout=SECONDS)
    until(lambda: not builder.left(), what="the end of the step")
    with pytest.raises(PartMissing, match="no image 'tatin'"):
        find_image(builder.home, "tatin")
    if number is signal.SIGINT:
        assert ("not done: what is finished is kept" in said) == (step != "programs"), "then there is nothing yet"
        assert {path.name for path in builder.home.images.iterdir()} == {".lock", ".layers"}

    builder.hold("nothing")
    said = builder.build()
    done = {"programs": 0, "smoke test": len(STEPS)}.get(step, STEPS.index(step) if step in STEPS else 0)
    kept = [line.split()[1] for line in said.splitlines() if "kept from a build" in line]
    assert kept == list(STEPS[:done])
    assert said.split()[-len(STAGES) :] == list(STAGES), "each stage has run once in what came out"
    assert {path.name for path in builder.home.images.iterdir()} == {".lock", "tatin"}
    assert len(os.listdir(builder.home.images / "tatin")) == 2, "the image and the link to it"
    assert not builder.left()


def test_where_no_overlay_can_be_mounted_each_layer_is_a_whole_copy(builder: Builder) -> None:
    (builder.packer / "copy").touch()
    builder.hold("agent-tools")
    process = builder.begin()
    builder.wait_held()
    process.kill()
    process.wait()
    builder.hold("nothing")
    said = builder.build()
    kept = [line.split()[1] for line in said.splitlines() if "kept from a build" in line]
    assert kept == list(STEPS[: STEPS.index("agent-tools")])
    assert said.split()[-len(STAGES) :] == list(STAGES)


def test_two_builds_of_the_same_sources_say_the_same_of_themselves(builder: Builder) -> None:
    said = []
    for _ in range(2):
        builder.build()
        image = find_image(builder.home, "tatin")
        said.append(
            (image.note.model_dump(exclude={"built_at", "digest"}), (image.folder / "packages.txt").read_text())
        )
        (builder.packer / "again").touch()
    assert said[0] == said[1]


def test_a_second_build_waits_and_goes_on_where_the_first_was_killed(builder: Builder) -> None:
    builder.hold("languages")
    first = builder.begin()
    builder.wait_held()
    second = builder.begin()
    assert second.stdout is not None
    assert second.stdout.readline().strip() == "another build is under way; waiting for it"
    builder.hold("nothing")
    first.kill()
    said, _ = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, said
    assert "✓ base-system (kept from a build that was not done)" in said
    assert "✓ languages (" in said


def test_what_was_finished_more_than_a_day_ago_is_made_anew(builder: Builder) -> None:
    builder.hold("languages")
    process = builder.begin()
    builder.wait_held()
    process.kill()
    process.wait()
    day_before = time.time() - KEPT_SECONDS - 60
    for layer in (builder.home.images / ".layers").iterdir():
        os.utime(layer, (day_before, day_before))
    builder.hold("nothing")
    assert "kept from a build" not in builder.build()


def test_a_changed_stage_is_made_anew_with_all_that_follow(builder: Builder) -> None:
    builder.hold("finalize")
    process = builder.begin()
    builder.wait_held()
    process.kill()
    process.communicate()
    with (builder.packer / "stages/bun.sh").open("a") as script:
        script.write("echo changed >>/log\n")
    builder.hold("nothing")
    said = builder.build()
    kept = [line.split()[1] for line in said.splitlines() if "kept from a build" in line]
    assert kept == ["Debian", "base-system", "create-agent-user", "languages"]
    assert "changed" in said


@pytest.mark.parametrize("what", ["a stage fails", "it fails its smoke test"])
def test_a_failure_keeps_the_old_image_and_says_what_was_printed(builder: Builder, what: str) -> None:
    builder.build()
    old = find_image(builder.home, "tatin")
    (builder.packer / "again").touch()
    if what == "a stage fails":
        (builder.packer / "stages/bun.sh").write_text("echo no such thing; exit 7\n")
        words = ["Building the image failed in 'bun' (exit status 7).", "no such thing"]
    else:
        builder.hold("broken")
        words = ["The new image 'tatin' failed its smoke test", "It is broken.", "by the test"]
    process = builder.begin()
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert all(word in said for word in words), said
    assert find_image(builder.home, "tatin").note == old.note
    assert os.listdir(builder.home.images / "tatin") in (
        ["current", old.folder.name],
        [old.folder.name, "current"],
    )
    assert not (builder.home.images / ".building").exists()
    assert (builder.home.images / ".layers").exists() == (what == "a stage fails")
    assert ("what is finished is kept" in said) == (what == "a stage fails")


def test_a_disk_that_is_full_ends_the_build_and_leaves_no_draft(builder: Builder) -> None:
    builder.home.root.mkdir(mode=0o700)
    with (builder.packer / "stages/bun.sh").open("a") as script:
        script.write("cat /dev/zero >/large\n")
    with small_disk(builder.home.root, 64 * 1024):
        process = builder.begin()
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 1
        assert "Building the image failed in 'bun'" in said
        assert "home/images/.building' is full" in said
        assert {path.name for path in builder.home.images.iterdir()} == {".lock", ".layers"}


@pytest.mark.parametrize("there", [False, True])
def test_an_image_that_is_built_with_sudo_is_its_callers(there: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="tatin-sudo-") as folder:
        os.chmod(folder, 0o711)
        caller = Path(folder, "caller")
        caller.mkdir()
        os.chown(caller, CALLER, CALLER)
        builder = Builder(caller)
        if there:
            builder.home.root.mkdir(mode=0o700)
            os.chown(builder.home.root, CALLER, CALLER)
        process = builder.begin(SUDO_UID=str(CALLER), SUDO_GID=str(CALLER))
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        image = find_image(builder.home, "tatin")
        files = [image.folder, *image.folder.iterdir(), image.folder.parent, builder.home.images, builder.home.root]
        assert {path.stat().st_uid for path in files} == {CALLER}
        builder.close()
