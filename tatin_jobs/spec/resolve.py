"""A JobFile -> a JobSpec: what goes along with the job is put into blobs, and what may not be as meant is noted.

Called when all files of a submit are known to be good, so that a submit in which anything is wrong leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path as FilePath
from typing import cast

from tatin_jobs.blobs import Blobs
from tatin_jobs.errors import BadInput
from tatin_jobs.localrepo import PackedRepo, pack_local_repo
from tatin_jobs.models import (
    INLINE_PROMPT_BYTES,
    Budget,
    InputFile,
    JobSpec,
    Model,
    Network,
    NetworkMode,
    NetworkPolicy,
    Repo,
    Requires,
    Resources,
    Retries,
    Verify,
)
from tatin_jobs.spec.file_model import JobFile, NetworkFile, NetworkPolicyFile
from tatin_jobs.spec.local_files import InputSource
from tatin_jobs.spec.problems import Path, Problem, shown
from tatin_jobs.spec.uncommitted import left_behind
from tatin_jobs.terminal import clean_line

_NAMED_FILES = 5


class CannotKeep(Exception):
    """What a job names cannot go along after all; ``problem`` says what and why."""

    def __init__(self, path: Path, message: str, try_: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(path, message, try_=try_)


class Keeper:
    """Puts what goes along with jobs into blobs; what several jobs name goes once. ``files``: where the jobs stand."""

    def __init__(self, blobs: Blobs, files: Iterable[str] = ()) -> None:
        self._blobs = blobs
        self._job_files = frozenset(map(FilePath, files))
        self._left_behind: dict[tuple[FilePath, frozenset[FilePath]], list[str]] = {}
        self._packed: dict[tuple[FilePath, str | None, int | None], PackedRepo] = {}
        self._files: dict[FilePath, tuple[str, int]] = {}

    def spec(self, job: JobFile, default_name: str, rendered: str | None = None) -> JobSpec:
        """The resolved job. ``rendered``: its prompt, where that is a template.

        Raises:
            CannotKeep: a file cannot be read any more, a folder is no repository or has no such ref, the disk is full.
            PartMissing: there is a local repository, and git is not installed.
        """
        source = job.prompt_file or job.template
        prompt, prompt_blob = self._keep_prompt(_prompt(job) if rendered is None else rendered)
        return JobSpec(
            name=job.name or default_name,
            labels=job.labels,
            repo=self._keep_repo(job),
            tool=job.tool or "command",
            model=Model(**job.model.model_dump()) if job.model else None,
            prompt=prompt,
            prompt_blob=prompt_blob,
            prompt_name=source.path.name if source else None,
            command=job.command,
            args=job.args,
            inputs=self._keep_inputs(job),
            setup=job.setup,
            verify=_verify(job),
            sandbox=job.sandbox,
            image=job.image,
            keep=job.keep,
            resources=Resources(cpus=job.resources.cpus, memory_mib=job.resources.memory, disk_mib=job.resources.disk),
            requires=Requires(os=job.requires.os, arch=job.requires.arch, tags=job.requires.tags),
            network=_network(job.network),
            env=job.env,
            secrets=job.secrets,
            timeout_seconds=job.timeout,
            idle_timeout_seconds=job.idle_timeout,
            budget=Budget(**job.budget.model_dump()) if job.budget else None,
            retries=Retries(max=job.retries.max, when=job.retries.when, backoff_seconds=job.retries.backoff),
            priority=job.priority,
            not_before=job.not_before,
            deadline=_deadline(job),
            needs=job.needs,
            account=job.account,
            artifacts=job.artifacts,
        )

    def warnings(self, job: JobFile, now: datetime) -> tuple[str, ...]:
        """What a person should know of a job whose spec was made."""
        found = []
        if (source := job.prompt_file or job.template) and source.outside:
            found.append(f"the prompt is from outside the job file's folder: {shown(str(source.path))}")
        if job.not_before and job.not_before <= now:
            found.append("not_before is past, so the job is not held")
        if (folder := _folder(job)) and (paths := self._uncommitted(job, folder)):
            found.append(_uncommitted(folder, paths))
        return tuple(found)

    def _uncommitted(self, job: JobFile, folder: FilePath) -> list[str]:
        sources = [source.path for source in (job.prompt_file, job.template, *job.inputs) if source]
        along = self._job_files | frozenset(sources)
        if (folder, along) not in self._left_behind:
            paths = self._packed[_key(job, folder)].uncommitted
            self._left_behind[folder, along] = left_behind(folder, paths, along)
        return self._left_behind[folder, along]

    def _keep_prompt(self, text: str | None) -> tuple[str | None, str | None]:
        """(prompt, blob): a long one is a blob."""
        data = (text or "").encode()
        if len(data) <= INLINE_PROMPT_BYTES:
            return text, None
        try:
            return None, self._blobs.add_bytes(data)
        except OSError as error:
            raise CannotKeep(("prompt",), f"cannot be kept: {error}.") from error

    def _keep_inputs(self, job: JobFile) -> tuple[InputFile, ...]:
        return tuple(self._keep_input(index, item) for index, item in enumerate(job.inputs))

    def _keep_input(self, index: int, item: InputSource) -> InputFile:
        if item.path not in self._files:
            try:
                self._files[item.path] = self._blobs.add_file(item.path)
            except OSError as error:
                raise CannotKeep(("inputs", index), f"cannot be kept: {error}.") from error
        blob, size = self._files[item.path]
        return InputFile(name=item.name, blob=blob, size_bytes=size)

    def _keep_repo(self, job: JobFile) -> Repo:
        repo, folder = job.repo, _folder(job)
        if folder is None:
            return Repo(url=str(repo.url), ref=repo.ref, depth=repo.depth, subdir=repo.subdir)
        packed = self._pack(job, folder)
        return Repo(
            blob=packed.blob,
            path=str(folder),
            ref=repo.ref,
            commit=packed.commit,
            depth=repo.depth,
            subdir=repo.subdir,
        )

    def _pack(self, job: JobFile, folder: FilePath) -> PackedRepo:
        key = _key(job, folder)
        if key not in self._packed:
            try:
                self._packed[key] = pack_local_repo(folder, job.repo.ref, self._blobs, depth=job.repo.depth)
            except BadInput as error:
                text = f"{error.what} Seen: {error.seen}." if error.seen else error.what
                raise CannotKeep(("repo",), clean_line(text, 500), error.try_) from error
            except OSError as error:
                raise CannotKeep(("repo",), f"cannot be packed: {error}.") from error
        return self._packed[key]


def _prompt(job: JobFile) -> str | None:
    return job.prompt_file.text if job.prompt_file else job.prompt


def _verify(job: JobFile) -> Verify | None:
    file = job.verify
    return Verify(run=file.run, timeout_seconds=file.timeout, where=file.where) if file else None


def _network(network: NetworkFile) -> Network:
    def policy(written: NetworkPolicyFile | None) -> NetworkPolicy | None:
        return NetworkPolicy(mode=_mode(written), allow=written.allow) if written else None

    return Network(mode=_mode(network), allow=network.allow, setup=policy(network.setup), verify=policy(network.verify))


def _mode(policy: NetworkPolicyFile) -> NetworkMode:
    mode = policy.mode or ("allowlist" if policy.allow else "none")
    return cast("NetworkMode", mode)  # the field's own check


def _folder(job: JobFile) -> FilePath | None:
    """The folder of a local repository; None when it has an address."""
    return job.repo.path or (job.repo.url if isinstance(job.repo.url, FilePath) else None)


def _key(job: JobFile, folder: FilePath) -> tuple[FilePath, str | None, int | None]:
    return folder, job.repo.ref, job.repo.depth


def _deadline(job: JobFile) -> datetime | None:
    if job.deadline and job.not_before and job.deadline <= job.not_before:
        raise CannotKeep(("deadline",), "is not after `not_before`, so it would never run.")
    return job.deadline


def _uncommitted(folder: FilePath, paths: Sequence[str]) -> str:
    named = ", ".join(shown(path) for path in paths[:_NAMED_FILES])
    more = f" and {len(paths) - _NAMED_FILES} more" if len(paths) > _NAMED_FILES else ""
    return f"uncommitted in {shown(str(folder))}, so not in the job: {named}{more}"
