"""Hostile text on its way into the HTML report, looked at in a real Chromium (A82)."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from tatin_jobs.models import AttemptSummary, Job, Model, Verify
from tatin_jobs.report_page import report_page
from tatin_jobs.reports import make_report
from tatin_jobs.scores import make_scores
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.chromium import open_page
from tests.support.cli import NOW, make_job

SCRIPT = "<script>document.title='ran'</script>"
PLANTED = (
    f"{SCRIPT}<img src=x onerror=\"document.title='ran'\">",
    "\"'><svg onload=document.title='ran'>",
    "</title></style></svg><iframe srcdoc='<b>x'></iframe>",
    "<a href=javascript:document.title='ran'>x</a>{{7777*7777}}{% raw %}",
    "<meta http-equiv=refresh content=0;url=//x><style>*{display:none}</style>",
)
OURS = set("html head meta title style body header main section div p h1 h2 span b".split())
OURS |= set("svg line rect text table thead tbody tr th td".split())


def hostile_job(text: str, *, silent: bool = False) -> Job:
    """Planted in every field; a silent one says in its last words what the others say in their message."""
    summary = AttemptSummary(
        verified=False, verify_in="fresh", reward=0.5, agent_seconds=3, input_tokens=9, cost_usd=0.1, final_text=text
    )
    return make_job(
        tool=text,
        model=Model(name=text, provider=text),
        prompt=text,
        prompt_name=text,
        verify=Verify(run=text, where="fresh"),
        cell={text: text, "tool": text},
        labels={text: text},
        trial=2,
        trials=3,
        state=JobState.FINISHED,
        outcome=Outcome.FAILED,
        reason=Reason.VERIFY,
        message="" if silent else text,
        worker=text,
        summary=summary,
        finished_at=NOW,
    )


def page_of(*texts: str) -> str:
    jobs = [hostile_job(text, silent=silent) for text in texts for silent in (False, True)]
    return report_page(make_report(jobs, title=texts[0], now=NOW), make_scores(jobs), jobs, source=texts[0])


@pytest.mark.needs("chromium")
def test_a82_what_is_planted_in_any_field_stays_text(tmp_path: Path) -> None:
    """A82."""
    seen = open_page(page_of(*PLANTED), tmp_path / "page")
    assert set(seen.tags) <= OURS
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("href", "src", "srcdoc")]
    for text in PLANTED:
        fields = 9  # tool and model in charts and tables, prompt, axes, cell, message or last words
        assert seen.text.count(text[:40]) >= fields, text
    assert f"{PLANTED[0]} - Tatin" in seen.text  # the title of the document
    assert "60481729" not in seen.text
    assert "Content Security Policy" not in seen.console  # it keeps to its own policy, its style sheet included


@pytest.mark.needs("chromium")
def test_a82_the_policy_stops_a_script_that_got_in_all_the_same(tmp_path: Path) -> None:
    """A82: and without the policy it would run, so the test above can fail."""
    page = page_of("x").replace("</main>", f"{SCRIPT}</main>")
    stopped = open_page(page, tmp_path / "with")
    assert "ran" not in stopped.texts
    assert "Content Security Policy" in stopped.console
    free = open_page(re.sub(r"<meta http-equiv=.*\n", "", page), tmp_path / "without")
    assert "ran" in free.texts


def test_a82_the_policy_names_the_style_sheet_and_nothing_else() -> None:
    """A82."""
    page = page_of("x")
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    sources = policy[1].replace("&#39;", "'").replace("&#43;", "+")
    assert sources == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "://" not in page
    assert "url(" not in style[1]
