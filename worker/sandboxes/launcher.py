"""Runs one program detached in the guest, with its time limit, and keeps its output readable from any offset.

Standard library only, Python 3.9 or newer: it runs in any guest, by ``python3 launcher.py`` over a connection, or
inside the first process of a bwrap guest. Its files lie in ``<run>/<label>/``: ``stdout``, ``stderr`` (each cut at
the limit), ``exit`` (JSON, written whole at the end), ``alive`` (locked by the watcher while it lives). ``follow``
prints frames: one letter (o, e, or x for the end), the offset (8 bytes), the length (4 bytes), the bytes (of x: the
status); a program cannot forge a frame by printing.

It imports only what an interpreter has built in: json, os, signal and struct would double the time to its start.
"""

import _signal  # type: ignore[import-not-found]  # typeshed has it under its public name only
import posix
import select
import sys
import time

DEFAULT_PATH = "/bin:/usr/bin"
BLOCK = 65536
TICK_SECONDS = 0.02
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


def start(folder, spec, in_watcher=lambda: None):
    """Start the program in a session of its own, under a watcher that outlives this call and begins with
    ``in_watcher``."""
    posix.mkdir(folder)
    for name in ("stdout", "stderr"):
        open(f"{folder}/{name}", "xb").close()
    if posix.fork():
        return
    in_watcher()
    posix.setsid()
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1, 2):
        posix.dup2(null, fd)
    code = 0
    try:
        _Watcher(folder, spec).run()
    except BaseException as error:
        with open(f"{folder}/stderr", "ab") as file:
            file.write(f"tatin: {error!r}\n".encode())
        _write_whole(f"{folder}/exit", _status(125))
        code = 1
    posix._exit(code)


class _Watcher:
    """Reads what the program prints, ends it at its limit, and notes how it ended."""

    def __init__(self, folder, spec):
        self.folder = folder
        self.spec = spec
        self.counts = [0, 0]
        self.files = [posix.open(f"{folder}/{name}", posix.O_WRONLY) for name in ("stdout", "stderr")]
        self.stop_grace = None
        self.timed_out = False
        self.status = None

    def run(self):
        posix.lockf(posix.open(f"{self.folder}/alive", posix.O_RDWR | posix.O_CREAT, 0o600), posix.F_LOCK, 0)
        _write_whole(f"{self.folder}/watcher", str(posix.getpid()))
        if self.spec["leave_room"]:
            _leave_room()
        _signal.signal(_signal.SIGTERM, self._asked_to_stop)
        wake, woken = posix.pipe()
        posix.set_blocking(woken, False)
        _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self.pipes = {}
        pid = self._spawn()
        status = self.status if pid is None else self._watch(pid, wake)
        self._drain()
        cut = max(self.counts) > self.spec["limit"]
        _write_whole(f"{self.folder}/exit", _status(status, self.timed_out, *self.counts, cut))

    def _spawn(self):
        """The program's pid; None when there is no such program, which is told on its stderr."""
        ends = [posix.pipe(), posix.pipe()]
        try:
            pid = _spawn(self.spec, [write for _, write in ends])
        except OSError as error:
            pid = None
            self.status = 127 if isinstance(error, FileNotFoundError) else 126
            words = "not found" if self.status == 127 else error.strerror
            posix.write(ends[1][1], f"{error.filename or self.spec['argv'][0]}: {words}\n".encode())
        for index, (read, write) in enumerate(ends):
            posix.close(write)
            posix.set_blocking(read, False)
            self.pipes[read] = index
        return pid

    def _watch(self, pid, wake):
        deadline = time.monotonic() + self.spec["timeout"]
        kill_at = None
        while True:
            done, status = posix.waitpid(pid, posix.WNOHANG)
            if done:
                return _exit_code(status)
            now = time.monotonic()
            if kill_at is None and (now >= deadline or self.stop_grace is not None):
                self.timed_out = self.stop_grace is None
                _signal_group(pid, _signal.SIGTERM)
                kill_at = now + (self.spec["grace"] if self.stop_grace is None else self.stop_grace)
            if kill_at is not None and now >= kill_at:
                _signal_group(pid, _signal.SIGKILL)
                kill_at = now + 1
            until = min(deadline, kill_at) if kill_at else deadline
            ready, _, _ = select.select([wake, *self.pipes], [], [], max(0.0, min(until - now, 60)))
            for fd in ready:
                if fd == wake:
                    posix.read(wake, 4096)
                else:
                    self._read(fd)

    def _read(self, fd):
        """One block into its file, up to the limit; what is over is counted and dropped: the program never blocks."""
        try:
            data = posix.read(fd, BLOCK)
        except BlockingIOError:
            return False
        if not data:
            posix.close(fd)
            del self.pipes[fd]
            return False
        index = self.pipes[fd]
        room = self.spec["limit"] - self.counts[index]
        if room > 0:
            posix.write(self.files[index], data[:room])
        self.counts[index] += len(data)
        return True

    def _drain(self):
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.pipes and time.monotonic() < deadline:
            ready, _, _ = select.select(list(self.pipes), [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for fd in ready:
                self._read(fd)

    def _asked_to_stop(self, *_):
        try:
            with open(f"{self.folder}/stop") as file:
                self.stop_grace = float(file.read())
        except (OSError, ValueError):
            self.stop_grace = 0.0


def _spawn(spec, outputs):
    """Start the program in a session of its own. It is spawned, not forked: that copies nothing of this process."""
    posix.chdir(spec["cwd"])
    posix.putenv("PATH", spec["env"].get("PATH", DEFAULT_PATH))  # where posix_spawnp looks for it
    stdin = posix.open(spec["stdin"] or "/dev/null", posix.O_RDONLY)
    try:
        return posix.posix_spawnp(
            spec["argv"][0],
            spec["argv"],
            spec["env"],
            file_actions=[(posix.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate([stdin, *outputs])],
            setsid=True,
            setsigdef=(_signal.SIGTERM, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGINT),
        )
    finally:
        posix.close(stdin)


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
    files = [open(f"{folder}/{name}", "rb") for name in ("stdout", "stderr")]
    for file, offset in zip(files, offsets):  # noqa: B905 - Python 3.9 has no strict
        file.seek(offset)
    pause = 0.002
    while True:
        ended = _exists(f"{folder}/exit")  # looked at before the last read, or its end is missed
        quiet = True
        for index, file in enumerate(files):
            while True:
                data = file.read(BLOCK)
                if not data:
                    break
                quiet = False
                _write_all(_frame(b"oe"[index : index + 1], offsets[index], data))
                offsets[index] += len(data)
        if ended:
            _write_all(_frame(b"x", 0, status(folder)))
            return 0
        if pause >= TICK_SECONDS and _is_orphan(folder):
            _write_whole(f"{folder}/exit", _status(137, False, *offsets))
            continue
        pause = min(TICK_SECONDS, pause * 1.5) if quiet else 0.002
        time.sleep(pause)


def status(folder):
    """What ``exit`` says, or the sizes so far with status null."""
    try:
        with open(f"{folder}/exit", "rb") as file:
            return file.read(BLOCK)
    except OSError:
        sizes = [posix.stat(f"{folder}/{name}").st_size for name in ("stdout", "stderr")]
        return _status(None, False, *sizes).encode()


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
    while not _exists(f"{folder}/exit") and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    return 0


def _is_orphan(folder):
    """Whether its watcher was there, and is gone without a word. (POSIX locks end with their process.)"""
    if not _exists(f"{folder}/watcher") or _exists(f"{folder}/exit"):
        return False
    fd = posix.open(f"{folder}/alive", posix.O_RDWR)
    try:
        posix.lockf(fd, posix.F_TEST, 0)
    except OSError:
        return False
    finally:
        posix.close(fd)
    return not _exists(f"{folder}/exit")


def _signal_group(pid, number):
    try:
        posix.killpg(pid, number)
    except OSError:
        pass


def _exit_code(status):
    return 128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)


def _write_all(data):
    view = memoryview(data)
    while view:
        view = view[posix.write(1, view) :]


def _write_whole(path, text):
    with open(f"{path}.draft", "w") as file:
        file.write(text)
    posix.rename(f"{path}.draft", path)


def _exists(path):
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def _status(status, timed_out=False, stdout=0, stderr=0, cut=False):
    """As JSON."""
    known = "null" if status is None else status
    flags = ["true" if flag else "false" for flag in (timed_out, cut)]
    return f'{{"status": {known}, "timed_out": {flags[0]}, "stdout": {stdout}, "stderr": {stderr}, "cut": {flags[1]}}}'


def _frame(letter, offset, data):
    return letter + offset.to_bytes(8, "big") + len(data).to_bytes(4, "big") + data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
