"""Packets of a Unix socket between the worker and what it forked: values of Python's own kinds, with descriptors along.

They are packed by marshal, which needs no code of Python's at either end: reading a request as JSON was a seventh of
what a warden does. Both ends are one interpreter, and what the worker reads of a warden is plain numbers.
"""

import marshal
import socket
import sys
from typing import Any

MOST_BYTES = 200_000
"""A unix packet holds no more with the usual settings."""
MOST_FDS = 4
FD_BYTES = 4


def pack(request: dict[str, Any]) -> bytes:
    """A request for ``request_of``: strings, bytes, numbers, None, lists and dicts of such, no kinds made of them."""
    return marshal.dumps(request)


def request_of(data: bytes) -> dict[str, Any]:
    """The request. Of who may ask anything anyway: no end would bear what a stranger made."""
    return dict(marshal.loads(data))


def receive(link: socket.socket, room: bytearray) -> tuple[bytes, list[int]]:
    """The packet, in ``room`` and a copy of it, and its descriptors, which no program that is started inherits.

    ``socket.recv_fds`` has an argument for that and passes it over (CPython issue 107898).
    """
    space = socket.CMSG_LEN(MOST_FDS * FD_BYTES)
    size, ancillary, _, _ = link.recvmsg_into([room], space, socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for at in range(0, len(packed) - FD_BYTES + 1, FD_BYTES):
                fds.append(int.from_bytes(packed[at : at + FD_BYTES], sys.byteorder))
    return bytes(room[:size]), fds
