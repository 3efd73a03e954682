"""The listing of a remote, and which commit a ref means in it."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import Address
from worker.repository.refs import RefListing, parse_listing

ADDRESS = Address("https://example.com/x", "https", "example.com", 443)
A, B, C = "a" * 40, "b" * 40, "c" * 40
LISTING = f"""ref: refs/heads/main\tHEAD
{A}\tHEAD
{A}\trefs/heads/main
{B}\trefs/heads/feature/one
{B}\trefs/pull/7/head
{B}\trefs/tags/v1
{C}\trefs/tags/v1^{{}}
warning: something else
"""


@pytest.mark.parametrize(
    ("ref", "commit", "branch"),
    [
        (None, A, "main"),
        ("HEAD", A, "main"),
        ("main", A, "main"),
        ("feature/one", B, "feature/one"),
        ("refs/heads/feature/one", B, "feature/one"),
        ("v1", C, None),
        ("refs/pull/7/head", B, None),
        ("pull/7/head", B, None),
        ("d" * 40, "d" * 40, None),
        ("d" * 64, "d" * 64, None),
    ],
)
def test_a_ref_means_one_commit(ref: str | None, commit: str, branch: str | None) -> None:
    listing = parse_listing(LISTING)
    assert listing.resolve(ADDRESS, ref) == commit
    assert listing.branch(ref) == branch


def test_a_repository_without_a_default_branch_names_others() -> None:
    with pytest.raises(RepositoryError, match="no default branch") as caught:
        parse_listing(f"{A}\trefs/heads/main\n").resolve(ADDRESS, None)
    assert "main" in (caught.value.try_ or "")


def test_an_empty_repository_says_so() -> None:
    with pytest.raises(RepositoryError, match="is empty"):
        RefListing({}, None).resolve(ADDRESS, "main")
