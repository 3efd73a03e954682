"""ip, exec, stop, list, get: behaviours 31 to 40."""

from __future__ import annotations

import json
import re
import signal
import socket
import time

import pytest

from tests.support.tart import Tart, ended, host_agent
from tests.support.wait import until


def test_a_failing_look_for_an_address_takes_a_second(tart: Tart) -> None:
    """31: at least; nothing is said of at most"""
    started = time.monotonic()
    done = tart("ip", "base")
    assert time.monotonic() - started >= 1
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no IP address found, is your VM running?\n"


@pytest.mark.parametrize(("resolver", "hint"), [("agent", "Guest agent for Tart"), ("arp", "ARP resolver")])
def test_each_resolver_has_its_own_words(dials: Tart, resolver: str, hint: str) -> None:
    """31"""
    dials.dial(no_lease=True, pool=0)
    dials.run("base")
    done = dials("ip", "base", "--resolver", resolver)
    assert done.returncode == 1
    assert hint in done.stderr


def test_an_address_comes_after_boot_and_stays_after_stop(dials: Tart) -> None:
    """32"""
    dials.dial(lease_after=0.5)
    dials.run("base")
    address = dials.good("ip", "base", "--wait", "30")
    assert re.fullmatch(r"[\d.]+\n", address)
    dials.good("stop", "base")
    assert dials.good("ip", "base") == address


def test_an_address_expires_can_be_wrong_and_can_run_out(dials: Tart) -> None:
    """32"""
    dials.dial(pool=1, addresses={"b": "127.64.0.9"})
    for name in "ab":
        dials.good("clone", "base", name)
    dials.run("a")
    address = dials.good("ip", "a", "--wait", "30")
    dials.run("base")
    assert dials("ip", "base").returncode == 1
    assert dials.good("ip", "b") == "127.64.0.9\n"
    dials.good("stop", "a")
    dials.good("stop", "base")
    dials.dial(lease_seconds=0.1)
    dials.run("a")
    until(lambda: dials("ip", "a").returncode == 1)
    assert address


def test_port_22_answers_some_time_after_the_address(dials: Tart) -> None:
    """33"""
    serve = "import socket, time; s = socket.create_server(('{address}', 2222)); time.sleep(300)"
    dials.dial(guest_after=1.0, guest={"argv": ["python3", "-c", serve]})
    dials.run("base")
    address = dials.good("ip", "base", "--wait", "30").strip()
    with pytest.raises(OSError, match=r"\w"):
        socket.create_connection((address, 2222), timeout=1).close()
    until(lambda: _answers(address))


def _answers(address: str) -> bool:
    try:
        socket.create_connection((address, 2222), timeout=1).close()
    except OSError:
        return False
    return True


def test_exec_has_the_guests_exit_code_and_streams(dials: Tart) -> None:
    """35"""
    dials.dial(guest={"exec": host_agent()})
    dials.run("base")
    dials.good("ip", "base", "--wait", "30")
    done = dials("exec", "base", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert dials("exec", "base", "sh", "-c", "kill -9 $$").returncode == 255
    assert dials("exec", "base", "echo", "-i", "--", "$HOME").stdout == "-i -- $HOME\n"


def test_exec_sends_stdin_only_when_asked(dials: Tart) -> None:
    """35"""
    dials.dial(guest={"exec": host_agent()})
    dials.run("base")
    dials.good("ip", "base", "--wait", "30")
    assert dials("exec", "base", "cat", stdin="hello").stdout == ""
    assert dials("exec", "-i", "base", "cat", stdin="hello").stdout == "hello"


def test_exec_without_an_agent_fails_after_a_while(dials: Tart) -> None:
    """35"""
    dials.dial(agent=False, agent_seconds=1)
    dials.run("base")
    started = time.monotonic()
    done = dials("exec", "base", "true")
    assert time.monotonic() - started >= 1
    assert done.returncode == 1
    assert done.stderr.startswith("Failed to connect to the VM using its control socket: ")
    assert done.stderr.endswith(", is the Tart Guest Agent running?\n")


def test_exec_says_that_the_vm_ended_under_it(dials: Tart) -> None:
    """35"""
    process = dials.run("base")
    dials.good("ip", "base", "--wait", "30")
    dials.dial(guest={"exec": ["sh", "-c", f"kill -9 {process.pid}; exit 255"]})
    done = dials("exec", "base", "true")
    assert (done.returncode, done.stderr) == (1, "Error: unavailable (14): Transport became inactive\n")


def test_stop_kills_at_its_time_limit_and_does_not_wait(dials: Tart) -> None:
    """36"""
    dials.dial(stop_ignored=True)
    process = dials.run("base")
    done = dials("stop", "base", "--timeout", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ended(process)[0] == -signal.SIGKILL
    assert dials("stop", "base").returncode == 2


def test_list_has_seven_keys(tart: Tart) -> None:
    """37"""
    (row,) = tart.rows()
    assert {name: type(value) for name, value in row.items()} == {
        "Source": str,
        "Name": str,
        "Disk": int,
        "Size": int,
        "Accessed": str,
        "Running": bool,
        "State": str,
    }
    assert (row["Source"], row["Disk"]) == ("local", 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["Accessed"])
    text = tart.good("list", "--format", "json")
    assert re.search(r'^    "Name" : "base",?$', text, re.MULTILINE)
    tart.good("delete", "base")
    assert tart.good("list", "--format", "json") == "[\n\n]\n"


def test_list_leaves_out_half_made_folders(tart: Tart) -> None:
    """37"""
    folder = tart.home / "vms" / "half"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tart.config("base")))
    assert [row["Name"] for row in tart.rows()] == ["base"]
    tart.good("delete", "half")
    assert not folder.exists()


def test_images_are_listed_twice(dials: Tart) -> None:
    """37"""
    dials.dial(registry={"example.test/debian:1": {"from": str(dials.home / "vms" / "base")}})
    dials.good("pull", "example.test/debian:1")
    rows = dials.rows("--source", "oci")
    assert [row["Source"] for row in rows] == ["OCI", "OCI"]
    assert {re.sub(r"sha256:\w+", "DIGEST", row["Name"]) for row in rows} == {
        "example.test/debian:1",
        "example.test/debian@DIGEST",
    }


def test_list_may_fail_once(dials: Tart) -> None:
    """38"""
    dials.dial(list_fails=1)
    assert dials("list").returncode == 1
    assert dials("list").returncode == 0


def test_get_has_nine_keys(tart: Tart) -> None:
    """39"""
    shown = json.loads(tart.good("get", "base", "--format", "json"))
    assert set(shown) == {"OS", "CPU", "Memory", "Disk", "DiskFormat", "Size", "Display", "Running", "State"}
    assert (shown["OS"], shown["Memory"], shown["Disk"]) == ("linux", 4096, 2)
    assert re.fullmatch(r"\d+\.\d{3}", shown["Size"])
    assert tart("get", "example.test/debian:1").returncode == 2


def test_quiet_prints_names_only(tart: Tart) -> None:
    """40"""
    tart.good("clone", "base", "a")
    assert tart.good("list", "-q") == "a\nbase\n"
    assert "base" in tart.good("list")
