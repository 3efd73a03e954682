"""The size of a person's machine: what a job would get, and no more than the host gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tatin_jobs.errors import BadInput
from tatin_jobs.settings import Settings
from worker.interactive import size_of


def settings(tmp_path: Path, **more: Any) -> Settings:
    """Of a host that gives 3 CPUs and 4096 MiB."""
    return Settings(home=tmp_path, worker_name="here", cpus=3, memory_mib=4096, **more)


def test_a_small_host_gives_what_it_has(tmp_path: Path) -> None:
    assert size_of(settings(tmp_path), "qemu") == (3, 4096)
    assert size_of(settings(tmp_path, default_cpus=1, default_memory_mib=2048), "qemu") == (1, 2048)


@pytest.mark.parametrize(
    ("wish", "seen", "try_"),
    [
        ({"default_cpus": 4}, "4 CPUs are asked for, and at most 3", "TATIN_CPUS=3"),
        ({"default_memory_mib": 4097}, "4097 MiB of memory are asked for, and at most 4096", "TATIN_MEMORY=4096"),
    ],
)
def test_more_than_the_host_gives_is_refused_with_what_it_gives(
    tmp_path: Path, wish: dict[str, int], seen: str, try_: str
) -> None:
    with pytest.raises(BadInput, match="too small") as caught:
        size_of(settings(tmp_path, **wish), "qemu")
    assert seen in (caught.value.seen or "")
    assert caught.value.try_ == try_
