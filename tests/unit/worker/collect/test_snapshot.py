"""The report of ``snapshot.sh``, which is the guest's word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.collect import CollectLimits, Snapshot
from worker.collect.snapshot import read_report, read_whole

LIMITS = CollectLimits(patch_bytes=1000)


def test_figures_are_read() -> None:
    report = {b"stat": [b" 3 files changed, 10 insertions(+), 1 deletion(-)"], b"patch": [b"400"], b"commits": [b"2"]}
    found = read_report(report, LIMITS)
    assert found == Snapshot(files_changed=3, lines_added=10, lines_removed=1, commits=2, patch_bytes=400)
    assert found.changed


def test_nothing_changed_is_no_change() -> None:
    assert not read_report({b"stat": [b""], b"patch": [b"0"], b"commits": [b"0"]}, LIMITS).changed


def test_a_change_that_cannot_be_told_counts_as_one() -> None:
    found = read_report({b"lost": [b"the repository's .git was removed or replaced"]}, LIMITS)
    assert found.patch_missing == "There is no patch: the repository's .git was removed or replaced."
    assert found.changed


def test_a_long_patch_names_the_largest() -> None:
    report = {b"patch": [b"2000"], b"largest": [b"1500000 big\x1b[31m.bin", b"rubbish"]}
    found = read_report(report, LIMITS)
    assert found.patch_missing
    assert "big" in found.patch_missing
    assert "\x1b" not in found.patch_missing


def test_figures_stand_before_a_patch_that_comes_at_once() -> None:
    found = read_whole(b" 1 file changed, 2 deletions(-)\n\ndiff --git a/x b/x\n\n+\n")
    patch = b"diff --git a/x b/x\n\n+\n"
    assert found == Snapshot(files_changed=1, lines_removed=2, patch_bytes=len(patch), patch=patch)
    assert not read_whole(b"").changed
    assert read_whole(b"").patch == b""


@given(st.binary())
def test_no_patch_makes_it_fail(text: bytes) -> None:
    assert read_whole(text).patch is not None


@given(st.dictionaries(st.sampled_from([b"stat", b"patch", b"commits", b"lost", b"left_out", b"largest"]),
       st.lists(st.binary(), min_size=1)))  # fmt: skip
def test_no_report_makes_it_fail(report: dict[bytes, list[bytes]]) -> None:
    found = read_report(report, LIMITS)
    assert found.files_changed >= 0
    assert all(text.isprintable() for text in (found.patch_missing or "", *found.left_out))
