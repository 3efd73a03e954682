"""What a job takes from a host, of its spec and the settings' defaults."""

from __future__ import annotations

from tatin_jobs.models import JobSpec, Need
from tatin_jobs.settings import Settings


def need_of(spec: JobSpec, settings: Settings) -> Need:
    """The need of ``spec``. What it leaves out is a wish for the settings' default."""
    resources, requires = spec.resources, spec.requires
    tags = set(requires.tags)
    if requires.os:
        tags.add(f"os:{requires.os}")
    if requires.arch:
        tags.add(f"arch:{requires.arch}")
    if spec.sandbox != "auto":
        tags.add(f"sandbox:{spec.sandbox}")
    return Need(
        cpus=resources.cpus or settings.default_cpus,
        memory_mib=resources.memory_mib or settings.default_memory_mib,
        disk_mib=resources.disk_mib or settings.default_disk_mib,
        cpus_wish=resources.cpus is None,
        memory_wish=resources.memory_mib is None,
        disk_wish=resources.disk_mib is None,
        tags=tuple(sorted(tags)),
    )
