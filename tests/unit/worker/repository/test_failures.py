"""git's words -> whose fault it is and what to do. The words are those of git 2.39 and OpenSSH 9.2, as they came."""

from __future__ import annotations

import pytest

from tatin_jobs.errors import DiskFull
from tatin_jobs.repoaddress import Address
from tatin_jobs.states import Reason
from worker.repository.failures import failure
from worker.repository.git import GitResult

ADDRESS = Address("https://example.com/x", "https", "example.com", 443)


@pytest.mark.parametrize(
    ("stderr", "tells", "reason"),
    [
        ("fatal: transport 'ext' not allowed", "protocol that is not allowed", Reason.REPO),
        (
            "fatal: could not read Username for 'https://x': terminal prompts disabled",
            "private or does not",
            Reason.REPO,
        ),
        ("remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://x/'", "refused", Reason.REPO),
        ("git@example.com: Permission denied (publickey).\nfatal: Could not read from remote", "refused", Reason.REPO),
        ("Host key verification failed.", "SSH host key", Reason.REPO),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "cannot be found", Reason.NETWORK),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 302", "redirected", Reason.REPO),
        ("fatal: unable to access 'https://x/': SSL certificate problem: self-signed", "certificate", Reason.REPO),
        ("fatal: write error: No space left on device", "no room", Reason.DISK),
        ("error: index-pack died of signal 25", "larger than the 20 GiB", Reason.REPO),
        ("fatal: fetch-pack: invalid index-pack output", "larger than the 20 GiB", Reason.REPO),
        (
            "error: object 1f: gitmodulesUrl: disallowed\nfatal: fsck error in packed object",
            "does not accept",
            Reason.REPO,
        ),
        ("remote: Not Found\nfatal: repository 'https://x/' not found", "no repository at", Reason.REPO),
        ("fatal: unable to connect to x:\nx[0: 1]: errno=Connection refused", "did not answer", Reason.NETWORK),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", "did not answer", Reason.NETWORK),
        ("fatal: early EOF\nfatal: fetch-pack: invalid index-pack output", "did not answer", Reason.NETWORK),
        ("fatal: something new", "cannot be fetched", Reason.REPO),
        ("", "cannot be fetched", Reason.REPO),
    ],
)
def test_what_git_said_becomes_one_reason(stderr: str, tells: str, reason: Reason) -> None:
    error = failure(ADDRESS, GitResult(128, b"", stderr), "20 GiB")
    assert tells in error.what
    assert error.reason is reason
    assert isinstance(error, DiskFull) is (reason is Reason.DISK)


def test_what_a_remote_says_is_cleaned_and_short() -> None:
    said = "remote: \x1b[2Jhttps://user:p@ss@example.com/x\r\n" * 100 + "fatal: something\n"
    error = failure(ADDRESS, GitResult(128, b"", said), "20 GiB")
    assert error.seen
    assert error.seen.isprintable()
    assert "p@ss" not in error.seen
    assert len(error.seen) < 1000
