"""What a remote offers (``git ls-remote``), and which commit and branch a job's ``ref`` means in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tatin_jobs.barerepo import FULL_COMMIT, near
from tatin_jobs.errors import RepositoryError
from tatin_jobs.repoaddress import Address, without_credentials

_LINE = re.compile(r"(?:ref: (?P<target>\S+)|(?P<commit>[0-9a-f]{40}(?:[0-9a-f]{24})?))\t(?P<name>.+)")


@dataclass(frozen=True)
class RefListing:
    """The refs of a remote: full name -> object id, tags already followed to what they name."""

    refs: dict[str, str]
    head_branch: str | None

    def resolve(self, address: Address, ref: str | None) -> str:
        """The commit that ``ref`` (None: the default branch) means now.

        Raises:
            RepositoryError: the repository is empty or has no such ref; names the near ones.
        """
        if ref is not None and FULL_COMMIT.fullmatch(ref):
            return ref
        if not self.refs:
            raise RepositoryError(f"The repository '{address.url}' is empty.", try_="push a commit to it first.")
        for name in _candidates(ref):
            if commit := self.refs.get(name):
                return commit
        short = sorted({_short(name) for name in self.refs if name.startswith(("refs/heads/", "refs/tags/"))})
        if ref is None:
            raise RepositoryError(
                f"The repository '{address.url}' has no default branch.",
                try_=f"set `ref` in the job's repo to one of: {', '.join(short[:5])}.",
            )
        hint = "write all 40 digits of a commit id, or " if re.fullmatch(r"[0-9a-f]{4,39}", ref) else ""
        close = near(ref, short)
        one_of = f"one of: {', '.join(close)}." if close else f"`git ls-remote {address.url}` lists what it has."
        raise RepositoryError(
            f"The repository '{address.url}' has no ref '{without_credentials(ref)[:200]}'.", try_=hint + one_of
        )

    def branch(self, ref: str | None) -> str | None:
        """The branch that ``ref`` names; None when it names something else."""
        if ref is None or ref == "HEAD":
            return self.head_branch
        name = ref.removeprefix("refs/heads/")
        return name if f"refs/heads/{name}" in self.refs else None


def parse_listing(text: str) -> RefListing:
    """Read the output of ``git ls-remote --symref``; lines that are none of ours are passed over."""
    refs: dict[str, str] = {}
    head_branch = None
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        if match["target"]:
            if match["name"] == "HEAD":
                head_branch = match["target"].removeprefix("refs/heads/")
        else:
            refs[match["name"].removesuffix("^{}")] = match["commit"]  # the peeled line follows the tag's own
    return RefListing(refs, head_branch)


def _candidates(ref: str | None) -> tuple[str, ...]:
    return ("HEAD",) if ref is None else (ref, f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}")


def _short(name: str) -> str:
    return name.removeprefix("refs/heads/").removeprefix("refs/tags/")
