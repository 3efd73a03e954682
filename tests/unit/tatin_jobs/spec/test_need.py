"""What a job takes from a host."""

from __future__ import annotations

from tatin_jobs.spec import need_of
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder


def test_what_is_left_out_is_a_wish_for_the_settings_default(jobs: JobFolder) -> None:
    (job,) = jobs.read(jobs.write(MINIMAL))
    need = job.need
    assert (need.cpus, need.memory_mib, need.disk_mib) == (3, 300, 20_000)
    assert (need.cpus_wish, need.memory_wish, need.disk_wish) == (True, True, True)
    assert need.tags == ()


def test_what_is_written_is_a_need(jobs: JobFolder) -> None:
    need = need_of(jobs.field("resources: {cpus: 2, disk: 1GiB}"), jobs.settings)
    assert (need.cpus, need.memory_mib, need.disk_mib) == (2, 300, 1024)
    assert (need.cpus_wish, need.memory_wish, need.disk_wish) == (False, True, False)


def test_tags_are_sorted_and_hold_what_the_worker_must_be(jobs: JobFolder) -> None:
    spec = jobs.field("requires: {os: linux, arch: arm64, tags: [xcode, big]}\nsandbox: bwrap")
    assert need_of(spec, jobs.settings).tags == ("arch:arm64", "big", "os:linux", "sandbox:bwrap", "xcode")
