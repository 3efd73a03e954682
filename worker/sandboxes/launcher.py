"""Runs one program detached in the guest, with its time limit, and keeps its output readable from any offset.

Standard library only, Python 3.9 or newer: it runs in any guest, by ``python3 launcher.py`` over a connection, or
inside the first process of a bwrap guest. Its files lie in ``<run>/<label>/``: ``stdout``, ``stderr`` (each cut at
the limit), ``exit`` (JSON, written whole at the end). ``follow`` prints frames: one letter (o, e, or x for the end),
the offset (8 bytes), the length (4 bytes), the bytes (of x: the status); a program cannot forge a frame by printing.
"""

import json
import os
import select
import signal
import struct
import sys
import time

FRAME = struct.Struct(">cQI")
BLOCK = 65536
TICK_SECONDS = 0.02
DRAIN_SECONDS = 0.5
"""How long output is still read after the program has ended: something it left behind may hold the pipe for ever."""


def main(arguments):
    """``start FOLDER SPEC``, ``follow FOLDER OFFSET OFFSET``, ``status FOLDER``, ``stop FOLDER GRACE``."""
    command, folder = arguments[0], arguments[1]
    if command == "start":
        return start(folder, json.loads(arguments[2]))
    if command == "follow":
        return follow(folder, [int(arguments[2]), int(arguments[3])])
    if command == "status":
        sys.stdout.write(json.dumps(status(folder)))
        sys.stdout.flush()
        return 0
    return stop(folder, float(arguments[2]))


def start(folder, spec):
    """Start the program in a session of its own, under a watcher that outlives this call. Says ``started``."""
    os.makedirs(folder)
    for name in ("stdout", "stderr"):
        open(os.path.join(folder, name), "wb").close()
    if os.fork():
        os.write(1, b"started\n")
        return 0
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    code = 0
    try:
        _Watcher(folder, spec).run()
    except BaseException as error:
        _write_whole(os.path.join(folder, "exit"), {"error": repr(error), "status": 125})
        code = 1
    os._exit(code)


class _Watcher:
    """Reads what the program prints, ends it at its limit, and notes how it ended."""

    def __init__(self, folder, spec):
        self.folder = folder
        self.spec = spec
        self.counts = [0, 0]
        self.files = [os.open(os.path.join(folder, name), os.O_WRONLY) for name in ("stdout", "stderr")]
        self.stop_grace = None
        self.timed_out = False
        self.status = None

    def run(self):
        _write_whole(os.path.join(self.folder, "watcher"), {"pid": os.getpid()})
        signal.signal(signal.SIGTERM, self._asked_to_stop)
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.pipes = {}
        pid = self._spawn()
        status = self.status if pid is None else self._watch(pid, wake)
        self._drain()
        _write_whole(
            os.path.join(self.folder, "exit"),
            {
                "status": status,
                "timed_out": self.timed_out,
                "stdout": self.counts[0],
                "stderr": self.counts[1],
                "cut": max(self.counts) > self.spec["limit"],
            },
        )

    def _spawn(self):
        """The program's pid; None when there is no such program, which is told on its stderr."""
        ends = [os.pipe(), os.pipe()]
        try:
            pid = _spawn(self.spec, [write for _, write in ends])
        except OSError as error:
            pid = None
            self.status = 127 if isinstance(error, FileNotFoundError) else 126
            words = "not found" if self.status == 127 else error.strerror
            os.write(ends[1][1], f"{error.filename or self.spec['argv'][0]}: {words}\n".encode())
        for index, (read, write) in enumerate(ends):
            os.close(write)
            os.set_blocking(read, False)
            self.pipes[read] = index
        return pid

    def _watch(self, pid, wake):
        deadline = time.monotonic() + self.spec["timeout"]
        kill_at = None
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return _exit_code(status)
            now = time.monotonic()
            if kill_at is None and (now >= deadline or self.stop_grace is not None):
                self.timed_out = self.stop_grace is None
                _signal_group(pid, signal.SIGTERM)
                kill_at = now + (self.spec["grace"] if self.stop_grace is None else self.stop_grace)
            if kill_at is not None and now >= kill_at:
                _signal_group(pid, signal.SIGKILL)
                kill_at = now + 1
            until = min(deadline, kill_at) if kill_at else deadline
            ready, _, _ = select.select([wake, *self.pipes], [], [], max(0.0, min(until - now, 60)))
            for fd in ready:
                if fd == wake:
                    os.read(wake, 4096)
                else:
                    self._read(fd)

    def _read(self, fd):
        """One block into its file, up to the limit; what is over is counted and dropped: the program never blocks."""
        try:
            data = os.read(fd, BLOCK)
        except BlockingIOError:
            return False
        if not data:
            os.close(fd)
            del self.pipes[fd]
            return False
        index = self.pipes[fd]
        room = self.spec["limit"] - self.counts[index]
        if room > 0:
            os.write(self.files[index], data[:room])
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
            with open(os.path.join(self.folder, "stop")) as file:
                self.stop_grace = float(file.read())
        except (OSError, ValueError):
            self.stop_grace = 0.0


def _spawn(spec, outputs):
    """Start the program in a session of its own. It is spawned, not forked: that copies nothing of this process."""
    os.chdir(spec["cwd"])
    os.environ["PATH"] = spec["env"].get("PATH", os.defpath)  # where posix_spawnp looks for it
    stdin = os.open(spec["stdin"] or "/dev/null", os.O_RDONLY)
    try:
        return os.posix_spawnp(
            spec["argv"][0],
            spec["argv"],
            spec["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate([stdin, *outputs])],
            setsid=True,
            setsigdef=(signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT),
        )
    finally:
        os.close(stdin)


def follow(folder, offsets):
    """Print the output from these offsets on as frames, live, until the program has ended and all was printed."""
    files = [open(os.path.join(folder, name), "rb") for name in ("stdout", "stderr")]
    for file, offset in zip(files, offsets):  # noqa: B905 - Python 3.9 has no strict
        file.seek(offset)
    pause = 0.002
    while True:
        ended = os.path.exists(os.path.join(folder, "exit"))  # looked at before the last read, or its end is missed
        quiet = True
        for index, file in enumerate(files):
            while True:
                data = file.read(BLOCK)
                if not data:
                    break
                quiet = False
                _write_all(FRAME.pack(b"oe"[index : index + 1], offsets[index], len(data)) + data)
                offsets[index] += len(data)
        if ended:
            ending = json.dumps(status(folder)).encode()
            _write_all(FRAME.pack(b"x", 0, len(ending)) + ending)
            return 0
        pause = min(TICK_SECONDS, pause * 1.5) if quiet else 0.002
        time.sleep(pause)


def status(folder):
    """What ``exit`` says, or the sizes so far with status null."""
    try:
        with open(os.path.join(folder, "exit")) as file:
            return json.load(file)
    except OSError:
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in ("stdout", "stderr")]
        return {"status": None, "timed_out": False, "stdout": sizes[0], "stderr": sizes[1], "cut": False}


def stop(folder, grace):
    """Ask the watcher to end the program, and wait until it has."""
    with open(os.path.join(folder, "stop"), "w") as file:
        file.write(str(grace))
    try:
        with open(os.path.join(folder, "watcher")) as file:
            os.kill(json.load(file)["pid"], signal.SIGTERM)
    except (OSError, ValueError):
        return 0
    deadline = time.monotonic() + grace + 5
    while not os.path.exists(os.path.join(folder, "exit")) and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
    return 0


def _signal_group(pid, number):
    try:
        os.killpg(pid, number)
    except OSError:
        pass


def _exit_code(status):
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _write_all(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _write_whole(path, value):
    with open(path + ".draft", "w") as file:
        json.dump(value, file)
    os.rename(path + ".draft", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
