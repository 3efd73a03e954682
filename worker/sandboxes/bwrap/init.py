"""The first process of a bwrap guest: starts programs, reaps them, opens ports, all asked for over one socket.

``main(UID, FD)``: the guest's user, the number of the socket. It is pid 1 of the guest's pid namespace (nothing in the
guest can kill it) and not dumpable (nothing can trace it), and holds the only descriptor that the worker reads from.
A request is a Python literal, which only the worker can send, with descriptors passed along; an answer is two numbers:

    {op: exec, id, argv, env, cwd} + 3 fds   ->  ID STATUS  when it has ended
    {op: start, id, folder, spec}            ->  ID STATUS  when it runs, watched from here, or could not be started
    {op: launcher, id, args} + 1 fd          ->  ID STATUS  when all of what the launcher prints was written there
    {op: write, id, files, mode}             ->  ID STATUS  when all of path -> bytes is written, or one could not be
    {op: kill, id}                               its process group, or what prints for it
    {op: kill_all, id}                       ->  ID 0 when nothing but this process is left
    {op: listen, id, port}                   ->  ID STATUS + 1 fd: a listening socket of the guest's loopback

It is the launcher's watcher itself, where other guests have a process for each run, and waits for nothing but the next
thing to do: a pipe that nobody reads, or that the guest put in the place of a file, holds up nothing.

Every sandbox starts one, so it imports only what an interpreter has built in: ctypes, json, os, signal and socket would
take 15 ms, three times what the rest of it takes.
"""

import _ctypes
import _signal  # type: ignore[import-not-found]  # typeshed has it under its public name only
import _socket
import posix
import select
import sys

import launcher  # type: ignore[import-not-found]  # it lies beside this file in the guest

PACKET = 1 << 20
FD_BYTES = 4
MAX_FDS = 4
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
CAPSET_VERSION_3 = 0x20080522
FIRST_TO_GO = b"500"
"""What the kernel adds to the badness of everything but us when the guest's memory is used up: who collects its results
must outlive whoever used it."""


def main(uid, control_fd):
    badness = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY)  # while it is ours to open
    drop(uid)
    serve(control_fd, badness)


def drop(uid):
    """Become the guest's user for good; a root worker starts us as root of the user namespace."""
    if posix.getuid() != uid:
        posix.setgroups([])
        posix.setresgid(uid, uid, uid)
        posix.setresuid(uid, uid, uid)
    nobody = (CAPSET_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4), bytes(24))
    call("capset", *nobody)  # the inheritable set outlives the change of user
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)  # the change of user took it away


def call(name, *arguments):
    """A function of the C library that must succeed."""
    if _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), name), arguments):
        raise OSError(name)


def serve(control_fd, badness):
    for name in posix.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in (control_fd, badness):
            try:
                posix.close(int(name))  # bwrap leaves descriptors open that no guest should have
            except OSError:
                pass  # the one that listed them
    control = _socket.socket(fileno=control_fd)
    posix.set_inheritable(control_fd, False)
    wake, woken = posix.pipe()
    posix.set_blocking(wake, False)
    posix.set_blocking(woken, False)
    _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    guest = Guest(control, badness)
    guest.answer(0, 0)
    while True:
        ready, _, _ = select.select([control_fd, wake, *guest.readable()], guest.writable(), [], guest.pause())
        if control_fd in ready:
            data, fds = receive(control)
            if not data:
                posix._exit(0)  # the worker is gone
            guest.handle(eval(data, {"__builtins__": {}}), fds)
        if wake in ready:
            posix.read(wake, 4096)
            guest.reap()
        guest.go_on(ready)


def receive(control):
    data, ancillary, _, _ = control.recvmsg(PACKET, _socket.CMSG_LEN(MAX_FDS * FD_BYTES), _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            for at in range(0, len(packed) - FD_BYTES + 1, FD_BYTES):
                fds.append(int.from_bytes(packed[at : at + FD_BYTES], sys.byteorder))
    return data, fds


class Guest:
    """What runs here. ``running``: pid -> number of the request; ``programs``: folder of a run -> what it is;
    ``printing``: number of the request -> what is printed for it."""

    def __init__(self, control, badness):
        self.control = control
        self.badness = badness
        self.running = {}
        self.programs = {}
        self.printing = {}

    def answer(self, number, status):
        self.control.send(b"%d %d" % (number, status))

    # What is waited for

    def readable(self):
        return [fd for program in self.programs.values() for fd in program.pipes]

    def writable(self):
        return [printer.fd for printer in self.printing.values() if printer.left]

    def pause(self):
        return min((program.pause() for program in self.programs.values() if program.exit is None), default=None)

    def go_on(self, ready):
        """Take what the programs have printed, do what is due, and print what there is to print."""
        for program in self.programs.values():
            for fd in [fd for fd in program.pipes if fd in ready]:
                program.read(fd)
            program.tick()
        for number, printer in list(self.printing.items()):
            if printer.push():
                self.end_printing(number, 0)

    # What is asked for

    def handle(self, request, fds):
        op, number = request["op"], request["id"]
        if op == "exec":
            self.exec(number, request, fds)
        elif op == "start":
            self.answer(number, outcome(self.start, request["folder"], request["spec"]))
        elif op == "launcher":
            self.launcher(number, request["args"], fds[0])
        elif op == "write":
            self.answer(number, outcome(write_files, request["files"], request["mode"]))
        elif op == "kill":
            self.kill(number)
        elif op == "kill_all":
            self.kill_all()
            self.answer(number, 0)
        elif op == "listen":
            self.listen(number, request["port"])

    def exec(self, number, request, fds):
        try:
            pid = self.first_to_go(launcher.spawn, request["argv"], request["env"], request["cwd"], fds)
            self.running[pid] = number
        except OSError as error:
            posix.write(fds[2], launcher.why_not(error, request["argv"]))
            self.answer(number, launcher.not_started(error))
        for fd in fds:
            posix.close(fd)

    def start(self, folder, spec):
        files = launcher.make_files(folder)
        self.programs[folder] = self.first_to_go(launcher.Program, files, spec)

    def first_to_go(self, do, *arguments):
        """What is started inherits the badness, which is then taken back."""
        posix.pwrite(self.badness, FIRST_TO_GO, 0)
        try:
            return do(*arguments)
        finally:
            posix.pwrite(self.badness, b"0", 0)

    def launcher(self, number, arguments, fd):
        """``follow FOLDER OFFSET OFFSET``, ``status FOLDER``, ``stop FOLDER GRACE``, as the launcher has them."""
        program = self.programs.get(arguments[1])
        if program is None:
            posix.close(fd)
            self.answer(number, 1)
        elif arguments[0] == "follow":
            offsets = [int(arguments[2]), int(arguments[3])]
            self.printing[number] = Printer(fd, launcher.frames(program.files, offsets, lambda: program.exit))
        elif arguments[0] == "status":
            self.printing[number] = Printer(fd, iter([program.status()]))
        else:
            program.stop(float(arguments[2]))
            self.printing[number] = Printer(fd, nothing_until(lambda: program.exit))

    def listen(self, number, port):
        server = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            server.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen(64)
            fds = server.fileno().to_bytes(FD_BYTES, sys.byteorder)
            self.control.sendmsg([b"%d 0" % number], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        except OSError as error:
            self.answer(number, error.errno or 1)
        finally:
            server.close()

    # What has ended

    def reap(self):
        """Whether any child is left."""
        while True:
            try:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            number = self.running.pop(pid, None)
            if number is not None:
                self.answer(number, launcher.exit_code(status))
            for program in self.programs.values():
                if program.runs and program.pid == pid:
                    program.reaped(status)

    def kill(self, number):
        for pid, running in self.running.items():
            if running == number:
                signal_group(pid)
        if number in self.printing:
            self.end_printing(number, 137)

    def end_printing(self, number, status):
        posix.close(self.printing.pop(number).fd)
        self.answer(number, status)

    def kill_all(self):
        """SIGKILL until no child is left: every orphan of the guest becomes a child of pid 1."""
        while True:
            try:
                posix.kill(-1, _signal.SIGKILL)
            except ProcessLookupError:
                pass
            if not self.reap():
                return
            select.select([], [], [], 0.001)


class Printer:
    """Writes pieces to a pipe as it takes them; an empty piece says that there is no more yet."""

    def __init__(self, fd, pieces):
        posix.set_blocking(fd, False)
        self.fd = fd
        self.left = b""
        self._pieces = pieces

    def push(self):
        """Whether it is over: all is written, or nobody reads it any more."""
        while True:
            if not self.left:
                piece = next(self._pieces, None)
                if not piece:
                    return piece is None
                self.left = piece
            try:
                self.left = self.left[posix.write(self.fd, self.left) :]
            except BlockingIOError:
                return False
            except OSError:
                return True


def nothing_until(ended):
    while ended() is None:
        yield b""


def outcome(do, *arguments):
    """0, or the number of the error."""
    try:
        do(*arguments)
    except OSError as error:
        return error.errno or 1
    return 0


def write_files(files, mode):
    """Folders are made, what is in the place of a file is replaced: never followed, never waited for."""
    for path, data in files.items():
        for at in range(1, len(path)):
            if path[at] == "/":
                try:
                    posix.mkdir(path[:at], 0o755)
                except FileExistsError:
                    pass
        try:
            posix.unlink(path)
        except FileNotFoundError:
            pass
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, mode)
        try:
            posix.fchmod(fd, mode)
            while data:
                data = data[posix.write(fd, data) :]
        finally:
            posix.close(fd)


def signal_group(pid):
    try:
        posix.killpg(pid, _signal.SIGKILL)
    except OSError:
        try:
            posix.kill(pid, _signal.SIGKILL)
        except OSError:
            pass
