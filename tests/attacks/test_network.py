"""What a hostile guest tries through its gateway: other hosts, the host's own, crafted requests, outliving its end.

The guest is a real one wherever where it runs matters; its gateway is the real one, and so are the hosts behind
it, on loopback, which the gateway trusts for these tests alone. `127.0.0.2` stands for what it does not trust.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tatin_jobs.home import Home
from tests.attacks.conftest import ProviderOf
from tests.support.egress import allowing, connect, gateway, get, host, http_answer, rest
from tests.support.wait import until
from worker.gateway.egress import EgressGateway, EgressLimits, Policy
from worker.guest_network import PROXY_PORT
from worker.sandboxes.base import Sandbox, SandboxProvider, SandboxSpec

HOME_ID = "0a1b2c3d"
OPEN = Policy("open")
TRUSTED = "127.0.0.1/32"

_ASK = """
import json, socket, sys
port, answers = int(sys.argv[1]), []
for request in json.load(sys.stdin):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as link:
            link.settimeout(20)
            link.sendall(request.encode("latin-1"))
            answer = b""
            while piece := link.recv(65536):
                answer += piece
    except OSError as error:
        answer = b"none: " + str(error).encode()
    answers.append(answer.decode("latin-1"))
print(json.dumps(answers))
"""


@pytest.fixture
async def provider(tmp_path: Path, provider_of: ProviderOf) -> SandboxProvider:
    home = Home(tmp_path / "home")
    home.prepare()
    (home.root / "id").write_text(HOME_ID)
    return provider_of(home)


async def _guest(provider: SandboxProvider, number: int, through: EgressGateway) -> Sandbox:
    spec = SandboxSpec(name=f"tatin-{HOME_ID}-network-{number}", cpus=1, memory_mib=256, disk_mib=1000)
    sandbox = await provider.create(spec)
    await sandbox.serve(PROXY_PORT, through.protocol)
    return sandbox


@pytest.fixture
async def guests(provider: SandboxProvider) -> AsyncIterator[list[Sandbox]]:
    made: list[Sandbox] = []
    yield made
    for sandbox in made:
        await provider.destroy(sandbox.name)


async def _ask(guest: Sandbox, *requests: bytes, port: int = PROXY_PORT) -> list[str]:
    """What a program in the guest gets for these, each on a connection of its own."""
    stdin = json.dumps([request.decode("latin-1") for request in requests]).encode()
    done = await guest.run(["python3", "-c", _ASK, str(port)], stdin=stdin)
    assert done.exit_status == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


def _statuses(answers: list[str]) -> list[str]:
    return [answer.split(" ", 2)[1] for answer in answers]


async def test_a27_a50_no_address_that_is_not_public_is_reached_in_any_form(
    provider: SandboxProvider, guests: list[Sandbox]
) -> None:
    """A27, A50: the host, its network, metadata services, other guests; in mode open, by address and by name."""
    own = {item.address for items in psutil.net_if_addrs().values() for item in items if item.family == socket.AF_INET}
    hosts = [
        *("127.0.0.1", "127.0.0.53", "0.0.0.0", "10.0.2.2", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("[::1]", "[::]", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "168.63.129.16", "192.0.0.192", "localhost", "LOCALHOST.", *own),
    ]
    async with host(stay=True) as there, EgressGateway() as through:
        await through.enter(OPEN)
        guests.append(await _guest(provider, 1, through))
        places = [f"{text}:{there.port}" for text in hosts]
        answers = await _ask(guests[0], *map(connect, places), *map(get, places))
        assert set(_statuses(answers)) == {"403"}
        assert all("private address" in answer for answer in answers)
        assert there.connections == 0
        assert {why for _, why in through.evidence.denied} == {"private address"}


async def test_a50_a74_numbers_that_a_resolver_takes_for_addresses_are_no_names(
    provider: SandboxProvider, guests: list[Sandbox]
) -> None:
    """A50, A74."""
    async with host(stay=True) as there, EgressGateway() as through:
        await through.enter(OPEN)
        guests.append(await _guest(provider, 1, through))
        places = [f"{text}:{there.port}" for text in ("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4.5")]
        assert set(_statuses(await _ask(guests[0], *map(connect, places), *map(get, places)))) == {"400"}
        assert there.connections == 0


async def test_a27_a74_a_redirect_leads_no_further_than_a_request(
    provider: SandboxProvider, guests: list[Sandbox]
) -> None:
    """A27, A74: the gateway follows none, and what the guest asks for next is looked at like the first."""
    script = """
import sys, urllib.request, urllib.error
try:
    urllib.request.urlopen(sys.argv[1], timeout=20)
    print("reached")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
    async with host(stay=True) as inner:
        location = f"Location: http://127.0.0.2:{inner.port}/\r\n"
        async with host(http_answer(b"", "302 Found", location)) as outer, EgressGateway(_trusted()) as through:
            await through.enter(OPEN)
            guests.append(await _guest(provider, 1, through))
            env = {"http_proxy": f"http://127.0.0.1:{PROXY_PORT}"}
            done = await guests[0].run(["python3", "-c", script, f"http://localhost:{outer.port}/"], env=env)
            assert done.stdout.startswith(b"403 Tatin blocked: 127.0.0.2:"), done.stderr
            assert (outer.connections, inner.connections) == (1, 0)


@pytest.mark.needs("git")
async def test_a27_git_is_led_no_further_by_a_redirect(provider: SandboxProvider, guests: list[Sandbox]) -> None:
    """A27: a clone in the guest, of a server that sends it to the host's own network."""
    async with host(stay=True) as inner:
        location = f"Location: http://127.0.0.2:{inner.port}/r/info/refs?service=git-upload-pack\r\n"
        async with host(http_answer(b"", "301 Moved", location)) as outer, EgressGateway(_trusted()) as through:
            await through.enter(OPEN)
            guests.append(await _guest(provider, 1, through))
            env = {"http_proxy": f"http://127.0.0.1:{PROXY_PORT}", "GIT_TERMINAL_PROMPT": "0"}
            done = await guests[0].run(["git", "clone", f"http://localhost:{outer.port}/r", "r"], env=env)
            assert done.exit_status
            assert (outer.connections > 0, inner.connections) == (True, 0)


async def test_a74_nothing_but_what_is_allowed_is_reached(provider: SandboxProvider, guests: list[Sandbox]) -> None:
    """A74: other hosts, other ports of an allowed host, and names that look like it."""
    async with host(stay=True) as there, host(stay=True) as other, EgressGateway(_trusted()) as through:
        await through.enter(allowing(there.where, "*.allowed.example"))
        guests.append(await _guest(provider, 1, through))
        places = [
            *(other.where, f"localhost:{22}", f"127.0.0.1:{there.port}", f"localhost.evil.example:{there.port}"),
            *("allowed.example:443", "xallowed.example:443", "a.allowed.example.evil.example:443"),
            *("a.allowed.example:22", "a.allowed.example:25"),
        ]
        answers = await _ask(guests[0], *map(connect, places))
        assert set(_statuses(answers)) == {"403"}
        assert all("not allowed" in answer for answer in answers)
        assert (there.connections, other.connections) == (0, 0)


async def test_a74_a_host_header_chooses_no_other_host() -> None:
    """A74."""
    async with host(http_answer()) as there, gateway(allowing(there.where)) as here:
        other = [f"{there.where}\r\nHost: other.example", "other.example", f"localhost:{there.port + 1}"]
        for request in (*(get(there.where, host=named) for named in other), get(there.where).replace(b"Host", b"X")):
            assert await here.status(request) == 400
        assert there.connections == 0


async def test_a74_what_stands_for_a_host_is_read_one_way() -> None:
    """A74: user parts, backslashes, fragments, other schemes and forms of a request."""
    async with host(http_answer()) as there, gateway(allowing(there.where)) as here:
        where = there.where
        for target in (
            f"http://{where}@other.example/",
            f"http://other.example@{where}/",
            f"http://{where}\\@other.example/",
            f"http://{where}#@other.example/",
            f"https://{where}/",
            f"ftp://{where}/",
            f"//{where}/",
            "/",
            "*",
        ):
            assert await here.status(f"GET {target} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()) == 400, target
        assert there.connections == 0


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        " folded: x\r\n",
        "X: a\r\n\0: b\r\n",
        "Bad Header: x\r\n",
    ],
)
async def test_a74_a_body_has_one_length(headers: str) -> None:
    """A74: smuggling. What two servers could read in two ways reaches none."""
    async with host(http_answer(), until=b"never", stay=True) as there, gateway(allowing(there.where)) as here:
        request = f"POST http://{there.where}/ HTTP/1.1\r\nHost: {there.where}\r\n{headers}\r\n0\r\n\r\n"
        assert await here.status(f"{request}GET /inner HTTP/1.1\r\n\r\n".encode()) in (400, 501)
        assert b"inner" not in there.got


async def test_a74_a_request_behind_a_request_is_looked_at_like_the_first() -> None:
    """A74."""
    async with host(http_answer()) as there, gateway(allowing(there.where)) as here:
        first = get(there.where).replace(b"Connection: close\r\n", b"")
        got = await here.raw(first + get("other.example"))
        assert got.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 403 " in got
        assert there.connections == 1


async def test_a74_an_answer_cannot_bring_a_second_one_along() -> None:
    """A74: what a host sends behind its answer is not taken for the answer to the next request."""
    async with host(http_answer() + http_answer(b"smuggled")) as there, gateway(allowing(there.where)) as here:
        request = get(there.where)
        got = await here.raw(request.replace(b"Connection: close\r\n", b"") + request)
        assert got.count(b"hello") == 2
        assert b"smuggled" not in got


async def test_a74_a_head_has_a_size_and_a_time() -> None:
    """A74."""
    limits = EgressLimits(head_seconds=0.3, header_bytes=4096)
    async with gateway(OPEN, limits=limits) as here:
        assert await here.status(b"GET http://a.example/ HTTP/1.1\r\nX: " + b"x" * 9000) == 400
        assert await here.raw(b"GET http://a.example/ HT") == b""
        assert await here.raw(b"") == b""


async def test_a74_a_tunnel_in_which_nothing_moves_is_cut() -> None:
    """A74."""
    async with host(stay=True) as there, gateway(OPEN, limits=EgressLimits(silence_seconds=0.3)) as here:
        reader, writer = await here.tunnel(there.where)
        assert await rest(reader) == b""
        writer.close()


async def test_a74_a77_an_attempt_moves_only_so_many_bytes() -> None:
    """A74, A77: an endless stream, in either direction; then nothing passes any more."""
    async with host(b"x" * 200_000, until=b"go") as there:
        async with gateway(OPEN, limits=EgressLimits(total_bytes=100_000)) as here:
            reader, writer = await here.tunnel(there.where)
            writer.write(b"go")
            assert len(await rest(reader)) <= 100_000
            writer.close()
            assert ("(everything)", "limit") in here.gateway.evidence.denied


async def test_a74_connections_at_once_have_a_number() -> None:
    """A74."""
    async with host(stay=True) as there, gateway(OPEN, limits=EgressLimits(connections=3)) as here:
        held = [await here.tunnel(there.where) for _ in range(3)]
        assert await here.raw(connect(there.where)) == b""
        held[0][1].close()
        for _, writer in held[1:]:
            writer.close()


async def test_a75_a_guest_reaches_its_own_gateway_only(provider: SandboxProvider, guests: list[Sandbox]) -> None:
    """A75: what one attempt is allowed is no other's."""
    async with host(stay=True) as there, EgressGateway(_trusted()) as one, EgressGateway(_trusted()) as two:
        await one.enter(allowing(there.where))
        guests += [await _guest(provider, 1, one), await _guest(provider, 2, two)]
        assert _statuses(await _ask(guests[1], connect(there.where))) == ["403"]
        assert one.evidence.denied == {}
        assert there.connections == 0


async def test_a75_a78_a_gateway_ends_with_its_attempt(provider: SandboxProvider, guests: list[Sandbox]) -> None:
    """A75, A78: what is open is cut, and nothing is taken any more, though the guest still lives."""
    async with host(stay=True) as there:
        async with EgressGateway(_trusted()) as through:
            await through.enter(allowing(there.where))
            guests.append(await _guest(provider, 1, through))
            asking = asyncio.create_task(_ask(guests[0], connect(there.where)))
            await asyncio.to_thread(until, lambda: there.connections)
        (answer,) = await asyncio.wait_for(asking, 10)
        assert "reset" in answer or answer.startswith("HTTP/1.1 200")
        (answer,) = await _ask(guests[0], connect(there.where))
        assert answer == "" or answer.startswith("none: ")
        assert there.connections == 1


async def test_a77_a_name_that_is_not_allowed_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A77: or a name alone would carry data out."""
    looked_up: list[Any] = []
    real = socket.getaddrinfo

    def listening(name: Any, *args: Any, **options: Any) -> Any:
        looked_up.append(name)
        return real(name, *args, **options)

    async with host(stay=True) as there, gateway(allowing(there.where, "192.0.2.0/24")) as here:
        monkeypatch.setattr(socket, "getaddrinfo", listening)
        for place in ("secret-in-a-name.evil.example:443", "localhost.evil.example:443", "localhost:1"):
            assert await here.status(connect(place)) == 403
        assert "secret-in-a-name.evil.example" not in looked_up
        assert not [name for name in looked_up if name == "localhost"]


async def test_a76_names_that_take_for_ever_hold_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A76, I10: the threads that look names up are not those in which the worker does its own work."""
    let_go, asked = threading.Event(), []

    def never(name: Any, *args: Any, **options: Any) -> Any:
        asked.append(name)
        let_go.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async with gateway(OPEN) as here:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", never)
            asking = [asyncio.create_task(here.status(connect(f"slow{number}.example:443"))) for number in range(60)]
            try:
                await asyncio.sleep(0)
                async with asyncio.timeout(10):
                    while len(asked) < EgressLimits().lookups:
                        await asyncio.to_thread(threading.Event().wait, 0.01)
            finally:
                let_go.set()
            assert set(await asyncio.gather(*asking)) == {502}


async def test_a27_a77_a_name_that_changes_its_address_is_reached_where_it_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A27, A77: DNS rebinding. No name server of a test's own can be asked by the system here, so the system's function
    is what answers differently each time."""
    answers: list[str] = []
    real = socket.getaddrinfo

    def changing(name: Any, port: Any, *args: Any, **options: Any) -> Any:
        if name != "changing.example":
            return real(name, port, *args, **options)
        answers.append("asked")
        first, then = ["127.0.0.2", "127.0.0.1"], ["127.0.0.2"]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in (then if len(answers) > 1 else first)
        ]

    async with host(stay=True) as there, gateway(OPEN, trusted=[TRUSTED]) as here:
        monkeypatch.setattr(socket, "getaddrinfo", changing)
        place = f"changing.example:{there.port}"
        _, writer = await here.tunnel(place)
        assert (len(answers), there.connections) == (1, 1)
        writer.close()
        assert await here.status(connect(place)) == 403
        assert there.connections == 1


def _trusted() -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(TRUSTED)]
