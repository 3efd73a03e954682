"""What the gateway costs: ``python -m benchmarks.gateway [--calls 500] [--mib 64]``. Three figures, each against a
direct connection to the same server, in the same run, in turn.

- A model call: a request with 20 KB of messages, a short answer. Added time, p50 and p99.
- A streamed answer: events of about 200 bytes, as a model sends them, as fast as they go. Throughput.
- A download through the egress gateway's tunnel. Throughput.

Server and client are processes of their own, on loopback; the gateway runs alone in this one, as it does in a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import socket
import statistics
import sys
import time
from contextlib import AsyncExitStack

from tatin_jobs.models import Model
from tatin_jobs.settings import ModelProvider
from worker.gateway import ModelGateway
from worker.gateway.egress import EgressGateway, Policy

TOKEN = "token-of-the-benchmark"
MODEL = "model"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"word " * 28)
PIECE = EVENT * 80
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
SHORT = json.dumps({"choices": [{"message": {"content": "ok"}}], "usage": {"prompt_tokens": 5000}}).encode()


async def serve() -> None:
    """A model server that has its answer ready: a long stream where one is asked for, a short answer else."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _until_blank(reader):
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            body = json.loads(await reader.readexactly(length))
            if size := body.get("stream_bytes"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                for _ in range(size // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
                writer.write(END)
                await writer.drain()
                break
            answered = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(SHORT)
            writer.write(answered + SHORT)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def _until_blank(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def ask(ports: list[int], calls: int, stream_bytes: int, tunnel_port: int) -> dict[str, list[float]]:
    """Seconds of each call, direct (0) and through the model route (1) in turn; then bytes per second of streams."""
    found: dict[str, list[float]] = {"call 0": [], "call 1": [], "stream 0": [], "stream 1": [], "tunnel": []}
    links = [socket.create_connection(("127.0.0.1", port)) for port in ports]
    for link in links:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = _request({"model": MODEL, "messages": [{"role": "user", "content": "x" * 20_000}]})
    for number in range(calls + 20):
        for index, link in enumerate(links):
            started = time.perf_counter()
            link.sendall(request)
            got = b""
            while SHORT not in got:
                got += link.recv(65536)
            if number >= 20:  # the first ones open connections
                found[f"call {index}"].append(time.perf_counter() - started)
    stream = _request({"model": MODEL, "stream": True, "stream_bytes": stream_bytes})
    for _ in range(3):
        for index, port in enumerate(ports):
            with socket.create_connection(("127.0.0.1", port)) as link:
                found[f"stream {index}"].append(_throughput(link, stream))
        with socket.create_connection(("127.0.0.1", tunnel_port)) as link:
            where = f"127.0.0.1:{ports[0]}"
            link.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
            assert b" 200 " in link.recv(4096)
            found["tunnel"].append(_throughput(link, stream))
    return found


def _request(body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def _throughput(link: socket.socket, request: bytes) -> float:
    started, size, tail = time.perf_counter(), 0, b""
    link.sendall(request)
    while b"[DONE]" not in tail:
        data = link.recv(262_144)
        assert data, "the stream broke off"
        size += len(data)
        tail = (tail + data)[-64:]
    return size / (time.perf_counter() - started)


async def measure(calls: int, stream_bytes: int) -> dict[str, list[float]]:
    """The figures that ``ask`` takes in a process of its own."""
    async with AsyncExitStack() as stack:
        server = await _child("--serve", stdin=asyncio.subprocess.PIPE)
        assert server.stdin
        assert server.stdout
        stack.callback(server.stdin.close)
        port = int(await server.stdout.readline())
        provider = ModelProvider(base_url=f"http://127.0.0.1:{port}")
        route = await stack.enter_async_context(ModelGateway(provider, Model(name=MODEL), TOKEN))
        egress = EgressGateway([ipaddress.ip_network("127.0.0.0/8")])
        await stack.enter_async_context(egress)
        await egress.enter(Policy("open"))
        loop = asyncio.get_running_loop()
        listeners = [await loop.create_server(make, "127.0.0.1", 0) for make in (route.protocol, egress.protocol)]
        ports = [str(listener.sockets[0].getsockname()[1]) for listener in listeners]
        client = await _child("--ask", str(port), *ports, f"--calls={calls}", f"--mib={stream_bytes // 2**20}")
        told, _ = await client.communicate()
        for listener in listeners:
            listener.close()
    found: dict[str, list[float]] = json.loads(told)
    return found


async def _child(*arguments: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "benchmarks.gateway", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdin=stdin, stdout=asyncio.subprocess.PIPE)


def show(found: dict[str, list[float]]) -> None:
    """The table."""
    cuts = [statistics.quantiles([value * 1000 for value in found[f"call {index}"]], n=100) for index in (0, 1)]
    for name, place in (("p50", 49), ("p99", 98)):
        direct, through = cuts[0][place], cuts[1][place]
        added = f"added {through - direct:5.2f} ms"
        print(f"  model call, {name}:    direct {direct:6.2f} ms   through {through:6.2f} ms   {added}")
    direct = statistics.median(found["stream 0"])
    for label, key in (("streamed answer", "stream 1"), ("tunnel", "tunnel")):
        through = statistics.median(found[key])
        figures = f"direct {direct / 2**20:5.0f} MiB/s   through {through / 2**20:5.0f} MiB/s"
        if key == "stream 1":
            figures += f" ({through / len(EVENT):,.0f} events/s)"
        print(f"  {label + ':':<20} {figures}   ratio {through / direct:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.ask:
        direct, through, tunnel = options.ask
        print(json.dumps(ask([direct, through], options.calls, options.mib * 2**20, tunnel)))
    else:
        print(f"{os.cpu_count()} CPUs, {options.calls} calls, streams of {options.mib} MiB")
        show(asyncio.run(measure(options.calls, options.mib * 2**20)))


if __name__ == "__main__":
    main()
