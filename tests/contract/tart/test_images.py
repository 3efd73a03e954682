"""pull and prune: behaviours 41 to 43."""

from __future__ import annotations

from tests.support.tart import Tart, ended

IMAGE = "example.test/debian:1"


def offer(tart: Tart, **more: float) -> None:
    offered = {"from": str(tart.home / "vms" / "base"), **more}
    tart.dial(registry={IMAGE: offered, "example.test/other:1": offered})


def test_a_local_name_has_nothing_to_pull(tart: Tart) -> None:
    """41"""
    done = tart("pull", "base")
    assert (done.returncode, done.stdout) == (0, '"base" is a local image, nothing to pull here!\n')


def test_pulls_from_one_host_wait_for_each_other(dials: Tart) -> None:
    """41"""
    offer(dials, seconds=1.5)
    first = dials.begin("pull", IMAGE)
    assert first.stdout
    assert first.stdout.readline() == f"pulling {IMAGE}...\n"
    second = dials.begin("pull", "example.test/other:1")
    assert ended(first)[0] == 0
    code, stdout, _ = ended(second)
    assert code == 0
    assert stdout.startswith("waiting for lock...\n")
    assert "pulling NVRAM...\n" in stdout


def test_auto_prune_takes_cached_images_and_never_a_local_vm(dials: Tart) -> None:
    """42"""
    offer(dials)
    dials.good("pull", IMAGE)
    dials.good("set", "base", "--disk-size", "3")
    dials.dial(free_bytes=3 * 10**9 - 8192)
    dials.good("clone", "base", "a")  # the variable is set
    assert dials.rows("--source", "oci")
    dials.good("clone", "base", "b", prune=True)
    assert dials.rows("--source", "oci") == []
    assert {row["Name"] for row in dials.rows()} == {"a", "b", "base"}


def test_auto_prune_takes_nothing_where_all_would_not_do(dials: Tart) -> None:
    """42"""
    offer(dials)
    dials.good("pull", IMAGE)
    dials.dial(free_bytes=0)
    dials.good("clone", "base", "a", prune=True)
    assert dials.rows("--source", "oci")


def test_prune_wants_a_criterion(tart: Tart) -> None:
    """43"""
    done = tart("prune")
    assert done.returncode == 64
    assert "at least one pruning criteria must be specified" in done.stderr


def test_prune_of_vms_deletes_stopped_local_ones(tart: Tart) -> None:
    """43"""
    tart.good("clone", "base", "running")
    tart.run("running")
    tart.good("prune", "--entries", "vms", "--older-than", "0")
    assert [row["Name"] for row in tart.rows()] == ["running"]
