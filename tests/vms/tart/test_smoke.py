"""The smoke test of images, as a build of Tart's has it ask (``build_tart`` and QEMU's have one)."""

from tests.vms.test_smoke import test_the_image_that_the_build_made_passes

__all__ = ["test_the_image_that_the_build_made_passes"]
