"""Patch, artifacts and transcript out of a guest. No host program ever runs on what comes (A24); the unpacker is ours.

snapshot(sandbox, spec)          git in the guest makes the patch, once the agent is dead
collect(sandbox, spec, folder)   everything that is kept, streamed out and unpacked by a limited child
"""

from worker.collect.pull import collect
from worker.collect.snapshot import snapshot
from worker.collect.spec import Artifact, Collected, CollectSpec, Snapshot
from worker.collect.unpackers import Unpackers
from worker.unpacker.layout import CollectLimits

__all__ = [
    "Artifact",
    "CollectLimits",
    "CollectSpec",
    "Collected",
    "Snapshot",
    "Unpackers",
    "collect",
    "snapshot",
]
