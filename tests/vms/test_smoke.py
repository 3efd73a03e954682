"""The smoke test of images, asked of a real machine: the built image passes, and what is wrong with one is found."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import TatinError
from worker.images.parts import asked_tools, wanted_parts
from worker.images.smoke import smoke_test
from worker.images.wish import BuildWish
from worker.sandboxes.base import Sandbox
from worker.sandboxes.remote import RemoteSandbox

PARTS = wanted_parts(BuildWish(profile="ci"))
_SAYS = "printf '#!/bin/sh\\n{}\\n' >.local/bin/{} && chmod 755 .local/bin/{}"


async def _run(sandbox: Sandbox, command: str) -> None:
    result = await sandbox.run(["sh", "-c", command], timeout_seconds=120)
    assert result.exit_status == 0, result.stderr


@pytest.mark.longer
async def test_the_image_that_the_build_made_passes(sandbox: Sandbox) -> None:
    assert isinstance(sandbox, RemoteSandbox)
    manifest = await smoke_test(sandbox, PARTS)
    assert [*manifest.tools] == [tool.name for tool in asked_tools(PARTS)]
    assert all(manifest.tools.values())
    assert {part for part, said in manifest.parts.items() if said} == set(PARTS)


@pytest.mark.parametrize(
    ("spoil", "mend", "what", "seen"),
    [
        (
            _SAYS.format("echo broken; exit 3", "jq", "jq"),
            "true",
            "tool 'jq'.*does not answer",
            "3 and printed: broken",
        ),
        (_SAYS.format("echo 9.9.9", "opencode", "opencode"), "true", "tool 'opencode'.*manifest", "says '9.9.9'"),
        ("sudo -n useradd admin", "sudo -n userdel admin", "no account 'admin'", "admin:x:"),
        ("echo agent:admin | sudo -n chpasswd", "sudo -n usermod -p '!' agent", "no account has a password", "agent"),
        (
            "sudo -n touch -d 2001-01-01 /etc/machine-id",
            "sudo -n touch /etc/machine-id",
            "newer than the image",
            "/etc/machine-id",
        ),
        (
            "sudo -n touch /etc/ssh/ssh_host_rsa_key",
            "sudo -n rm /etc/ssh/ssh_host_rsa_key",
            "it has one host key",
            "ssh_host_rsa_key",
        ),
        ("sudo -n chown root work", "sudo -n chown agent work", "'work' is the user's", "root"),
    ],
)
async def test_what_is_wrong_is_found_and_told(sandbox: Sandbox, spoil: str, mend: str, what: str, seen: str) -> None:
    """A54 too: an image with a known user, a password or a key that all share is not published."""
    assert isinstance(sandbox, RemoteSandbox)
    await _run(sandbox, spoil)
    try:
        with pytest.raises(TatinError, match=what) as caught:
            await smoke_test(sandbox, PARTS)
        assert seen in (caught.value.seen or "")
    finally:
        await _run(sandbox, mend)


async def test_a_part_that_is_wanted_and_not_there_is_told(sandbox: Sandbox) -> None:
    assert isinstance(sandbox, RemoteSandbox)
    with pytest.raises(TatinError, match="lacks what was wanted: go"):
        await smoke_test(sandbox, ("python", "go"))
