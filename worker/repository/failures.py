"""git's words on stderr -> one error that says whose fault it is and what to do.

Read in order, the first that fits counts. What has reason ``network`` may be retried by the job; the others would
fail again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tatin_jobs.errors import AttemptError, DiskFull, RepositoryError
from tatin_jobs.repoaddress import Address, without_credentials
from tatin_jobs.states import Reason
from worker.repository.git import GitResult


@dataclass(frozen=True)
class _Case:
    pattern: re.Pattern[str]
    what: str
    try_: str | None = None
    reason: Reason = Reason.REPO


def _case(pattern: str, what: str, try_: str | None = None, reason: Reason = Reason.REPO) -> _Case:
    return _Case(re.compile(pattern, re.IGNORECASE), what, try_, reason)


_HELPER = (
    "set up a git credential helper (or an SSH key without passphrase) for '{host}' on the worker, "
    "as the user that runs it, and try `git ls-remote {url}` there."
)
_CASES = (
    _case(
        r"transport '[^']*' not allowed|unable to find remote helper",
        "The repository '{url}' is reached by a protocol that is not allowed.",
        "an address that begins with https://, http://, ssh:// or git://.",
    ),
    _case(
        r"could not read (username|password)|terminal prompts disabled",
        "The repository '{url}' is private or does not exist: '{host}' asked for a user name and the worker has none.",
        _HELPER,
    ),
    _case(
        r"authentication failed|permission denied|access denied|returned error: 40[13]|you don't have permission",
        "The repository '{url}' refused the worker's credentials, or they are missing.",
        _HELPER,
    ),
    _case(
        r"host key verification failed|no .* host key is known",
        "The worker does not know the SSH host key of '{host}', so it did not connect.",
        "connect once by hand as the worker's user, or add the key to its known_hosts.",
    ),
    _case(
        r"could not resolve host",
        "The host '{host}' of the repository '{url}' cannot be found.",
        "check the address and the worker's name server.",
        Reason.NETWORK,
    ),
    _case(
        r"returned error: 30\d|url base from redirection",
        "The repository '{url}' is redirected to another address, which is not followed.",
        "write the address that the server redirects to (often the same with `.git` at its end).",
    ),
    _case(
        r"certificate|SSL",
        "The certificate of '{host}' is not accepted, so '{url}' was not fetched.",
        "add the server's certificate authority on the worker (git's http.sslCAInfo).",
    ),
    _case(
        r"no space left on device|disk quota exceeded",
        "The host has no room for the repository '{url}'.",
        "`tatin prune`, or free some space.",
        Reason.DISK,
    ),
    _case(
        r"signal 25|file too large|file size limit",
        "The repository '{url}' is larger than the {limit} that is accepted.",
        "set `depth` in the job's repo.",
    ),
    _case(
        r"fsck error|fsck_object|error in (packed )?object|inflate|bad object|index-pack failed",
        "The repository '{url}' sent objects that git does not accept.",
        "run `git fsck` on a clone of it.",
    ),
    _case(
        r"not found|does not appear to be a git repository|does not exist|returned error: 4(04|10)",
        "There is no repository at '{url}', or the worker may not see it.",
        "check the address; for a private one: " + _HELPER,
    ),
    _case(
        r"connection refused|failed to connect|couldn't connect|timed out|unreachable|connection (reset|closed)"
        r"|early eof|rpc failed|returned error: [45]\d\d|hung up|too slow|unexpected disconnect",
        "The host '{host}' of the repository '{url}' did not answer properly.",
        None,
        Reason.NETWORK,
    ),
    _case(
        r"invalid index-pack output",  # killed without a word of its own: by our limit, or for want of memory
        "The repository '{url}' is larger than the {limit} that is accepted, or than this host's memory can index.",
        "set `depth` in the job's repo.",
    ),
)


def failure(address: Address, result: GitResult, limit: str) -> AttemptError:
    """The error for a git command on ``address`` that failed; ``limit`` is the size accepted, for people."""
    seen = _seen(result.stderr)
    for case in _CASES:
        if case.pattern.search(result.stderr):
            fields = {"url": address.url, "host": address.host or "this host", "limit": limit}
            kind = DiskFull if case.reason is Reason.DISK else RepositoryError
            try_ = case.try_.format(**fields) if case.try_ else None
            return kind(case.what.format(**fields), seen=seen, try_=try_, reason=case.reason)
    return RepositoryError(
        f"The repository '{address.url}' cannot be fetched.", seen=seen or f"git ended with {result.status}"
    )


def too_slow(address: Address, seconds: float) -> RepositoryError:
    """The error for a fetch that passed its time limit (A26)."""
    return RepositoryError(
        f"Fetching the repository '{address.url}' took longer than {seconds:g} s.",
        try_="set `depth` in the job's repo, or try again when the network is better.",
        reason=Reason.NETWORK,
    )


def _seen(stderr: str) -> str | None:
    """The telling lines of git's stderr, which a remote may have written in part: cleaned, three at most."""
    lines = [without_credentials(line.strip())[:300] for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|remote|ssh|Permission|Host key)\b", line)]
    return "; ".join((telling or lines)[:3]) or None
