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
    handed_over = int(arguments[0])
    kept = lineage(os.getpid())
    for pid in carriers(kept):
        kept |= lineage(pid)
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


def lineage(pid):
    """This process and those that it came from."""
    found = set()
    while pid > 0:
        found.add(pid)
        fields = stat(pid)
        pid = int(fields[1]) if fields else 0
    return found


def carriers(family):
    """Who holds the other end of a connection of this family's. Where a machine is reached by another channel than its
    network, that is a program in it which passes the connection on; else the other end is outside."""
    ends = dict(connections())
    held = set().union(*map(sockets, family))
    wanted = {ends.get((there, here)) for (here, there), inode in ends.items() if inode in held} - {None}
    return {pid for pid, _ in living() if wanted & sockets(pid)} if wanted else set()


def connections():
    """((this end's address, the other's), its inode) of each TCP connection of the machine's."""
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            yield (fields[1], fields[2]), fields[9]


def sockets(pid):
    """The inodes of the sockets that it has open; none of a process that has ended."""
    found, folder = set(), f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in names:
        try:
            kind, _, inode = os.readlink(f"{folder}/{name}").partition(":")
        except OSError:
            continue  # it was closed meanwhile
        if kind == "socket":
            found.add(inode[1:-1])
    return found


def stat(pid):
    """The fields of /proc/PID/stat after the program's name; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


main(sys.argv[1:])
