"""What a test can turn: ``<TART_HOME>/standin.json``, read anew by each command. Without the file: a Tart that works.

    guest           {"argv": [...], "exec": [...], "power_button": [...]}: the program that is the guest, the one that
                    stands for its guest agent, and the one that presses its power button. {disk} {name} {address}
                    {cpus} {memory_mib} {mac} {folder} are filled in; in ``argv`` also {network}, nat or softnet; in
                    ``exec`` {command}, one line for a shell; in ``power_button`` {guest}, the pid of ``argv``.
                    Without it a guest is what ``guests.py`` says.
    lease_after     seconds from the start of a guest to its address (0.1)
    guest_after     seconds from there until its program starts, so until port 22 can answer (0); a real guest takes
                    some more of its own
    lease_seconds   how long an address is kept (86400)
    pool            how many addresses there are (250)
    no_lease        the guest never gets an address
    addresses       {name: address}: what ``ip`` answers, whatever is true
    start_error     ``run`` ends with this text and 1, after the lock was held for a moment
    dies_after      seconds after which the guest stops with an error (the process still exits with 0)
    powers_off_after    seconds after which the guest powers off
    ignores_acpi    the guest does not obey the power button
    stop_ignored    ``run`` does not hear SIGINT, so that ``stop`` takes its whole time limit
    helper_survives a process that holds disk.img open outlives ``run``
    vm_limit, max_cpus, max_memory_mib      what ``run`` refuses
    agent           false: no guest agent
    agent_seconds   how long ``exec`` tries before it says so (10)
    clone_hangs     seconds for which ``clone`` waits for the global lock
    clone_fails     ``clone`` ends with this text and 1, having made half a clone
    refuse_existing ``clone`` refuses a name that is taken (PR #1331)
    delete_fails    how many times ``delete`` says that the VM is running
    list_fails      how many times ``list`` fails
    list_prints     what ``list`` prints instead
    list_hangs      seconds
    gc_fails        every command says that its garbage collection failed, and goes on
    registry        {reference: {"from": folder of a VM, "seconds": 0, "status": 200}}
    free_bytes      free space that auto-pruning sees

A counter (``delete_fails``, ``list_fails``) goes down with each use, in ``standin-counts.json``.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any


class Dials:
    """The dials of one home."""

    def __init__(self, home: Path) -> None:
        self._counts = home / "standin-counts.json"
        try:
            self._values: dict[str, Any] = json.loads((home / "standin.json").read_text())
        except FileNotFoundError:
            self._values = {}

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def seconds(self, name: str, default: float = 0.0) -> float:
        return float(self._values.get(name, default))

    def used_up(self, name: str) -> bool:
        """Take one from a counter; False as long as it had one to give."""
        with self._counts.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            used: dict[str, int] = json.loads(file.read() or "{}")
            if used.get(name, 0) >= int(self._values.get(name, 0)):
                return True
            used[name] = used.get(name, 0) + 1
            file.truncate(0)
            file.write(json.dumps(used))
        return False
