"""A sandbox for the attempt: booked and in the journal before it is made, and watched from then on."""

from __future__ import annotations

import asyncio

from tatin_jobs.errors import SandboxError
from tatin_jobs.store import Booked
from tatin_jobs.tools import InstalledTool, find_tool
from worker.attempt.parts import Parts
from worker.control import Stop
from worker.job_secrets import read_job_secrets
from worker.sandboxes.base import Sandbox, SandboxSpec, ToolMount
from worker.sandboxes.image_parts import check_parts

CREATE_SECONDS = 15 * 60
"""Of any provider: a cold boot under emulation takes minutes, a hung one for ever (F50)."""


async def create_sandbox(parts: Parts) -> Sandbox:
    """Make the sandbox ``parts.name``. The job's secrets are read before: without them none is made. That may take a
    minute, and the journal is told first: a worker that dies meanwhile has its job taken back at its next start.

    Raises:
        SandboxError: the provider could not, or took longer than ``CREATE_SECONDS``; the image lacks the agent.
        AttemptError: a secret cannot be read. PartMissing: the agent is not installed on this host.
    """
    parts.context.lingering.add(parts.name, Booked.of(parts.need, parts.lease.job.id, parts.lease.token))
    await note_sandbox(parts, parts.name)
    await read_secrets(parts)
    tools = _host_tools(parts)
    if tools:
        parts.facts.agent = parts.facts.agent.model_copy(update={"version": tools[0].version})
    try:
        async with asyncio.timeout(CREATE_SECONDS):
            parts.sandbox = await parts.context.provider.create(_sandbox_spec(parts, tools))
    except TimeoutError as error:
        raise SandboxError(f"Sandbox '{parts.name}' was not made within {CREATE_SECONDS} s.") from error
    watch(parts, parts.sandbox)
    check_parts(parts.sandbox, parts.agent_adapter.tool_packages)
    return parts.sandbox


async def note_sandbox(parts: Parts, name: str) -> None:
    """Tell the journal of a sandbox that may be made from then on. Raises OSError."""
    parts.entry = parts.entry.model_copy(update={"sandbox": name, "going": None})
    await asyncio.to_thread(parts.context.journal.write, parts.entry)


async def read_secrets(parts: Parts) -> None:
    """The secrets that the job names, from this host."""
    context = parts.context
    if not parts.spec.secrets:
        return
    parts.secrets = await asyncio.to_thread(read_job_secrets, context.settings, parts.spec.secrets, context.redactor)


def watch(parts: Parts, sandbox: Sandbox) -> None:
    """Note what the sandbox is; interrupt the attempt when it dies or its disk is full."""
    parts.facts.saw_sandbox(parts.context.provider, sandbox, parts.need)
    parts.facts.saw_parts(sandbox, parts.agent_adapter.tool_packages)
    for watching in (_watch_death(parts, sandbox), _watch_full(parts, sandbox)):
        task = asyncio.create_task(watching)
        parts.stack.callback(task.cancel)


async def _watch_death(parts: Parts, sandbox: Sandbox) -> None:
    parts.control.interrupt(Stop.DIED, await sandbox.wait_dead())


async def _watch_full(parts: Parts, sandbox: Sandbox) -> None:
    parts.control.interrupt(Stop.FULL, await sandbox.wait_full())


def _host_tools(parts: Parts) -> list[InstalledTool]:
    """The agent's programs on this host, for guests that have none of their own."""
    if parts.context.provider.own_image:
        return []
    home, settings = parts.context.home, parts.context.settings
    return [find_tool(home, name, settings.agent(name).version) for name in parts.agent_adapter.tool_packages]


def _sandbox_spec(parts: Parts, tools: list[InstalledTool]) -> SandboxSpec:
    return SandboxSpec(
        name=parts.name,
        cpus=parts.need.cpus,
        memory_mib=parts.need.memory_mib,
        disk_mib=parts.need.disk_mib,
        image=parts.spec.image,
        tools=tuple(ToolMount(tool.folder, tool.guest_folder) for tool in tools),
        ports=parts.network.ports(parts.context.provider.capabilities),
    )
