"""A build of Tart's image has a clone of it asked as QEMU's has: a real guest, over SSH."""

from __future__ import annotations

import pytest

from tatin_jobs.models import DEFAULT_IMAGE
from tests.vms.tart.conftest import SIZE, Homes
from worker.images.build_tart import ask_a_clone
from worker.images.parts import asked_tools, wanted_parts
from worker.images.wish import BuildWish

WISH = BuildWish(profile="ci", cpus=SIZE.cpus, memory_mib=SIZE.memory_mib)


@pytest.mark.longer
def test_a_clone_of_the_image_is_asked_and_gone(homes: Homes) -> None:
    parts = wanted_parts(WISH)
    manifest = ask_a_clone(homes.other, DEFAULT_IMAGE, WISH, parts)
    assert [*manifest.tools] == [tool.name for tool in asked_tools(parts)]
    assert list(homes.other.sandboxes.iterdir()) == []
