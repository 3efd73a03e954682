"""Whose home an image is built into. Building needs root (``sudo -E``); the home, the image in it and the machine that
tries it out are the user's who called ``sudo``, whose worker makes sandboxes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tatin_jobs.home import Home


@dataclass(frozen=True)
class Owner:
    """A user of this host."""

    uid: int
    gid: int

    @property
    def is_me(self) -> bool:
        return self.uid == os.getuid()

    def own(self, folder: Path) -> None:
        """Give ``folder`` to the owner, with all that is in it."""
        if self.is_me:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """What is made here is made as the owner; for no longer than that, and no program is started."""
        if self.is_me:
            yield
            return
        me = os.getuid(), os.getgid()
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(me[0])
            os.setegid(me[1])

    def command(self) -> tuple[str, ...]:
        """Before a command that the owner is to run; it ends with its parent."""
        if self.is_me:
            return ()
        who = ("--reuid", str(self.uid), "--regid", str(self.gid), "--init-groups")
        return ("setpriv", *who, "--pdeathsig", "KILL", "--")


def owner_of(home: Home) -> Owner:
    """The user who called ``sudo``, if the home is theirs or not there yet; else who runs this."""
    me = Owner(os.getuid(), os.getgid())
    caller = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if me.uid != 0 or not all(number.isdigit() for number in caller):
        return me
    sudo = Owner(int(caller[0]), int(caller[1]))
    return me if home.root.exists() and home.root.stat().st_uid != sudo.uid else sudo
