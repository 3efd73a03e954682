"""The image's own git, under Debian's configuration. Of the plants one of each kind: the rest differ in what git reads,
and not in where it runs."""

import pytest

from tests.attacks.test_planted_git import (
    PLANT,
    clone,  # noqa: F401
    test_a25_a_patch_is_bytes_that_nobody_applied,  # noqa: F401
    try_plant,
)
from tests.support.clones import Clone

pytestmark = [pytest.mark.needs("git"), pytest.mark.longer]
OF_EACH_KIND = ("hooks", "a clean filter", "the user's configuration", "programs on the path", "replaced objects")


@pytest.mark.parametrize("name", OF_EACH_KIND)
async def test_a24_what_is_planted_neither_runs_nor_changes_the_patch(clone: Clone, name: str) -> None:  # noqa: F811
    """A24"""
    await try_plant(clone, PLANT[name])
