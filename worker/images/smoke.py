"""The smoke test of a new image: what a machine made from it answers, asked before any job gets one.

One for all kinds of virtual machines. Everything is asked by plain SSH commands, as ``ssh machine jq --version`` would,
and a tool must say what the manifest in the image has of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tatin_jobs.errors import CommandTimeout, TatinError
from worker.images.parts import AskedTool, asked_tools
from worker.sandboxes.base import CommandResult
from worker.sandboxes.remote import RemoteSandbox

ANSWER_SECONDS = 300.0
"""For one answer: some agents take half a minute under emulation."""
MANIFEST = "/opt/tatin/image.json"
PASSWORD = "admin"
"""That of the base image on a Mac."""
_QUESTIONS = (
    ("commands run as the user 'agent'", "id -un", "agent"),
    ("commands begin in its home", "pwd", "/home/agent"),
    ("the folder 'work' is the user's", "stat -c %U /home/agent/work", "agent"),
    ("sudo asks for no password", "sudo -n id -u", "0"),
    ("there is no account 'admin'", "getent passwd admin || echo none", "none"),
    ("no account has a password", "sudo -n awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow", ""),
    (
        "its SSH server takes no password and no root",
        "sudo -n sshd -T | grep -Ec '^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin) no$'",
        "3",
    ),
    ("it has one host key", "ls /etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_ed25519_key"),
    ("it has a machine id", "grep -Ec '^[0-9a-f]{32}$' /etc/machine-id", "1"),
    (
        "host key and machine id are newer than the image",
        f"find /etc/ssh/ssh_host_* /etc/machine-id ! -newer {MANIFEST}",
        "",
    ),
)
"""What must be so, the command that shows it, and all that it must print."""


@dataclass(frozen=True)
class Manifest:
    """What an image says of itself: ``parts`` as in ``ImageNote``; ``tools``: name -> the first line of its answer."""

    debian: str
    parts: Mapping[str, str | None]
    tools: Mapping[str, str]


async def smoke_test(sandbox: RemoteSandbox, wanted: Sequence[str]) -> Manifest:
    """Ask a machine of the new image whether it is what was wanted.

    Raises:
        TatinError: it is not; with the question and what was printed.
        SandboxError: the machine is gone.
    """
    manifest = read_manifest((await sandbox.plain(f"cat {MANIFEST}", ANSWER_SECONDS)).stdout)
    lacking = [part for part in wanted if not manifest.parts.get(part)]
    if lacking:
        raise TatinError(f"The image lacks what was wanted: {', '.join(lacking)}.")
    for what, command, right in _QUESTIONS:
        said = await _ask(sandbox, command)
        if said.stdout.decode(errors="replace").strip() != right:
            raise TatinError(f"Of a machine of the new image it is not so that {what}.", seen=_shown(command, said))
    for user in ("admin", "agent", "root"):
        if await sandbox.link.lets_in(user, PASSWORD):
            raise TatinError(f"A machine of the new image lets '{user}' in with a password.")
    for tool in asked_tools(wanted):
        await _ask_tool(sandbox, tool, manifest.tools.get(tool.name))
    return manifest


async def _ask_tool(sandbox: RemoteSandbox, tool: AskedTool, right: str | None) -> None:
    said = await _ask(sandbox, tool.command)
    if said.exit_status:
        raise TatinError(f"The tool '{tool.name}' of the new image does not answer.", seen=_shown(tool.command, said))
    first = said.stdout.decode(errors="replace").partition("\n")[0]
    if first.replace("\t", " ") != right:
        raise TatinError(
            f"The tool '{tool.name}' of the new image is not the one that its manifest names.",
            seen=f"it says '{first[:200]}', and '{MANIFEST}' has '{right}'",
        )


async def _ask(sandbox: RemoteSandbox, command: str) -> CommandResult:
    try:
        return await sandbox.plain(command, ANSWER_SECONDS)
    except CommandTimeout as error:
        raise TatinError(
            f"A machine of the new image does not answer '{command}' within {ANSWER_SECONDS:g} s."
        ) from error


def _shown(command: str, said: CommandResult) -> str:
    text = (said.stdout + said.stderr).decode(errors="replace").strip()[-300:] or "nothing"
    return f"`{command}` exited with {said.exit_status} and printed: {text}"


def read_manifest(data: bytes) -> Manifest:
    """Raises TatinError: it is not one that finalize.sh writes."""
    try:
        found = json.loads(data)
        parts = {str(part): None if said is None else str(said)[:200] for part, said in found["parts"].items()}
        tools = {str(tool): str(said) for tool, said in found["tools"].items()}
        return Manifest(str(found["debian"]), parts, tools)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TatinError(
            f"The manifest '{MANIFEST}' of the new image cannot be read.", seen=repr(data[:100])
        ) from error
