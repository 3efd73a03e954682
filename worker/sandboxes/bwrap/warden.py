"""The warden of a bwrap guest: makes it, starts, watches and ends programs in it, all asked for over one socket.

``main(CONTROL, USERNS)``, in a fork of the fork server. It enters the guest's namespaces and gives up every right that
it has outside, but it keeps its process number out there: what it starts is in the guest, and it is nowhere to be seen,
signalled or traced from. It holds the only descriptor that the worker reads from. A request is a dict (``packets``),
with descriptors passed along; an answer is two numbers as text:

    (none)                                   ->  0 PID      this is the warden
    {op: make, id, ports, ...}               ->  ID STATUS  when the guest is ready (``entering``), with what ``listen``
                                                            gives, or cannot be
    {op: exec, id, argv, env, cwd} + 3 fds   ->  ID STATUS  when it has ended
    {..., files, mode, copy}                 ->  ID STATUS  the same, and ``write`` before it, and where it succeeded a
                                                            copy after it, of [SOURCE, TARGET] with its times; negative
                                                            when one of these failed
    {op: start, id, folder, spec} + 1 fd     ->  ID STATUS  when it runs, watched from here, or could not be started;
                                                            then as {op: launcher, args: [follow, FOLDER, 0, 0]}
    {op: launcher, id, args} + 1 fd          ->  ID STATUS  when all of what the launcher prints was written there, or
                                                            nobody reads it any more
    {op: write, id, files, mode}             ->  ID STATUS  when all of path -> bytes is written, or one could not be
    {op: kill, id}                               its process group
    {op: kill_all, id}                       ->  ID 0 when nothing but its first process is left
    {op: listen, id, ports}                  ->  ID STATUS + an fd for each: a listening socket of the guest's loopback
    (none)                                   ->  -1 STATUS  bwrap has ended, and the guest with it

What a job always asks for is asked at one go: a request and its answer cost worker and warden 0.3 ms together.

It is the launcher's watcher itself, where other guests have a process for each run, and waits for nothing but the next
thing to do: a pipe that nobody reads, or that the guest put in the place of a file, holds up nothing. What a guest can
do is to stop a program before it has begun, which holds the warden up: the worker then kills what is inside.
"""

import _signal  # type: ignore[import-not-found]  # signal without its enums, which copy a dozen pages in each fork
import os
import select
import socket
import sys
import time

import entering  # type: ignore[import-not-found]  # these lie beside this file, or in the folder above (``fork_server``)
import launcher  # type: ignore[import-not-found]
import packets  # type: ignore[import-not-found]
import warden_files  # type: ignore[import-not-found]

ROOM = bytearray(packets.MOST_BYTES)
"""For a request. It was made before the fork: memory of such a size is mapped anew each time."""
FIRST_TO_GO = 500
"""What the kernel adds to the badness of everything but us when the guest's memory is used up: who collects its results
must outlive whoever used it."""


def main(control, userns):
    control.send(b"0 %d" % os.getpid())
    wake = take_signals()
    guest = Guest(control, userns)
    while True:
        ready, _, _ = select.select([control, wake, *guest.readable()], guest.writable(), [], guest.pause())
        if control in ready:
            data, fds = packets.receive(control, ROOM)
            if not data:
                guest.end()  # the worker is gone, or wants it gone
                return
            guest.handle(packets.request_of(data), fds)
        if wake in ready:
            os.read(wake, 4096)
            guest.reap()
        if guest.over:
            guest.end()
            return
        guest.go_on(ready)


def take_signals():
    """A pipe that can be read whenever a child has ended."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    return wake


class Guest:
    """The guest and what runs in it. ``over``: bwrap has ended. ``running``: pid -> number of the request; ``copies``:
    number of the request -> what is copied where when that has succeeded; ``programs``: folder of a run -> what it is;
    ``printing``: number of the request -> what is printed for it."""

    def __init__(self, control, userns):
        self.control = control
        self.userns = userns
        self.made = None
        self.over = False
        self.badness = os.open("/proc/self/oom_score_adj", os.O_RDWR)  # while it is ours to open
        self.own_badness = int(os.read(self.badness, 16))  # less than that it may not become again
        self.running = {}
        self.copies = {}
        self.programs = {}
        self.printing = {}

    def answer(self, number, status):
        try:
            self.control.send(b"%d %d" % (number, status))
        except OSError:
            pass  # the worker is gone, which is seen next

    # What is waited for

    def readable(self):
        """What programs print; and pipes that are printed to, whose end can be "read" when nobody reads the other."""
        printing = [printer.fd for printer in self.printing.values()]
        return [fd for program in self.programs.values() for fd in program.pipes] + printing

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
            if printer.fd in ready or printer.push():
                os.close(self.printing.pop(number).fd)
                self.answer(number, 0)

    # What is asked for

    def handle(self, request, fds):
        op, number = request["op"], request["id"]
        if op == "make":
            self.make(number, request)
        elif op == "exec":
            self.exec(number, request, fds)
        elif op == "start":
            self.start(number, request, fds[0])
        elif op == "launcher":
            self.launcher(number, request["args"], fds[0])
        elif op == "write":
            self.answer(number, outcome(warden_files.write_all, request["files"], request["mode"]))
        elif op == "kill":
            self.kill(number)
        elif op == "kill_all":
            self.kill_all()
            self.answer(number, 0)
        elif op == "listen":
            self.listen(number, request["ports"])

    def make(self, number, request):
        try:
            self.made = entering.make(request, self.userns)
        except OSError as error:
            print(f"tatin: {error}", file=sys.stderr, flush=True)  # which is the guest's file of errors by then
            self.answer(number, error.errno or 1)
        else:
            self.listen(number, request["ports"])

    def exec(self, number, request, fds):
        if "files" in request and (failed := outcome(warden_files.write_all, request["files"], request["mode"])):
            self.answer(number, -failed)
        else:
            self.spawn(number, request, fds)
        for fd in fds:
            os.close(fd)

    def spawn(self, number, request, fds):
        try:
            pid = self.first_to_go(launcher.spawn, request["argv"], request["env"], request["cwd"], fds)
        except OSError as error:
            try:
                os.write(fds[2], launcher.why_not(error, request["argv"]))
            except OSError:
                pass  # nobody reads it any more
            self.answer(number, launcher.not_started(error))
        else:
            self.running[pid] = number
            if "copy" in request:
                self.copies[number] = request["copy"]

    def start(self, number, request, fd):
        folder = request["folder"]
        failed = outcome(self.begin, folder, request["spec"])
        self.answer(number, failed)
        if failed:
            os.close(fd)
        else:
            self.launcher(number, ["follow", folder, 0, 0], fd)

    def begin(self, folder, spec):
        files = launcher.make_files(folder)
        self.programs[folder] = self.first_to_go(launcher.Program, files, spec)

    def first_to_go(self, do, *arguments):
        """What is started inherits the badness, which is then taken back."""
        os.pwrite(self.badness, b"%d" % max(FIRST_TO_GO, self.own_badness), 0)
        try:
            return do(*arguments)
        finally:
            os.pwrite(self.badness, b"%d" % self.own_badness, 0)

    def launcher(self, number, arguments, fd):
        """``follow FOLDER OFFSET OFFSET``, ``status FOLDER``, ``stop FOLDER GRACE``, as the launcher has them."""
        program = self.programs.get(arguments[1])
        if program is None:
            os.close(fd)
            self.answer(number, 1)
        elif arguments[0] == "follow":
            offsets = [int(arguments[2]), int(arguments[3])]
            self.printing[number] = Printer(fd, launcher.frames(program.files, offsets, lambda: program.exit))
        elif arguments[0] == "status":
            self.printing[number] = Printer(fd, iter([program.status()]))
        else:
            program.stop(float(arguments[2]))
            self.printing[number] = Printer(fd, nothing_until(lambda: program.exit))

    def listen(self, number, ports):
        servers = []
        try:
            for port in ports:
                servers.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                servers[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                servers[-1].bind(("127.0.0.1", port))
                servers[-1].listen(64)
            socket.send_fds(self.control, [b"%d 0" % number], [server.fileno() for server in servers])
        except OSError as error:
            self.answer(number, error.errno or 1)
        for server in servers:
            server.close()

    # What has ended

    def reap(self, options=os.WNOHANG):
        """Whether any child is left that still runs."""
        while True:
            try:
                pid, status = os.waitpid(-1, options)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.made is not None and pid == self.made.bwrap:
                self.over = True
                self.answer(-1, launcher.exit_code(status))
            number = self.running.pop(pid, None)
            if number is not None:
                self.answer(number, self.copied(number, launcher.exit_code(status)))
            for program in self.programs.values():
                if program.runs and program.pid == pid:
                    program.reaped(status)

    def copied(self, number, status):
        """The status of a program that has ended, and what is to be copied then; that of the copy if it failed."""
        copy = self.copies.pop(number, None)
        return -outcome(warden_files.copy, *copy) if copy and not status else status

    def kill(self, number):
        for pid, running in self.running.items():
            if running == number:
                signal_group(pid)

    def kill_all(self):
        """By the guest's first process, which alone the kernel spares: anybody else in there might be killed first."""
        while True:
            try:
                os.write(self.made.tell, b"\n")
            except BrokenPipeError:  # it ends
                return
            os.read(self.made.said, 1)
            self.reap()
            if all(name == "1" for name in os.listdir("/proc") if name.isdigit()):
                return
            time.sleep(0.001)

    def end(self):
        """End the guest, with its first process, and wait until all of it is gone."""
        if self.made is not None:
            os.close(self.made.tell)
            self.reap(0)


class Printer:
    """Writes pieces to a pipe as it takes them; an empty piece says that there is no more yet."""

    def __init__(self, fd, pieces):
        os.set_blocking(fd, False)
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
                self.left = self.left[os.write(self.fd, self.left) :]
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


def signal_group(pid):
    try:
        os.killpg(pid, _signal.SIGKILL)
    except OSError:
        try:
            os.kill(pid, _signal.SIGKILL)
        except OSError:
            pass
