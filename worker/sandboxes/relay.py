"""Makes stdin and stdout a connection to a TCP port of the guest's loopback: ``python3 relay.py PORT``, in the guest,
where another channel than its network leads into it. Standard library only, Python 3.9 or newer."""

import os
import socket
import sys
import threading

BLOCK = 65536


def main(port):
    """Returns when the port's side has ended."""
    there = socket.create_connection(("127.0.0.1", port))
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_send, args=(there,), daemon=True).start()
    while data := there.recv(BLOCK):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def _send(there):
    while data := os.read(0, BLOCK):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(int(sys.argv[1]))
