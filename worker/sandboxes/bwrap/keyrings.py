"""Keeps the kernel's keyrings away from guests. They are in no namespace: a guest would have those of whoever started
the worker (tickets of Kerberos, say), and guests of one user would share theirs, beyond the end of a sandbox.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator

NATIVE = 0xC000003E if os.uname().machine == "x86_64" else 0xC00000B7
CALLS = {
    0xC000003E: (248, 249, 250),  # x86-64
    0x40000003: (286, 287, 288),  # i386
    0xC00000B7: (217, 218, 219),  # arm64
    0x40000028: (309, 310, 311),  # arm
}
"""Of each way to call the kernel: add_key, request_key, keyctl."""
X32 = 0x40000000
"""The bit of x86-64's third way, which has the numbers of the first."""
KEYCTL_JOIN_SESSION_KEYRING = 1
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LOAD, AND, EQUALS, RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def _steps() -> Iterator[tuple[int, int, int, int]]:
    """Of the filter (BPF): code, steps to leave out when it is so and when not, number."""
    yield LOAD, 0, 0, ARCHITECTURE_AT
    for architecture, calls in CALLS.items():
        yield EQUALS, 0, len(calls) + 4, architecture
        yield LOAD, 0, 0, NUMBER_AT
        yield AND, 0, 0, ~X32 & 0xFFFFFFFF
        for at, call in enumerate(calls):
            yield EQUALS, len(calls) - at, 0, call
        yield RETURN, 0, 0, ALLOW
        yield RETURN, 0, 0, REFUSE
    yield RETURN, 0, 0, ALLOW


_STEPS = b"".join(
    code.to_bytes(2, sys.byteorder) + bytes((if_so, if_not)) + number.to_bytes(4, sys.byteorder)
    for code, if_so, if_not, number in _steps()
)


def leave(libc: ctypes.CDLL) -> None:
    """Take a new and empty one in the place of that which this process was started with. A kernel may have none."""
    if libc.syscall(CALLS[NATIVE][-1], KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EPERM):  # EPERM: a container's filter, which holds for guests too
            raise OSError(number, f"keyctl: {os.strerror(number)}")


def refuse(libc: ctypes.CDLL) -> None:
    """No call of theirs from here on, for this process, which must be one that gains no rights, and all it starts."""
    program = _Program(len(_STEPS) // 8, _STEPS)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
