"""Run by root in a machine that was copied or resumed, before anything else of a job: what no two machines may share.

Standard library only. Reads one JSON from stdin: ``time`` (seconds since 1970), ``entropy`` (hex), ``host_key`` (an
OpenSSH private key), ``authorized_key`` (a public one that may log in; empty: those that are there), ``name``, ``grow``
(whether the disk is larger now). Prints the moment of the hand-over, in clock
ticks since boot: what runs then is the machine's own, what starts later is the job's (``kill_all.py``).
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


def main():
    told = json.load(sys.stdin)
    time.clock_settime(time.CLOCK_REALTIME, told["time"])
    reseed(bytes.fromhex(told["entropy"]))
    write("/etc/machine-id", os.urandom(16).hex() + "\n", 0o444)
    socket.sethostname(told["name"])
    for name in os.listdir("/etc/ssh"):
        if name.startswith("ssh_host_") and name != os.path.basename(HOST_KEY):
            os.unlink(os.path.join("/etc/ssh", name))
    write(HOST_KEY, told["host_key"], 0o600)
    if told["authorized_key"]:
        write("/etc/tatin/authorized_keys/agent", told["authorized_key"] + "\n", 0o644)
    os.makedirs("/run/tatin", exist_ok=True)
    shutil.chown("/run/tatin", "agent", "agent")
    if told["grow"]:
        subprocess.run(["resize2fs", "/dev/vda"], check=True, capture_output=True)
    restart_sshd()
    print(int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")))


def restart_sshd():
    """With the new key. A machine that has booted without any could not start it."""
    try:
        with open("/run/sshd.pid") as file:
            os.kill(int(file.read()), signal.SIGHUP)
    except OSError:
        subprocess.run(["systemctl", "reset-failed", "ssh"], check=False)
        subprocess.run(["systemctl", "restart", "ssh"], check=True)


def reseed(entropy):
    """New randomness into the kernel's pool, and every generator drawn from it anew."""
    fd = os.open("/dev/urandom", os.O_WRONLY)
    fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
    fcntl.ioctl(fd, RNDRESEEDCRNG)
    os.close(fd)


def write(path, text, mode):
    """Whole or not at all."""
    draft = path + ".draft"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.chmod(draft, mode)
    os.rename(draft, path)


main()
