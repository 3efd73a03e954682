"""The parts of an image: those that may be missing, what each is asked, and what their builds are keyed by."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput, PartMissing, TatinError
from tests.support.tiny_build import make_packer
from worker.images import build_qemu, parts
from worker.images.build_qemu import STAGES, stage_keys
from worker.images.parts import asked_tools, fetch_part, gather, wanted_parts
from worker.images.wish import BuildWish

OPTIONAL = BuildWish(without=("bun",), if_reachable=("crush", "bd"))
PROMISED = (
    *("curl", "git", "htop", "jq", "tmux", "tree", "unzip", "vim", "wget", "zsh", "gcc", "make"),
    *("mise", "bun", "go", "python3", "node", "ruby", "rustc"),
    *("claude", "opencode", "pi", "crush", "bd", "qmd"),
)


def test_a_part_that_may_be_missing_and_cannot_be_had_is_left_out_and_said() -> None:
    def take(name: str) -> None:
        if name == "crush":
            raise PartMissing("The part 'crush' could not be downloaded.", seen="no route")

    lines: list[str] = []
    gathered = gather(OPTIONAL, "linux-x64", take, lines.append)
    assert set(wanted_parts(OPTIONAL)) - set(gathered.parts) == {"crush"}
    assert gathered.remarks == {
        "bun": "left out by --without",
        "crush": "not verified here, since it could not be downloaded: no route",
        "bd": "taken as it came: no hash of it is pinned",
    }
    assert lines == ["✗ crush is left out: The part 'crush' could not be downloaded. no route"]


def test_every_other_part_that_cannot_be_had_stops_the_build() -> None:
    def take(name: str) -> None:
        raise PartMissing(f"The part '{name}' could not be downloaded.")

    with pytest.raises(PartMissing, match="build-essential"):
        gather(OPTIONAL, "linux-x64", take, print)
    with pytest.raises(BadInput, match="'node' is not one that may be missing"):
        wanted_parts(BuildWish(if_reachable=("node",)))


def test_all_that_is_promised_is_asked_and_each_part_answers_for_itself() -> None:
    everything = wanted_parts(BuildWish())
    tools = asked_tools(everything)
    assert set(PROMISED) <= {tool.name for tool in tools}
    assert {tool.part for tool in tools} == {*everything, parts.SYSTEM}
    assert {tool.part for tool in asked_tools(("python",))} == {"python", parts.SYSTEM}


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _pack(folder: Path, name: str) -> None:
    with tarfile.open(folder / "bd.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo(f"release/{name}")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"hi"))


def _pinned(monkeypatch: pytest.MonkeyPatch, url: str, **pin: str) -> None:
    listed = {"archives": {"bd": {"version": "1.0", "linux-x64": {"url": url, **pin}}}}
    monkeypatch.setattr(parts, "_parts", lambda: listed)


def test_a_release_is_fetched_and_compared_with_its_pin(
    releases: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = releases
    _pack(folder, "bd")
    _pinned(monkeypatch, f"{address}/bd.tar.gz")
    fetch_part("bd", "linux-x64", tmp_path / "one", lambda _line: None)
    assert (tmp_path / "one/bin/bd").read_bytes() == b"hi"
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["bin"]
    _pinned(monkeypatch, f"{address}/bd.tar.gz", sha256="0" * 64)
    with pytest.raises(TatinError, match="not what is pinned"):
        fetch_part("bd", "linux-x64", tmp_path / "two", lambda _line: None)
    _pinned(monkeypatch, f"{address}/gone.tar.gz")
    with pytest.raises(PartMissing, match="could not be downloaded") as caught:
        fetch_part("bd", "linux-x64", tmp_path / "three", lambda _line: None)
    assert "404" in (caught.value.seen or "")
    assert "--if-reachable bd" in (caught.value.try_ or "")
    assert not (tmp_path / "three").exists()


@pytest.fixture
def packer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_packer(tmp_path / "packer")
    monkeypatch.setattr(build_qemu, "packer_folder", lambda: folder)
    monkeypatch.setattr(parts, "packer_folder", lambda: folder)
    return folder


def _keys(**more: object) -> dict[str, str]:
    wish = BuildWish()
    return dict(stage_keys(wish, wanted_parts(wish), {}, **more))  # type: ignore[arg-type]


def test_the_same_sources_have_the_same_keys_wherever_they_lie(
    packer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _keys()
    other = tmp_path / "elsewhere"
    shutil.copytree(packer, other)
    monkeypatch.setattr(build_qemu, "packer_folder", lambda: other)
    assert _keys() == before
    assert len(set(before.values())) == len(STAGES) + 1


@pytest.mark.parametrize(
    ("file", "old", "new", "first"),
    [
        ("stages/lib.sh", "set -eu", "set -eux", "base-system"),
        ("stages/languages.sh", "set -eu", "set -eux", "languages"),
        ("parts.toml", 'version = "2026.9.15"', 'version = "2026.9.16"', "languages"),
        ("parts.toml", 'version = "1.4.4"', 'version = "1.4.5"', "bun"),
        ("parts.toml", 'version = "0.96.1"', 'version = "0.96.2"', "agent-tools"),
        ("qmd/package.json", "{", "{ ", "agent-tools"),
        ("stages/tools.txt", "jq --version", "jq -V", "finalize"),
        ("parts.toml", 'debian = "trixie"', 'debian = "forky"', "Debian"),
    ],
)
def test_a_change_makes_its_step_and_all_later_ones_anew(
    packer: Path, file: str, old: str, new: str, first: str
) -> None:
    before = _keys()
    text = (packer / file).read_text()
    assert old in text
    (packer / file).write_text(text.replace(old, new, 1))
    after = _keys()
    steps = list(before)
    assert [step for step in steps if after[step] != before[step]] == steps[steps.index(first) :]


def test_certificates_and_the_kind_of_layers_count(packer: Path) -> None:
    wish = BuildWish()
    with_one = stage_keys(wish, wanted_parts(wish), {"ca.pem": b"x"})
    assert with_one["Debian"] == _keys()["Debian"]
    assert with_one["base-system"] != _keys()["base-system"]
    assert not set(_keys(kind="copy").values()) & set(_keys(kind="overlay").values())


def test_packer_runs_the_same_stages_in_the_same_order() -> None:
    template = (Path(parts.__file__).parents[2] / "packer/tart.pkr.hcl").read_text()
    ours = " ".join(STAGES).replace("qemu-machine", "tart-machine")
    assert f"for stage in {ours}; do" in template
