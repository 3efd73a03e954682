"""A git server over HTTP on loopback (``git http-backend``), which can ask for a password, redirect or misbehave."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


@dataclass
class GitServer:
    """Serves the repositories below ``root``. ``requests`` are the paths asked for, so far."""

    root: Path
    port: int = 0
    password: str | None = None
    """With it, user ``tatin`` and this password are wanted."""
    redirect: str | None = None
    """With it, everything is redirected to this address."""
    endless: bool = False
    """With it, each answer goes on for ever."""
    requests: list[str] = field(default_factory=list)

    def url(self, name: str = "repo") -> str:
        """The address of a repository."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def count(self, part: str) -> int:
        """How many requests had ``part`` in them."""
        return sum(part in request for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[GitServer]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        state = self.server_state
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        state.requests.append(f"{self.command} {self.path}{' fetch' if b'command=fetch' in body else ''}")
        if state.redirect:
            self._answer(302, {"Location": state.redirect + self.path}, b"")
        elif state.password and not self._knows(state.password):
            self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        elif state.endless:
            self._go_on_for_ever()
        else:
            self._backend(path, query, body)

    def _knows(self, password: str) -> bool:
        wanted = base64.b64encode(f"tatin:{password}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def _backend(self, path: str, query: str, body: bytes) -> None:
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server_state.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200").split()[0])
        self._answer(status, headers, rest)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _go_on_for_ever(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.end_headers()
        self.wfile.write(b"001e# service=git-upload-pack\n0000")
        try:
            while True:
                self.wfile.write(b"003e" + b"0" * 40 + b" refs/heads/" + b"x" * 6 + b"\n")
        except OSError:
            return

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@contextmanager
def git_server(root: Path) -> Iterator[GitServer]:
    """A server in threads of its own; its port is free for others afterwards."""
    state = GitServer(root)
    handler = type("Handler", (_Handler,), {"server_state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
