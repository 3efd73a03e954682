"""A prepared repository into a guest: one command there, which unpacks the tar as ``.git`` and checks the commit out.

That is a clone without the copy: the tar is a bare repository made for this, so git has nothing to do but the files.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from tatin_jobs.errors import CommandTimeout, DiskFull, RepositoryError, SandboxError
from worker.collect.guest_files import BASE_INDEX_NAME
from worker.repository.prepared import PreparedRepo
from worker.sandboxes.base import GUEST_REPO, GUEST_RUN, GuestProcess, Sandbox

CLONE_SECONDS = 900
_CHUNK_BYTES = 2**18
_SCRIPT: Final = Path(__file__).with_name("into_guest.sh").read_text()


async def clone_into(
    sandbox: Sandbox,
    prepared: PreparedRepo,
    *,
    repo_path: str = GUEST_REPO,
    run_path: str = GUEST_RUN,
    timeout_seconds: float = CLONE_SECONDS,
) -> None:
    """Make ``repo_path`` in the guest a work tree of the prepared commit, with its address (and no credential) as origin.

    A copy of the fresh index goes to ``run_path``: with it the patch need not read the files that did not change.

    Raises:
        RepositoryError: the guest cannot unpack it or check it out; DiskFull's reason when its disk is full.
        SandboxError: the sandbox died.
        CommandTimeout: it took longer than ``timeout_seconds``.
    """
    argv = ["sh", "-c", _SCRIPT, "sh", repo_path, _config(prepared), f"{run_path}/{BASE_INDEX_NAME}"]
    try:
        async with asyncio.timeout(timeout_seconds), sandbox.exec(argv, cwd="/") as process:
            status, stderr = await _feed(process, prepared.tar)
    except TimeoutError as error:
        raise CommandTimeout(
            f"Unpacking the repository in sandbox '{sandbox.name}' took longer than {timeout_seconds:g} s.",
            try_="set `depth` in the job's repo.",
        ) from error
    if status != 0:
        raise _failure(sandbox, status, stderr)


async def _feed(process: GuestProcess, tar: Path) -> tuple[int, str]:
    """Exit status and the end of stderr, after all of ``tar`` went to its stdin."""
    kept = bytearray()

    async def feed() -> None:
        with await asyncio.to_thread(tar.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await process.write(chunk)
        await process.close_stdin()

    async def drain_stdout() -> None:
        while await process.read("stdout"):
            pass

    async def drain_stderr() -> None:
        while chunk := await process.read("stderr"):
            kept.extend(chunk)
            del kept[:-4096]

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        group.create_task(drain_stdout())
        group.create_task(drain_stderr())
    return await process.wait(), kept.decode(errors="replace")


def _config(prepared: PreparedRepo) -> str:
    """The clone's ``.git/config``."""
    version, extension = ("0", "") if len(prepared.commit) == 40 else ("1", "[extensions]\n\tobjectFormat = sha256\n")
    lines = [
        f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n\tfileMode = true\n\tlogAllRefUpdates = true\n",
        extension,
        "[user]\n\tname = Tatin agent\n\temail = agent@tatin.invalid\n",
    ]
    if prepared.origin:
        url = prepared.origin.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'[remote "origin"]\n\turl = "{url}"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n')
    return "".join(lines)


def _failure(sandbox: Sandbox, status: int, stderr: str) -> RepositoryError | SandboxError | DiskFull:
    lines = [line for line in stderr.splitlines() if line.strip()]
    seen = "; ".join("".join(c if c.isprintable() else "?" for c in line)[:200] for line in lines[-3:])
    seen = seen or f"exit status {status}"
    if "No space left on device" in stderr:
        return DiskFull(
            f"The disk of sandbox '{sandbox.name}' is too small for the repository.",
            seen=seen,
            try_="ask for more with `resources.disk` in the job file.",
        )
    if status == 127:
        return SandboxError(f"The guest of sandbox '{sandbox.name}' has no git or no tar.", seen=seen)
    return RepositoryError(f"The repository could not be unpacked in sandbox '{sandbox.name}'.", seen=seen)
