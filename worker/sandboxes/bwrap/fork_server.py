"""Forks a warden for each guest: ``main(FD)`` reads one packet for each from the socket FD, with the descriptors of the
guest's own socket and of the user namespace, if one was prepared.

A Python takes 9 ms of processor time to start and to import what a warden needs, a fork of this one half of one. It is
started with nothing in its environment but a PATH and is told nothing, so no fork of it holds what belongs to another.
It ends with its socket. Nobody waits for a warden: the warden's own socket tells of its end.
"""

import ctypes
import gc
import os
import signal
import socket

import keyrings  # type: ignore[import-not-found]  # these lie beside this file
import packets  # type: ignore[import-not-found]
import warden  # type: ignore[import-not-found]

FAULT = 70


def main(fd):
    keyrings.leave(ctypes.CDLL(None, use_errno=True))
    if os.fork():
        return  # whoever started us waits no longer
    server = socket.socket(fileno=fd)
    server.set_inheritable(False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    room = bytearray(16)
    gc.freeze()  # a collection in a fork would copy all of these pages
    while True:
        data, fds = packets.receive(server, room)
        if not data:
            return
        control, userns = (*fds, None)[:2]
        try:
            child = os.fork()
        except OSError as error:
            os.write(control, b"0 %d" % -error.errno)
            child = -1
        if child == 0:
            server.close()
            os._exit(_warden(control, userns))
        for fd in fds:
            os.close(fd)


def _warden(control, userns):
    """Be the warden; the exit status."""
    os.setsid()
    try:
        warden.main(socket.socket(fileno=control), userns)
    except BaseException as error:
        os.write(2, f"tatin: {error!r}\n".encode())  # nothing is imported any more: it would come out of the guest
        return FAULT
    return 0
