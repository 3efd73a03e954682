"""Job records, leases, events and live logs in Redis or Valkey: each move one Lua script that checks all, then writes.

Messages and records are JSON, never pickle. All keys are described in ``keys.py``.
"""

from tatin_jobs.store.leasing import BeatAnswer, Booked, Standing
from tatin_jobs.store.opening import open_store
from tatin_jobs.store.scripts import connect
from tatin_jobs.store.store import Store

__all__ = ["BeatAnswer", "Booked", "Standing", "Store", "connect", "open_store"]
