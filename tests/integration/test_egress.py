"""The egress gateway on real connections: what passes and how, what it counts, what it says, and how it ends."""

from __future__ import annotations

import pytest

from tests.support.egress import allowing, connect, gateway, get, host, http_answer, rest
from worker.gateway.egress import NOTHING, EgressLimits, Policy

OPEN = Policy("open")


async def test_a_tunnel_carries_both_ways_and_is_counted() -> None:
    async with host(b"answer", until=b"question") as there, gateway(allowing(there.where)) as here:
        reader, writer = await here.tunnel(there.where)
        writer.write(b"question")
        assert await reader.read() == b"answer"
        assert bytes(there.got) == b"question"
        seen = here.gateway.evidence.destinations[there.where]
        assert (seen.connections, seen.failed, seen.sent_bytes, seen.received_bytes) == (1, 0, 8, 6)
        writer.close()
    assert here.denials == []


async def test_what_is_sent_with_the_request_for_a_tunnel_is_not_lost() -> None:
    async with host(b"answer", until=b"early") as there, gateway(allowing(there.where)) as here:
        assert (await here.raw(connect(there.where) + b"early")).endswith(b"\r\n\r\nanswer")


async def test_an_end_that_is_done_sending_still_gets_its_answer() -> None:
    async with host(b"answer", until=b"never") as there, gateway(allowing(there.where)) as here:
        reader, writer = await here.tunnel(there.where)
        writer.write(b"all of it")
        writer.write_eof()
        assert await reader.read() == b"answer"
        assert bytes(there.got) == b"all of it"
        writer.close()


async def test_a_large_download_arrives_whole() -> None:
    data = bytes(range(256)) * 20_000
    async with host(data, until=b"go") as there, gateway(allowing(there.where)) as here:
        reader, writer = await here.tunnel(there.where)
        writer.write(b"go")
        assert await reader.read() == data
        writer.close()


async def test_a_plain_request_is_passed_on_as_it_was_meant() -> None:
    async with host(http_answer(b"hello", more="X-Kept: yes\r\n")) as there, gateway(allowing(there.where)) as here:
        got = await here.raw(get(there.where, "/a%2Fb?c=d", more="Accept: x\r\nProxy-Connection: keep-alive\r\n"))
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"x-kept: yes" in head.lower()
    assert body == b"hello"
    sent = bytes(there.got).lower()
    assert sent.startswith(b"get /a%2fb?c=d http/1.1\r\n")
    assert f"host: {there.where}\r\n".encode() in sent
    assert b"accept: x\r\n" in sent
    assert b"proxy-connection" not in sent
    assert b"connection: close\r\n" in sent
    seen = here.gateway.evidence.destinations[there.where]
    assert (seen.connections, seen.sent_bytes, seen.received_bytes) == (1, 0, 5)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_goes_along_and_connections_are_used_again(framing: str) -> None:
    body = (
        b"Content-Length: 4\r\n\r\nbody"
        if framing == "length"
        else b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    )
    async with host(http_answer(), until=b"body") as there, gateway(allowing(there.where)) as here:
        head = f"POST http://{there.where}/x HTTP/1.1\r\nHost: {there.where}\r\n".encode()
        got = await here.raw(head + body + head + b"Connection: close\r\n" + body)
        assert got.count(b"HTTP/1.1 200 ") == 2
        assert there.connections == 2
        assert here.gateway.evidence.destinations[there.where].sent_bytes == 8


async def test_an_answer_before_the_end_of_a_body_reaches_the_guest() -> None:
    async with host(http_answer(b"too large", "413 Too Large"), stay=True) as there, gateway(OPEN) as here:
        head = f"POST http://{there.where}/ HTTP/1.1\r\nHost: {there.where}\r\nContent-Length: 100\r\n\r\n"
        assert (await here.raw(head.encode() + b"begin")).endswith(b"too large")


async def test_a_guest_that_waits_for_its_continue_gets_it() -> None:
    async with host(http_answer(), until=b"body") as there, gateway(OPEN) as here:
        head = f"POST http://{there.where}/ HTTP/1.1\r\nHost: {there.where}\r\nContent-Length: 4\r\n"
        reader, writer = await here.open(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", b"HTTP/1.1 502 "),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000, b"HTTP/1.1 502 "),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http_answer(), b"HTTP/1.1 200 "),
    ],
)
async def test_answers_of_all_kinds_have_an_end(answer: bytes, expected: bytes) -> None:
    async with host(answer) as there, gateway(OPEN) as here:
        assert (await here.raw(get(there.where))).startswith(expected)


async def test_a_broken_answer_is_a_broken_connection_and_no_whole_one() -> None:
    async with host(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as there, gateway(OPEN) as here:
        assert not (await here.raw(get(there.where))).endswith(b"\r\n0\r\n\r\n")


async def test_what_is_denied_is_told_once_with_what_would_allow_it() -> None:
    async with gateway(allowing("docs.example.com")) as here:
        for _ in range(3):
            got = await here.raw(connect("files.example.com:443"))
        assert got.startswith(b"HTTP/1.1 403 Blocked by Tatin\r\n")
        assert b"add to network.allow of the job: 'files.example.com:443'" in got
        assert [str(denial) for denial in here.denials] == [
            "blocked: files.example.com:443 (not allowed); to allow it, add to network.allow of the job:"
            " 'files.example.com:443'"
        ]
        assert here.gateway.evidence.denied == {("files.example.com:443", "not allowed"): 3}
        assert here.gateway.evidence.destinations == {}


async def test_a_job_without_network_is_told_what_to_write() -> None:
    async with gateway(NOTHING) as here:
        assert await here.status(get("docs.example.com")) == 403
        assert "write in the job: network: {allow: ['docs.example.com:80']}" in str(here.denials[0])


async def test_the_policy_of_a_step_names_its_own_field() -> None:
    async with gateway(Policy("allowlist", (), "network.setup")) as here:
        await here.status(connect("a.example:443"))
        assert "add to network.setup.allow of the job" in str(here.denials[0])


async def test_a_host_that_is_not_there_is_no_denial(unused_tcp_port: int) -> None:
    where = f"localhost:{unused_tcp_port}"
    async with gateway(OPEN) as here:
        got = await here.raw(connect(where))
        assert got.startswith(b"HTTP/1.1 502 Not reached\r\n")
        assert b"cannot reach" in got
        assert here.denials == []
        assert here.gateway.evidence.destinations[where].failed == 1


async def test_a_new_policy_cuts_what_an_earlier_one_let_through() -> None:
    async with host(stay=True, until=b"hello") as there, gateway(allowing(there.where)) as here:
        reader, writer = await here.tunnel(there.where)
        writer.write(b"hello")
        await here.gateway.enter(allowing("other.example"))
        assert await rest(reader) == b""
        writer.close()
        assert await here.status(connect(there.where)) == 403


async def test_the_same_policy_cuts_nothing() -> None:
    async with host(b"answer", until=b"question") as there, gateway(allowing(there.where)) as here:
        reader, writer = await here.tunnel(there.where)
        await here.gateway.enter(allowing(there.where))
        writer.write(b"question")
        assert await reader.read() == b"answer"
        writer.close()


async def test_too_many_destinations_are_added_up() -> None:
    limits = EgressLimits(destinations=2)
    async with gateway(allowing("a.example"), limits=limits) as here:
        for number in range(5):
            await here.status(connect(f"h{number}.example:443"))
        assert here.gateway.evidence.denied == {
            ("h0.example:443", "not allowed"): 1,
            ("h1.example:443", "not allowed"): 1,
            ("(others)", "not allowed"): 3,
        }
        assert len(here.denials) == 2
