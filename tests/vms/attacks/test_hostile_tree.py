"""The unpacker is the host's; the tar and the file system are the image's, and root makes devices."""

import pytest

from tests.attacks.test_hostile_tree import (  # noqa: F401
    clone,
    test_a02_to_a12_a_hostile_tree_comes_back_as_plain_files_or_not_at_all,
)

pytestmark = pytest.mark.needs("git")
