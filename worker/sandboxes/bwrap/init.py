"""The first process of a bwrap guest: starts programs, reaps them, opens ports, all asked for over one socket.

Standard library only; run as ``init.py UID LAUNCHER FD``: the path of the launcher's text, the number of the socket.
It is pid 1 of the guest's pid namespace (nothing in the guest can kill it) and not dumpable (nothing can trace it), and
holds the only descriptor that the worker reads from. Requests and answers are JSON, one packet each, descriptors
passed along:

    {op: exec, id, argv, env, cwd} + 3 fds   ->  {id, status}  when it has ended
    {op: python, id, source, args, env} + 3 fds -> the same; forks this interpreter instead of starting another
    {op: kill, id}                               its process group
    {op: kill_all, id}                       ->  {id, status: 0} when nothing but this process is left
    {op: listen, id, port}                   ->  {id, status} + 1 fd: a listening socket of the guest's loopback
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys

PACKET = 1 << 20
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
BADNESS = os.open("/proc/self/oom_score_adj", os.O_WRONLY)  # while it is ours to open
FIRST_TO_GO = b"500"
"""What the kernel adds to the badness of everything but us when the guest's memory is used up: who collects its results
must outlive whoever used it."""


def drop(uid):
    """Become the guest's user for good; a root worker starts us as root of the user namespace."""
    if os.getuid() != uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header, nothing = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0)), ctypes.create_string_buffer(24)
    LIBC.capset(header, nothing)  # the inheritable set outlives the change of user
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the change of user took it away


def serve(launcher_path, control_fd):
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in (control_fd, BADNESS):
            try:
                os.close(int(name))  # bwrap leaves descriptors open that no guest should have
            except OSError:
                pass  # the one that listed them
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running = {}
    with open(launcher_path) as file:
        sources = {"launcher": compile(file.read(), "launcher", "exec")}
    control.send(json.dumps({"id": 0, "status": 0}).encode())
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            try:
                os.read(wake, 4096)
            except BlockingIOError:
                pass
            reap(control, running)
        if control in ready:
            data, fds, _, _ = socket.recv_fds(control, PACKET, 4, socket.MSG_CMSG_CLOEXEC)
            if not data:
                os._exit(0)  # the worker is gone
            handle(control, running, sources, json.loads(data), fds)


def handle(control, running, sources, request, fds):
    op = request["op"]
    if op in ("exec", "python"):
        os.pwrite(BADNESS, FIRST_TO_GO, 0)  # inherited by what is started, then taken back
        start(control, running, sources, request, fds)
        os.pwrite(BADNESS, b"0", 0)
        for fd in fds:
            os.close(fd)
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
    control.send(json.dumps({"id": number, "status": status}).encode())


def start(control, running, sources, request, fds):
    """A program by spawning it, which copies nothing of this process; Python of ours by forking it."""
    if request["op"] == "python":
        pid = os.fork()
        if pid == 0:
            child(control, sources, request, fds)
        running[pid] = request["id"]
        return
    try:
        pid = spawn(request, fds)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        os.write(fds[2], f"{request['argv'][0]}: {'not found' if missing else error.strerror}\n".encode())
        answer(control, request["id"], 127 if missing else 126)
        return
    running[pid] = request["id"]


def spawn(request, fds):
    os.chdir(request["cwd"])  # where its child begins, and nothing else here cares
    os.environ["PATH"] = request["env"].get("PATH", os.defpath)  # where posix_spawnp looks for it
    return os.posix_spawnp(
        request["argv"][0],
        request["argv"],
        request["env"],
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
        setsid=True,
        setsigdef=(signal.SIGCHLD, signal.SIGPIPE),
    )


def child(control, sources, request, fds):
    """Never returns: runs Python in this very interpreter and ends."""
    status = 126
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
            os.close(fd)  # or what Python code of ours leaves running would hold the pipe
        control.close()
        status = run_python(sources, request)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else (0 if end.code is None else 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        os._exit(status)


def run_python(sources, request):
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    name = request["source"]
    code = sources.get(name) or compile(name, "<tatin>", "exec")
    sys.argv = ["-c", *request["args"]]
    sys.stdin, sys.stdout, sys.stderr = (open(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))
    exec(code, {"__name__": "__main__"})
    sys.stdout.flush()
    return 0


def reap(control, running):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        number = running.pop(pid, None)
        if number is not None:
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            answer(control, number, code)


def kill_all(control, running):
    """SIGKILL until no child is left: every orphan of the guest becomes a child of pid 1."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if not reap(control, running):
            return
        select.select([], [], [], 0.001)


def listen(control, request):
    server = socket.socket()
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", request["port"]))
        server.listen(64)
        socket.send_fds(control, [json.dumps({"id": request["id"], "status": 0}).encode()], [server.fileno()])
    except OSError as error:
        answer(control, request["id"], error.errno or 1)
    finally:
        server.close()


def signal_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


if __name__ == "__main__":
    drop(int(sys.argv[1]))
    serve(sys.argv[2], int(sys.argv[3]))
