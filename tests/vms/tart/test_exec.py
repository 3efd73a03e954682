"""Tart's guests without their network: SSH through ``tart exec`` (``tart_ssh = "exec"``)."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tatin_jobs.settings import load_settings
from tests.support.tart import Tart
from tests.vms.tart.conftest import spec
from worker.sandboxes.base import GUEST_HOME, SandboxProvider, StartSpec
from worker.sandboxes.tart.sandbox import TartSandbox
from worker.sandboxes.transfer import feed


@pytest.mark.longer
async def test_a_guest_is_reached_without_an_address(make_provider: Callable[[], SandboxProvider], tart: Tart) -> None:
    """It may have none; a dropped connection costs nothing, and the next worker takes the same way."""
    provider = make_provider()
    provider.configure(load_settings({"TATIN_TART_SSH": "exec"}))
    one = spec(77)
    made = await provider.create(one)
    try:
        assert isinstance(made, TartSandbox)
        assert made.link.endpoint.proxy
        data = os.urandom(3_000_000)
        async with made.exec(["sh", "-c", "cat > in"]) as process:
            assert await feed(process, [data]) == (0, "")
        back = await made.run(["cat", "in"], max_output_bytes=2**22)
        assert back.stdout == data
        run = await made.start(StartSpec(argv=("sh", "-c", "echo one; sleep 2; echo two"), cwd=GUEST_HOME))
        got = b""
        async for chunk in run.follow():
            got += chunk.data
            if got == b"one\n":
                made.link.drop()
        assert got == b"one\ntwo\n"
        await made.let_go()
        adopted = await make_provider().adopt(one.name)
        assert isinstance(adopted, TartSandbox)
        assert adopted.link.endpoint.proxy, "as it was made"
        assert (await adopted.run(["id", "-un"])).stdout == b"agent\n"
        await adopted.let_go()
    finally:
        await provider.destroy(one.name)
    assert tart.state(one.name) is None
