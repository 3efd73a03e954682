"""Runs one program detached in the guest, with its time limit, and keeps its output readable from any offset.

Standard library only, Python 3.9 or newer: it runs in any guest, by ``python3 launcher.py`` over a connection, or
inside the warden of a bwrap guest. Its files lie in ``<run>/<label>/``: ``stdout``, ``stderr`` (each cut at
the limit), ``exit`` (JSON, written whole at the end), ``alive`` (locked by the watcher while it lives). ``follow``
prints frames: one letter (o, e, or x for the end), the offset (8 bytes), the length (4 bytes), the bytes (of x: the
status); a program cannot forge a frame by printing.

It imports only what an interpreter has built in: json, os, signal and struct would double the time to its start.
"""

import _signal  # type: ignore[import-not-found]  # typeshed has it under its public name only
import errno
import posix
import select
import sys
import time

DEFAULT_PATH = "/bin:/usr/bin"
BLOCK = 65536
NAME_LENGTH = 1000
TICK_SECONDS = 0.02
STREAMS = ("stdout", "stderr")
FAULT = 125
"""The exit status of a program that the watcher lost."""
DRAIN_SECONDS = 0.5
"""How long output is still read after the program has ended: something it left behind may hold the pipe for ever."""


def main(arguments):
    """``start FOLDER SPEC``, ``follow FOLDER OFFSET OFFSET``, ``status FOLDER``, ``stop FOLDER GRACE``.
    SPEC is a Python literal of the worker, which sends this source too."""
    command, folder = arguments[0], arguments[1]
    if command == "start":
        start(folder, eval(arguments[2], {"__builtins__": {}}))
        posix.write(1, b"started\n")
        return 0
    if command == "follow":
        return follow(folder, [int(arguments[2]), int(arguments[3])])
    if command == "status":
        _write_all(status(folder))
        return 0
    return stop(folder, float(arguments[2]))


def start(folder, spec):
    """Start the program in a session of its own, under a watcher that outlives this call."""
    files = make_files(folder)
    if posix.fork():
        return
    posix.setsid()
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    code = 0
    try:
        _watch(folder, files, spec)
    except BaseException as error:
        posix.write(files[1], f"tatin: {error!r}\n".encode())
        _write_whole(f"{folder}/exit", status_text(FAULT).decode())
        code = 1
    posix._exit(code)


def make_files(folder):
    """The folder of a run, with the files of its output, new and empty: their descriptors."""
    posix.mkdir(folder)
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_APPEND | posix.O_CLOEXEC
    return [posix.open(f"{folder}/{name}", flags, 0o644) for name in STREAMS]


def _watch(folder, files, spec):
    """The watcher: until the program has ended and all that it printed is in the files."""
    asked = []
    posix.lockf(posix.open(f"{folder}/alive", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600), posix.F_LOCK, 0)
    wake, woken = posix.pipe()
    posix.set_blocking(wake, False)
    posix.set_blocking(woken, False)
    _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.signal(_signal.SIGTERM, lambda *_: asked.append(True))
    _write_whole(f"{folder}/watcher", str(posix.getpid()))
    if spec["leave_room"]:
        _leave_room()
    program = Program(files, spec)
    while program.exit is None:
        ready, _, _ = select.select([wake, *program.pipes], [], [], program.pause())
        for fd in ready:
            if fd == wake:
                posix.read(wake, 4096)
            else:
                program.read(fd)
        if program.runs:
            done, status = posix.waitpid(program.pid, posix.WNOHANG)
            if done:
                program.reaped(status)
        if asked:
            program.stop(_grace(folder))
        program.tick()
    _write_whole(f"{folder}/exit", program.exit.decode())


def _grace(folder):
    try:
        with open(f"{folder}/stop") as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


class Program:
    """A program, the files of what it prints, and how it ended. Whoever watches it says what can be read, that it was
    reaped and that time has passed, and waits for nothing in here; so one process can watch many.

    ``pipes``: what may become readable. ``runs``: it was started and is not reaped. ``exit``: as in the file, once it
    has ended and all was read; None before."""

    def __init__(self, files, spec):
        self.files = files
        self.pipes = {}
        self.exit = None
        self.runs = False
        self._spec = spec
        self._counts = [0, 0]
        self._status = None
        self._timed_out = False
        self._stopping = False
        self._next = time.monotonic() + spec["timeout"]
        """When something is to be done that nothing else wakes us for."""
        self._spawn()

    def _spawn(self):
        """A program that there is not is told on its stderr."""
        ends = [posix.pipe(), posix.pipe()]
        for index, (read, _) in enumerate(ends):
            posix.set_blocking(read, False)
            self.pipes[read] = index
        writes = [write for _, write in ends]
        try:
            # A guest may have put a pipe of its own in the place of the file: that is not waited for.
            stdin = posix.open(self._spec["stdin"] or "/dev/null", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY)
            try:
                self.pid = spawn(self._spec["argv"], self._spec["env"], self._spec["cwd"], [stdin, *writes])
            finally:
                posix.close(stdin)
            self.runs = True
        except OSError as error:
            posix.write(writes[1], why_not(error, self._spec["argv"]))
            self._ended(not_started(error))
        for write in writes:
            posix.close(write)

    def pause(self):
        """Seconds until ``tick`` has something to do, or a minute."""
        return max(0.0, min(self._next - time.monotonic(), 60))

    def tick(self):
        """Do what is due: end it at its limit, kill it after its grace, give up a pipe that something left behind."""
        now = time.monotonic()
        if self.exit is not None or now < self._next:
            return
        if self._status is not None:
            self._finish()
        elif not self._stopping:
            self._timed_out = True
            self.stop(self._spec["grace"])
        else:
            _signal_group(self.pid, _signal.SIGKILL)
            self._next = now + 1

    def stop(self, grace):
        """SIGTERM, and SIGKILL after the grace; nothing when it is being ended already."""
        if self.runs and not self._stopping:
            self._stopping = True
            _signal_group(self.pid, _signal.SIGTERM)
            self._next = time.monotonic() + grace

    def reaped(self, status):
        """It has ended, with what ``waitpid`` says."""
        self.runs = False
        if self.exit is None:
            self._ended(exit_code(status))

    def read(self, fd):
        """One block into its file, up to the limit; what is over is counted and dropped: the program never blocks."""
        if fd not in self.pipes:
            return  # given up since it was found to be ready
        try:
            data = posix.read(fd, BLOCK)
        except BlockingIOError:
            return
        index = self.pipes[fd]
        if not data:
            posix.close(fd)
            del self.pipes[fd]
            if self._status is not None and not self.pipes:
                self._finish()
            return
        room = self._spec["limit"] - self._counts[index]
        self._counts[index] += len(data)
        try:
            if room > 0:
                posix.write(self.files[index], data[:room])
        except OSError as error:  # the disk is full
            self._give_up(error)

    def _give_up(self, error):
        if self.runs:
            _signal_group(self.pid, _signal.SIGKILL)
        self._status = FAULT
        self._finish()
        try:
            posix.write(self.files[1], f"tatin: {error!r}\n".encode())
        except OSError:
            pass

    def status(self):
        """What ``exit`` says, or the sizes so far with status null."""
        return self.exit or status_text(None, False, *self._counts)

    def _ended(self, status):
        self._status = status
        self._next = time.monotonic() + DRAIN_SECONDS
        if not self.pipes:
            self._finish()

    def _finish(self):
        for fd in self.pipes:
            posix.close(fd)
        self.pipes.clear()
        cut = max(self._counts) > self._spec["limit"]
        self.exit = status_text(self._status, self._timed_out, *self._counts, cut)


def spawn(argv, env, cwd, fds):
    """Start a program in a session of its own, with these descriptors as its first; its pid. It is spawned, not forked:
    that copies nothing of this process."""
    try:
        posix.chdir(cwd)  # where its child begins, and nothing else here cares
        posix.putenv("PATH", env.get("PATH", DEFAULT_PATH))  # where posix_spawnp looks for it
        return posix.posix_spawnp(
            argv[0],
            argv,
            env,
            file_actions=[(posix.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
            setsid=True,
            setsigdef=(_signal.SIGTERM, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGINT),
        )
    except ValueError as error:  # a zero byte
        raise OSError(errno.EINVAL, str(error)) from error


def not_started(error):
    """The exit status of a program that could not be started."""
    return 127 if isinstance(error, FileNotFoundError) else 126


def why_not(error, argv):
    """The same as a line for its stderr: a short one, for nobody may read that yet, and a pipe takes little."""
    words = "not found" if isinstance(error, FileNotFoundError) else error.strerror
    return f"{str(error.filename or argv[0])[:NAME_LENGTH]}: {words}\n".encode("utf-8", "replace")


def frames(files, offsets, ended):
    """What a run has printed, from these offsets on, as frames; the last says how it ended. An empty piece: there is
    nothing more yet. ``files``: descriptors of stdout and stderr. ``ended``: gives what ``exit`` says, None before."""
    while True:
        exit = ended()  # looked at before the last read, or its end is missed
        quiet = True
        for index, file in enumerate(files):
            data = posix.pread(file, BLOCK, offsets[index])
            if data:
                quiet = False
                yield _frame(b"oe"[index : index + 1], offsets[index], data)
                offsets[index] += len(data)
        if quiet and exit is not None:
            yield _frame(b"x", 0, exit)
            return
        if quiet:
            yield b""


def _leave_room():
    """This and what it starts get three quarters of the processes that their group may have: what ends the program and
    brings back its work runs in the same group."""
    import resource

    most = [resource.getrlimit(resource.RLIMIT_NPROC)[1]]
    with open("/proc/self/cgroup") as file:
        group = file.read().strip().rpartition(":")[2]
    while group:
        try:
            with open(f"/sys/fs/cgroup{group}/pids.max") as file:
                most.append(int(file.read()))
        except (OSError, ValueError):
            pass
        group = group.rpartition("/")[0]
    limits = [limit for limit in most if limit > 0]
    if limits:
        resource.setrlimit(resource.RLIMIT_NPROC, (min(limits) * 3 // 4,) * 2)


def follow(folder, offsets):
    """Print the output from these offsets on as frames, live, until the program has ended and all was printed. One
    whose watcher was killed has ended as if it had been killed itself: nobody else would ever say so."""
    files = [posix.open(f"{folder}/{name}", posix.O_RDONLY) for name in STREAMS]
    pause = 0.002
    for piece in frames(files, offsets, lambda: _contents(f"{folder}/exit")):
        _write_all(piece)
        if not piece and pause >= TICK_SECONDS and _is_orphan(folder):
            _write_whole(f"{folder}/exit", status_text(137, False, *offsets).decode())
            continue
        pause = 0.002 if piece else min(TICK_SECONDS, pause * 1.5)
        if not piece:
            time.sleep(pause)
    return 0


def status(folder):
    """As ``Program.status``, by the files."""
    ended = _contents(f"{folder}/exit")
    if ended is None:
        return status_text(None, False, *(posix.stat(f"{folder}/{name}").st_size for name in STREAMS))
    return ended


def stop(folder, grace):
    """Ask the watcher to end the program, and wait until it has."""
    with open(f"{folder}/stop", "w") as file:
        file.write(str(grace))
    try:
        with open(f"{folder}/watcher") as file:
            posix.kill(int(file.read()), _signal.SIGTERM)
    except (OSError, ValueError):
        return 0
    deadline = time.monotonic() + grace + 5
    while _contents(f"{folder}/exit") is None and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    return 0


def _is_orphan(folder):
    """Whether its watcher was there, and is gone without a word. (POSIX locks end with their process.)"""
    if _contents(f"{folder}/watcher") is None or _contents(f"{folder}/exit") is not None:
        return False
    fd = posix.open(f"{folder}/alive", posix.O_RDWR)
    try:
        posix.lockf(fd, posix.F_TEST, 0)
    except OSError:
        return False
    finally:
        posix.close(fd)
    return _contents(f"{folder}/exit") is None


def _signal_group(pid, number):
    try:
        posix.killpg(pid, number)
    except OSError:
        pass


def exit_code(status):
    """What ``waitpid`` says, as a shell has it."""
    return 128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)


def _write_all(data):
    view = memoryview(data)
    while view:
        view = view[posix.write(1, view) :]


def _write_whole(path, text):
    with open(f"{path}.draft", "w") as file:
        file.write(text)
    posix.rename(f"{path}.draft", path)


def _contents(path):
    """Of a small file; None: there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(BLOCK)
    except OSError:
        return None


def status_text(status, timed_out=False, stdout=0, stderr=0, cut=False):
    """As JSON."""
    known = "null" if status is None else status
    flags = ["true" if flag else "false" for flag in (timed_out, cut)]
    sizes = f'"stdout": {stdout}, "stderr": {stderr}'
    return f'{{"status": {known}, "timed_out": {flags[0]}, {sizes}, "cut": {flags[1]}}}'.encode()


def _frame(letter, offset, data):
    return letter + offset.to_bytes(8, "big") + len(data).to_bytes(4, "big") + data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
