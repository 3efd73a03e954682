"""What the guest needs beside the repository: prompt, inputs, the agent's configuration, and its network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.agents.base import AgentTask
from worker.agents.config import user_config
from worker.attempt.model_route import open_route
from worker.attempt.parts import Parts
from worker.collect.guest_files import SNAPSHOT_FOLDERS
from worker.sandboxes.base import GUEST_HOME, GUEST_RUN, GUEST_WORK, Sandbox
from worker.sandboxes.transfer import push_files

PROMPT_PATH = f"{GUEST_RUN}/prompt.txt"


async def provision(parts: Parts, sandbox: Sandbox) -> None:
    """Prompt, inputs and the agent's configuration into the guest, or to go in with the repository where there are no
    inputs: these may tell a tool, which the network asks, where it fetches from. The way to its model."""
    files, config = await _read_inputs(parts), await _read_config(parts)
    parts.plan = parts.agent_adapter.plan(
        AgentTask(
            job_id=parts.lease.job.id,
            spec=parts.spec,
            prompt_path=PROMPT_PATH,
            repo_path=parts.cwd,
            home_path=GUEST_HOME,
            route=await open_route(parts, sandbox),
            prompt_start=files[PROMPT_PATH][:64],
            config=config,
        )
    )
    files[PROMPT_PATH] = parts.plan.stdin_prefix + files[PROMPT_PATH]
    files |= {**parts.plan.files, **SNAPSHOT_FOLDERS}
    if parts.spec.inputs:
        await push_files(sandbox, files)
    else:
        parts.unsent = files
    await connect(parts, sandbox)


async def connect(parts: Parts, sandbox: Sandbox) -> None:
    """The guest's way to what its job allows."""
    await parts.stack.enter_async_context(parts.network)
    await parts.network.attach(sandbox)


async def push_inputs(parts: Parts, sandbox: Sandbox) -> None:
    """The prompt and the inputs as they were submitted, over what may be there by now."""
    await push_files(sandbox, await _read_inputs(parts))


async def _read_inputs(parts: Parts) -> dict[str, bytes]:
    """The prompt and the inputs; most jobs have no more than a prompt in their record, and nothing to read."""
    blobs, spec = parts.context.blobs, parts.spec
    paths = {PROMPT_PATH: blobs.path(spec.prompt_blob)} if spec.prompt_blob else {}
    paths |= {f"{GUEST_WORK}/{item.name}": blobs.path(item.blob) for item in spec.inputs}
    files = {PROMPT_PATH: (spec.prompt or "").encode()}
    return files | await asyncio.to_thread(_read_all, paths) if paths else files


def _read_all(paths: Mapping[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in paths.items()}


async def _read_config(parts: Parts) -> Mapping[str, Any]:
    path = parts.context.settings.agent(parts.spec.tool).config
    return await asyncio.to_thread(user_config, path) if path else {}
