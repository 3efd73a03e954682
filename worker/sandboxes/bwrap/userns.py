"""The user namespace of a root worker's guests.

bwrap makes a user namespace by itself, but one that maps the guest to the caller: for root, the guest's files and
kernel identity would be root's. So a root worker prepares one in which the guest's user is an identity of no account
(host uid 601000), which cannot make further user namespaces, and hands it to bwrap; the warden becomes that user. The
guest's first process stays root of it, with the right to kill and no other. Tried with bubblewrap 0.8.0 on Linux 6.18.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tatin_jobs.errors import SandboxError
from worker.sandboxes.bwrap.cli import GUEST_UID

HOST_BASE = 600_000
"""The guest's uid n is the host's HOST_BASE + n; far above what accounts and subuid ranges use."""
_HOLD = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000):
    sys.exit("unshare: errno %d" % ctypes.get_errno())
print("unshared", flush=True)
sys.stdin.readline()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
print("limited", flush=True)
sys.stdin.readline()
"""


def guest_host_uid() -> int | None:
    """The host's uid of the guest's user when the worker is root; None when it is the worker's own."""
    return HOST_BASE + GUEST_UID if os.geteuid() == 0 else None


def prepare_userns() -> int | None:
    """A descriptor of the prepared namespace; None when the worker is not root and bwrap makes its own.

    Raises:
        SandboxError: the kernel refuses.
    """
    if os.geteuid() != 0:
        return None
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as holder:
        assert holder.stdin
        try:
            _expect(holder, b"unshared")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{holder.pid}/{name}").write_text(f"0 0 1\n1 {HOST_BASE + 1} 65534\n")
            holder.stdin.write(b"\n")
            holder.stdin.flush()
            _expect(holder, b"limited")
            return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxError("No user namespace can be made for guests.", seen=str(error)) from error
        finally:
            holder.kill()


def _expect(holder: subprocess.Popen[bytes], word: bytes) -> None:
    """Raises OSError with the holder's own words when it says anything else."""
    assert holder.stdout
    assert holder.stderr
    if holder.stdout.readline().strip() != word:
        raise OSError(holder.stderr.read(300).decode(errors="replace"))
