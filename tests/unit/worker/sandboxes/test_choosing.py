"""Which kind of sandbox a worker gets, and what it is told where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tatin_jobs.errors import BadInput, PartMissing
from tatin_jobs.home import Home
from tatin_jobs.settings import load_settings
from worker.sandboxes import choose_provider
from worker.sandboxes.tart.provider import TartProvider


def test_a_kind_without_its_image_says_so_in_one_sentence_and_what_to_do(tmp_path: Path) -> None:
    settings = load_settings({"TATIN_HOME": str(tmp_path), "TATIN_SANDBOX": "qemu"})
    with pytest.raises(PartMissing) as caught:
        choose_provider(settings, Home(tmp_path), "0123abcd")
    assert str(caught.value) == (
        "Sandbox 'qemu' does not work here yet.\n"
        "Seen: qemu image: There is no image 'tatin' on this host\n"
        "Try: sudo -E tatin image build --sandbox qemu"
    )


def test_a_kind_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no sandbox 'docker'"):
        choose_provider(load_settings({"TATIN_HOME": str(tmp_path)}), Home(tmp_path), "0123abcd", "docker")


def test_how_tart_guests_are_reached_is_a_setting(tmp_path: Path) -> None:
    provider = TartProvider(Home(tmp_path), "0123abcd")
    provider.configure(load_settings({"TATIN_HOME": str(tmp_path)}))
    assert provider.over_network
    provider.configure(load_settings({"TATIN_HOME": str(tmp_path), "TATIN_TART_SSH": "exec"}))
    assert not provider.over_network
