"""One packet of a Unix socket, with the descriptors that came along."""

import socket
import sys

MOST_FDS = 4
FD_BYTES = 4


def receive(link: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """The packet, of at most ``size`` bytes, and its descriptors, which no program that is started inherits.

    ``socket.recv_fds`` has an argument for that and passes it over (CPython issue 107898).
    """
    room = socket.CMSG_LEN(MOST_FDS * FD_BYTES)
    data, ancillary, _, _ = link.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for at in range(0, len(packed) - FD_BYTES + 1, FD_BYTES):
                fds.append(int.from_bytes(packed[at : at + FD_BYTES], sys.byteorder))
    return data, fds
