"""The first process of a bwrap guest: starts programs, reaps them, opens ports, all asked for over one socket.

``main(UID, FD)``: the guest's user, the number of the socket. It is pid 1 of the guest's pid namespace (nothing in the
guest can kill it) and not dumpable (nothing can trace it), and holds the only descriptor that the worker reads from.
A request is a Python literal, which only the worker can send, with descriptors passed along; an answer is two numbers:

    {op: exec, id, argv, env, cwd} + 3 fds   ->  ID STATUS  when it has ended
    {op: python, id, source, args, env} + 3 fds -> the same; forks this interpreter instead of starting another
    {op: start, id, folder, spec}            ->  ID STATUS  when the launcher has started it, or could not
    {op: write, id, files, mode}             ->  ID STATUS  when all of path -> bytes is written, or one could not be
    {op: kill, id}                               its process group
    {op: kill_all, id}                       ->  ID 0 when nothing but this process is left
    {op: listen, id, port}                   ->  ID STATUS + 1 fd: a listening socket of the guest's loopback

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
DEFAULT_PATH = "/bin:/usr/bin"
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
    running = {}
    answer(control, 0, 0)
    while True:
        ready, _, _ = select.select([control_fd, wake], [], [])
        if wake in ready:
            try:
                posix.read(wake, 4096)
            except BlockingIOError:
                pass
            reap(control, running)
        if control_fd in ready:
            data, fds = receive(control)
            if not data:
                posix._exit(0)  # the worker is gone
            handle(control, running, eval(data, {"__builtins__": {}}), fds, badness)


def receive(control):
    data, ancillary, _, _ = control.recvmsg(PACKET, _socket.CMSG_LEN(MAX_FDS * FD_BYTES), _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            for at in range(0, len(packed) - FD_BYTES + 1, FD_BYTES):
                fds.append(int.from_bytes(packed[at : at + FD_BYTES], sys.byteorder))
    return data, fds


def handle(control, running, request, fds, badness):
    op = request["op"]
    if op in ("exec", "python"):
        posix.pwrite(badness, FIRST_TO_GO, 0)  # inherited by what is started, then taken back
        start(control, running, request, fds)
        posix.pwrite(badness, b"0", 0)
        for fd in fds:
            posix.close(fd)
    elif op == "start":
        posix.pwrite(badness, FIRST_TO_GO, 0)
        answer(control, request["id"], outcome(launch, control, badness, request))
        posix.pwrite(badness, b"0", 0)
    elif op == "write":
        answer(control, request["id"], outcome(write_files, request["files"], request["mode"]))
    elif op == "kill":
        for pid, number in running.items():
            if number == request["id"]:
                signal_group(pid)
    elif op == "kill_all":
        kill_all(control, running)
        answer(control, request["id"], 0)
    elif op == "listen":
        listen(control, request)


def answer(control, number, status):
    control.send(b"%d %d" % (number, status))


def outcome(do, *arguments):
    """0, or the number of the error."""
    try:
        do(*arguments)
    except OSError as error:
        return error.errno or 1
    return 0


def launch(control, badness, request):
    """The launcher's watcher is a fork of ours: it has nothing to import either."""

    def forget():
        control.close()
        posix.close(badness)

    launcher.start(request["folder"], request["spec"], forget)


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


def start(control, running, request, fds):
    """A program by spawning it, which copies nothing of this process; Python of ours by forking it."""
    if request["op"] == "python":
        pid = posix.fork()
        if pid == 0:
            child(control, request, fds)
        running[pid] = request["id"]
        return
    try:
        pid = spawn(request, fds)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        posix.write(fds[2], f"{request['argv'][0]}: {'not found' if missing else error.strerror}\n".encode())
        answer(control, request["id"], 127 if missing else 126)
        return
    running[pid] = request["id"]


def spawn(request, fds):
    posix.chdir(request["cwd"])  # where its child begins, and nothing else here cares
    posix.putenv("PATH", request["env"].get("PATH", DEFAULT_PATH))  # where posix_spawnp looks for it
    return posix.posix_spawnp(
        request["argv"][0],
        request["argv"],
        request["env"],
        file_actions=[(posix.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
        setsid=True,
        setsigdef=(_signal.SIGCHLD, _signal.SIGPIPE),
    )


def child(control, request, fds):
    """Never returns: runs Python in this very interpreter and ends."""
    status = 126
    try:
        posix.setsid()
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGCHLD, _signal.SIGPIPE):
            _signal.signal(number, _signal.SIG_DFL)
        for target, fd in enumerate(fds):
            posix.dup2(fd, target)
            posix.close(fd)  # or what Python code of ours leaves running would hold the pipe
        control.close()
        status = run_python(request)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else (0 if end.code is None else 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        posix._exit(status)


def run_python(request):
    posix.chdir(request["cwd"])
    if request["source"] == "launcher":
        return launcher.main(request["args"])
    posix.environ.clear()  # where `os` has its own from, once it is imported
    for name, value in request["env"].items():
        posix.putenv(name, value)
        posix.environ[name.encode()] = value.encode()
    sys.argv = ["-c", *request["args"]]
    sys.stdin, sys.stdout, sys.stderr = (open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))
    exec(compile(request["source"], "<tatin>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
    return 0


def reap(control, running):
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        number = running.pop(pid, None)
        if number is not None:
            code = 128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)
            answer(control, number, code)


def kill_all(control, running):
    """SIGKILL until no child is left: every orphan of the guest becomes a child of pid 1."""
    while True:
        try:
            posix.kill(-1, _signal.SIGKILL)
        except ProcessLookupError:
            pass
        if not reap(control, running):
            return
        select.select([], [], [], 0.001)


def listen(control, request):
    server = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        server.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", request["port"]))
        server.listen(64)
        fds = server.fileno().to_bytes(FD_BYTES, sys.byteorder)
        control.sendmsg([b"%d 0" % request["id"]], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
    except OSError as error:
        answer(control, request["id"], error.errno or 1)
    finally:
        server.close()


def signal_group(pid):
    try:
        posix.killpg(pid, _signal.SIGKILL)
    except OSError:
        try:
            posix.kill(pid, _signal.SIGKILL)
        except OSError:
            pass
