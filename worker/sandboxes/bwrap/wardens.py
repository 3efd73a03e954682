"""The worker's side of the fork server: a warden, for each guest, at the other end of a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path

from tatin_jobs.errors import SandboxError

START_SECONDS = 20.0
_FOLDER = Path(__file__).parent
_PROGRAM = "import sys; sys.path += sys.argv[2:4]; import fork_server; fork_server.main(int(sys.argv[1]))"
"""The folders come last: nothing in them takes the place of a module of the standard library."""


class Wardens:
    """Gives a warden at a time. The fork server is started at the first and again when it is gone, and ends with this.
    ``root``: where the sandboxes lie, for whoever looks at the processes of a host.

    It is no child of ours for long: its first process forks it and ends, so that nobody has to wait for it later.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._server: socket.socket | None = None

    def start(self) -> None:
        """Start the fork server, which takes 30 ms. Raises SandboxError."""
        self._server = _start(self._root)
        weakref.finalize(self, self._server.close)

    def give_up(self) -> None:
        """Let go of a fork server that does not answer; the next warden has another."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def new(self, userns: int | None) -> socket.socket:
        """The socket of a new warden (packets; ``warden.py``), whose guest is made in the user namespace ``userns``.

        Raises:
            SandboxError: there can be none.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._send([theirs.fileno(), *([] if userns is None else [userns])])
        except BaseException:
            ours.close()
            raise
        return ours

    def _send(self, fds: list[int]) -> None:
        for last in (False, True):
            if self._server is None:
                self.start()
            assert self._server
            try:
                socket.send_fds(self._server, [b"warden"], fds)
            except OSError as error:
                self.give_up()
                if last:
                    raise SandboxError("No process can be started for a sandbox.", seen=str(error)) from error
            else:
                return


def _start(root: Path) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = [str(theirs.fileno()), str(_FOLDER), str(_FOLDER.parent), str(root)]
    try:
        with theirs:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PATH": os.defpath, "LD_BIND_NOW": "1"},  # what each fork would have to look up
                start_new_session=True,
                check=True,
                timeout=START_SECONDS,
            )
    except (OSError, subprocess.SubprocessError) as error:
        ours.close()
        raise SandboxError("The fork server of the sandboxes cannot be started.", seen=str(error)) from error
    ours.setblocking(False)  # one that reads no more is as good as gone
    return ours
