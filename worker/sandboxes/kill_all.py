"""Run by root in a virtual machine: ends every process that was not there when the machine was handed over.

Standard library only; run as ``python3 kill_all.py TICKS``: the moment of the hand-over, in clock ticks since boot, as
``renew.py`` printed it. What started before is the machine's own and stays; so do the kernel's own threads and the
connection that this very program came by. It refuses to run where Tatin's image is not: on a host it would end
everything.
"""

import os
import signal
import sys
import time

IMAGE = "/opt/tatin/image.json"
TRIES = 500
KERNEL_THREAD = 0x00200000


def main(arguments):
    if os.getuid() != 0 or not os.path.exists(IMAGE):
        sys.exit("this is no machine of Tatin's, or not its root")
    kept, handed_over = lineage(), int(arguments[0])
    for _ in range(TRIES):
        doomed = [pid for pid, start in living() if pid not in kept and start > handed_over]
        if not doomed:
            return
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    sys.exit("some processes do not die")


def living():
    """Each program's pid and start time, in ticks since boot."""
    for name in os.listdir("/proc"):
        fields = stat(name) if name.isdigit() else None
        if fields and fields[0] not in "ZX" and not int(fields[6]) & KERNEL_THREAD:
            yield int(name), int(fields[19])


def lineage():
    """This process and those that it came from."""
    found, pid = set(), os.getpid()
    while pid > 0:
        found.add(pid)
        fields = stat(pid)
        pid = int(fields[1]) if fields else 0
    return found


def stat(pid):
    """The fields of /proc/PID/stat after the program's name; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


main(sys.argv[1:])
