"""A33, A44: the patterns of names and ids. What passes one of them can go into a path, a key and an argument list."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatin_jobs import names
from worker.sandboxes.names import sandbox_name

PATTERNS = {
    "NAME": names.NAME,
    "LABEL_KEY": names.LABEL_KEY,
    "LABEL_VALUE": names.LABEL_VALUE,
    "ID": names.ID,
    "WORKER": names.WORKER,
    "ENV_NAME": names.ENV_NAME,
}
HOSTILE = st.text(alphabet=st.sampled_from("aZ0-_./\\:*{}[]?$`'\" \n\r\t\0\x1b\u202e\u0430é"), max_size=60) | st.text()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@given(text=HOSTILE)
def test_a33_a44_what_a_pattern_takes_is_one_plain_word(pattern: re.Pattern[str], text: str) -> None:
    """A33, A44: no separator, no glob, no control, no option, nothing outside ASCII, no length without end."""
    if pattern.fullmatch(text):
        assert re.fullmatch(r"[A-Za-z0-9_.-]*", text, re.ASCII)
        assert not text.startswith(("-", "."))
        assert len(text) <= 128


@given(name=st.from_regex(names.NAME, fullmatch=True), home=st.from_regex(r"[0-9a-f]{8}", fullmatch=True))
def test_a33_a_sandbox_of_any_job_has_a_name_that_every_provider_takes(name: str, home: str) -> None:
    """A33: lower case, short, no dot, no leading dash."""
    assert re.fullmatch(r"tatin-[a-z0-9-]{1,54}", sandbox_name(home, names.job_id(name), 12))
