"""``secrets`` of a job: names in its file, values on the worker, put into the guest's environment and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from tatin_jobs.errors import AttemptError, BadInput
from tatin_jobs.settings import Settings
from tatin_jobs.states import Reason
from worker.redaction import Redactor


def read_job_secrets(settings: Settings, names: Sequence[str], redactor: Redactor) -> dict[str, str]:
    """Name -> value of what the job asks for; ``redactor`` knows them from then on. May take minutes.

    Raises:
        AttemptError: reason refused, a name that the worker's settings do not have: a job gets nothing else of the
            worker's; reason auth, one that cannot be had at present.
    """
    found = {}
    for name in names:
        setting = settings.secrets.get(name)
        if setting is None:
            known = ", ".join(sorted(settings.secrets)) or "none"
            raise AttemptError(
                f"The secret '{name}' is not one that this worker gives to jobs.",
                seen=f"secrets in its settings: {known}",
                try_=f"add [secrets.{name}] to tatin.toml on the worker, with env, file, command or keychain.",
                reason=Reason.REFUSED,
            )
        try:
            found[name] = setting.source.read(f"The secret '{name}'")
        except BadInput as error:
            raise AttemptError(error.what, seen=error.seen, try_=error.try_, reason=Reason.AUTH) from error
        redactor.add(found[name])
    return found
