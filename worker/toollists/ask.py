"""Asks the tools in a sandbox, before anything of the repository is in it: what they say then comes from the image, the
host and the job, and not from whoever wrote the repository."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tatin_jobs.errors import CommandTimeout, RepositoryError
from tatin_jobs.netrules import IPNetwork, parse_host
from tatin_jobs.repoaddress import parse_address
from worker.gateway.egress import EgressGateway, Policy, Target
from worker.gateway.egress.policy import exactly
from worker.sandboxes.base import Sandbox

LEARNING_PORT = 4019
"""The port of the guest's loopback at which a tool is watched that does not tell."""
ASK_SECONDS = 150.0
MAX_HOSTS = 50
_WATCHED = "cargo"
_PORTS = {"http": 80, "https": 443}
_SOURCE = (Path(__file__).parent / "guest.py").read_text()


@dataclass(frozen=True)
class ToolList:
    """The hosts of one tool; ``seen`` says why there are none."""

    targets: tuple[Target, ...] = ()
    seen: str = ""


async def ask(
    sandbox: Sandbox,
    tools: Sequence[str],
    *,
    env: Mapping[str, str],
    repo_url: str | None,
    trusted: Sequence[IPNetwork] = (),
) -> dict[str, ToolList]:
    """What each of ``tools`` is set up to use in this sandbox. ``env``: the job's; ``git`` is the repository's host.

    Raises:
        SandboxError: the sandbox failed. A tool that is missing or fails has an empty list.
    """
    lists: dict[str, ToolList] = {}
    if "git" in tools:
        lists["git"] = _host_of_repository(repo_url)
    asked = [tool for tool in tools if tool not in ("git", _WATCHED)]
    if asked:
        lists |= await _ask(sandbox, asked, env)
    if _WATCHED in tools:
        lists[_WATCHED] = await _watch(sandbox, env, trusted)
    return lists


async def _ask(sandbox: Sandbox, tools: Sequence[str], env: Mapping[str, str]) -> dict[str, ToolList]:
    try:
        argv = ["python3", "-B", "-c", _SOURCE, *tools]
        answer = await sandbox.run(argv, env=env, timeout_seconds=ASK_SECONDS, max_output_bytes=2**18)
    except CommandTimeout as error:
        return {tool: ToolList(seen=str(error)) for tool in tools}
    said = _answers(answer.stdout)
    seen = answer.stderr.decode(errors="replace").strip()[-200:] or f"it exited with {answer.exit_status}"
    return {tool: _tool_list(said.get(tool), seen) for tool in tools}


async def _watch(sandbox: Sandbox, env: Mapping[str, str], trusted: Sequence[IPNetwork]) -> ToolList:
    """Cargo, twice: where it turns to first is its index, and from that it learns where crates are."""
    proxy = f"http://127.0.0.1:{LEARNING_PORT}"
    env = {**env, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "http_proxy": proxy, "https_proxy": proxy}
    async with EgressGateway(trusted) as gateway:
        await sandbox.serve(LEARNING_PORT, gateway.protocol)
        first = (await _ask(sandbox, [_WATCHED], env))[_WATCHED]
        turned_to = [target for where, _ in gateway.evidence.denied if (target := _target(f"//{where}"))]
        if not turned_to:
            return first
        await gateway.enter(Policy("allowlist", tuple(exactly(target) for target in turned_to)))
        second = (await _ask(sandbox, [_WATCHED], env))[_WATCHED]
    return ToolList(tuple(dict.fromkeys([*turned_to, *second.targets])), second.seen)


def _answers(stdout: bytes) -> dict[str, Any]:
    try:
        said = json.loads(stdout.decode("utf-8", "replace").strip().rpartition("\n")[2])
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _tool_list(answer: object, seen: str) -> ToolList:
    if not isinstance(answer, dict) or not isinstance(answer.get("addresses"), list):
        return ToolList(seen=seen)
    found = [target for address in answer["addresses"][:MAX_HOSTS] if (target := _target(address))]
    seen = "" if found else str(answer.get("seen") or "it is set up to use no host")[:300]
    return ToolList(tuple(dict.fromkeys(found)), seen)


def _target(address: object) -> Target | None:
    """The host and port of an http or https address; None for others (files, ``direct``)."""
    if not isinstance(address, str):
        return None
    try:
        parts = urlsplit(address.removeprefix("sparse+"))
        host, port = parse_host(parts.hostname or ""), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return Target(host, port) if host and port else None


def _host_of_repository(url: str | None) -> ToolList:
    try:
        address = parse_address(url) if url else None
    except RepositoryError:
        address = None
    if address is None or address.host is None:
        return ToolList(seen="the job's repository has no address")
    port = address.port if address.scheme in _PORTS and address.port else _PORTS["https"]
    target = _target(f"//{f'[{address.host}]' if ':' in address.host else address.host}:{port}")
    return ToolList((target,)) if target else ToolList(seen="its host cannot be written as a rule")
