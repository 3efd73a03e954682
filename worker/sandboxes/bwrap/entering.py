"""Makes a guest with bwrap and enters it, as the warden: limits, bwrap, the guest's namespaces, and no rights left.

bwrap's info says which process is the guest's first (pid 1, a shell: ``cli.FIRST``) and that one says when all is
mounted; then its namespaces are entered at once, by a pidfd (Linux 5.8 or newer).
"""

import _signal  # type: ignore[import-not-found]
import ctypes
import errno
import os
import resource
import sys

import keyrings  # type: ignore[import-not-found]  # it lies beside this file

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ENTERED = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
"""Of process numbers only what is started from then on is in the new namespace."""
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPSET_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("setns", "capset", "prctl"):
    getattr(_libc, _name)  # which keeps it: looked up here, not in each fork


class Made:
    """A guest: ``bwrap``: the process that ends with it; ``tell`` and ``said``: pipes to and from its first process."""

    def __init__(self, bwrap, tell, said):
        self.bwrap = bwrap
        self.tell = tell
        self.said = said


def make(request, userns):
    """The guest, entered for good. ``request``: ``argv`` of bwrap, to which is added what its first process has to
    close; the ``cgroups`` (files to join them by) and the ``limits`` (name -> number) that hold for all of it;
    ``errors``: the file for what bwrap says; ``uid``: the guest's user. ``userns``: descriptor of the user namespace,
    None: bwrap makes its own.

    Raises:
        OSError: it cannot be made; bwrap's own words are in the file.
    """
    errors = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 2)
    os.close(errors)
    for path in request["cgroups"]:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")  # this process
        finally:
            os.close(fd)
    for name, value in request["limits"].items():
        _limit(getattr(resource, name), value)
    made, first = _start(request["argv"], userns)
    _enter(first)
    _drop(request["uid"])
    os.umask(0o022)  # whatever the worker's is
    sys.meta_path.clear()  # what would be imported from now on would come out of the guest
    return made


def _limit(kind, value):
    """At most ``value``, or what the host allows at most."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(kind, (value, value))


def _start(argv, userns):
    """bwrap, with its guest ready, and the number that the guest's first process has out here."""
    info, info_end = os.pipe()
    heard, tell = os.pipe()
    said, say = os.pipe()
    options, passed, leaked = ["--info-fd", str(info_end)], [info_end], []
    if userns is not None:
        options += ["--userns", str(userns)]
        passed.append(userns)
        leaked.append(str(userns))  # bwrap closes the other one
    for fd in passed:
        os.set_inheritable(fd, True)
    bwrap = os.posix_spawn(
        argv[0],
        [argv[0], *options, *argv[1:], *leaked],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, heard, 0), (os.POSIX_SPAWN_DUP2, say, 1)],
        setsigdef=(_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGXFSZ),
    )
    for fd in (*passed, heard, say):
        os.close(fd)
    told = _read_all(info)
    if not os.read(said, 1):
        status = os.waitstatus_to_exitcode(os.waitpid(bwrap, 0)[1])
        raise ChildProcessError(errno.ECHILD, f"bwrap ended with status {status}")
    return Made(bwrap, tell, said), _child(told)


def _read_all(fd):
    """All of a pipe, which is closed."""
    parts = []
    while not parts or parts[-1]:
        parts.append(os.read(fd, 4096))
    os.close(fd)
    return b"".join(parts)


def _child(told):
    """bwrap's info is JSON: ``child-pid`` in front, in newer ones the numbers of namespaces behind. This is all that is
    wanted of it, and a parser would be a twentieth of what a guest costs."""
    return int(told.partition(b'"child-pid":')[2].partition(b",")[0].rstrip(b"}\n "))


def _enter(first):
    """All of the namespaces that the process ``first`` is in. Not every host gives a guest one of cgroups."""
    flags = ENTERED
    if os.readlink(f"/proc/{first}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup"):
        flags |= CLONE_NEWCGROUP
    fd = os.pidfd_open(first)
    try:
        _call("setns", fd, flags)
    finally:
        os.close(fd)


def _drop(uid):
    """Become the guest's user for good: no capability, none to be had, nothing to be traced."""
    capability = 0
    while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if os.getuid() != uid:  # a root worker's: root of the user namespace
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = CAPSET_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    _call("capset", header, bytes(24))
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    keyrings.refuse(_libc)


def _call(name, *arguments):
    """A function of the C library that must succeed."""
    if getattr(_libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
