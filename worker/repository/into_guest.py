"""A prepared repository into a guest: one command there, which unpacks the tar as ``.git`` and checks the commit out.

That is a clone without the copy: the tar is a bare repository made for this, so git has nothing to do but the files. A
small one goes in as files where the sandbox has a way for few, and then git is the only program that runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tatin_jobs.barerepo import format_config
from tatin_jobs.errors import AttemptError, CommandTimeout, DiskFull, RepositoryError, SandboxError
from tatin_jobs.states import Reason
from worker.collect.guest_files import BASE_INDEX_NAME
from worker.repository.prepared import PreparedRepo
from worker.repository.small import as_files
from worker.sandboxes.base import GUEST_REPO, GUEST_RUN, CommandResult, Sandbox
from worker.sandboxes.transfer import feed, push_files

CLONE_SECONDS = 900
NO_PROGRAM = 127
_SCRIPT: Final = Path(__file__).with_name("into_guest.sh").read_text()
_CHECK_OUT: Final = ("git", "-c", "core.hooksPath=/dev/null", "read-tree", "--reset", "-u", "HEAD")
_GIT_ENV: Final = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_TERMINAL_PROMPT": "0",
}


async def clone_into(
    sandbox: Sandbox,
    prepared: PreparedRepo,
    beside: Mapping[str, bytes] = MappingProxyType({}),
    *,
    repo_path: str = GUEST_REPO,
    run_path: str = GUEST_RUN,
    timeout_seconds: float = CLONE_SECONDS,
) -> None:
    """Make ``repo_path`` in the guest a work tree of the prepared commit, its address (without credentials) as origin.

    Before it the files ``beside`` are written, as by ``push_files``. A copy of the fresh index goes to ``run_path``:
    with it the patch need not read the files that did not change.

    Raises:
        RepositoryError: the guest cannot unpack it or check it out, or the prepared tar is gone.
        DiskFull: the guest's disk is full.
        SandboxError: the sandbox died.
        CommandTimeout: it took longer than ``timeout_seconds``.
    """
    base_index = f"{run_path}/{BASE_INDEX_NAME}"
    try:
        async with asyncio.timeout(timeout_seconds):
            done = await _put_and_check_out(sandbox, prepared, beside, repo_path, base_index)
        if done is not None:
            status, stderr = done.exit_status, done.stderr.decode(errors="replace")
        else:
            await push_files(sandbox, beside)
            async with asyncio.timeout(timeout_seconds):
                argv = ["/bin/sh", "-c", _SCRIPT, "sh", repo_path, _config(prepared), base_index, *_CHECK_OUT]
                async with sandbox.exec(argv, env=_GIT_ENV, cwd="/") as process:
                    status, stderr = await feed(process, [prepared.tar])
    except TimeoutError as error:
        raise CommandTimeout(
            f"Unpacking the repository in sandbox '{sandbox.name}' took longer than {timeout_seconds:g} s.",
            try_="set `depth` in the job's repo.",
            reason=Reason.REPO,
        ) from error
    except FileNotFoundError as error:
        raise RepositoryError("The prepared repository was removed from the worker.", seen=str(error)) from error
    if status != 0:
        raise _failure(sandbox, status, stderr)


async def _put_and_check_out(
    sandbox: Sandbox, prepared: PreparedRepo, beside: Mapping[str, bytes], repo_path: str, base_index: str
) -> CommandResult | None:
    """What the script does, for a small repository as the few files that it is, where the sandbox has a way for such.
    None: it has not, or this is none, and nothing was done."""
    files = as_files(prepared.tar, prepared.commit)
    if files is None:
        return None
    files = {**files, "config": _config(prepared).encode(), "info/": b"", "hooks/": b""}
    return await sandbox.put_and_run(
        {**beside, **{f"{repo_path}/.git/{name}": data for name, data in files.items()}},
        0o644,
        _CHECK_OUT,
        (f"{repo_path}/.git/index", base_index),
        env=_GIT_ENV,
        cwd=repo_path,
    )


def _config(prepared: PreparedRepo) -> str:
    """The clone's ``.git/config``."""
    lines = [
        format_config(prepared.commit, bare=False),
        "\tlogAllRefUpdates = true\n[user]\n\tname = Tatin agent\n\temail = agent@tatin.invalid\n",
    ]
    if prepared.origin:
        url = prepared.origin.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'[remote "origin"]\n\turl = "{url}"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n')
    return "".join(lines)


def _failure(sandbox: Sandbox, status: int, stderr: str) -> AttemptError:
    lines = [line for line in stderr.splitlines() if line.strip()]
    seen = "; ".join("".join(c if c.isprintable() else "?" for c in line)[:200] for line in lines[-3:])
    seen = seen or f"exit status {status}"
    if "No space left on device" in stderr:
        return DiskFull(
            f"The disk of sandbox '{sandbox.name}' is too small for the repository.",
            seen=seen,
            try_="ask for more with `resources.disk` in the job file.",
        )
    if status == NO_PROGRAM:
        return SandboxError(f"The guest of sandbox '{sandbox.name}' has no git or no tar.", seen=seen)
    return RepositoryError(f"The repository could not be unpacked in sandbox '{sandbox.name}'.", seen=seen)
