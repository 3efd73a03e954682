"""Who is in which row of a comparison, what counts, and how it is written."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tatin_jobs.cli.scores_view import scores_table
from tatin_jobs.models import AttemptSummary, Job, Model, Verify
from tatin_jobs.scores import Score, has_passed, is_benchmark, make_scores, shown_ks
from tatin_jobs.scores_text import count, dollars, interval, percent, scores_csv, trials_text, written
from tatin_jobs.states import JobState, Outcome, Reason
from tests.support.cli import make_job

FRESH = Verify(run="make test", where="fresh")


def trial(outcome: Outcome | None = Outcome.SUCCEEDED, reason: Reason | None = None, **fields: Any) -> Job:
    known = {name: fields.pop(name) for name in list(fields) if name in AttemptSummary.model_fields}
    state = JobState.FINISHED if outcome else JobState.RUNNING
    values = {"name": "bench", "tool": "pi", "prompt": "Do it\nwell", "trials": 3, "summary": AttemptSummary(**known)}
    return make_job(**{**values, "state": state, "outcome": outcome, "reason": reason, **fields})


def score(*jobs: Job) -> Score:
    (found,) = make_scores(jobs)
    return found


def test_a_row_is_a_tool_a_model_a_prompt_and_what_else_the_matrix_has() -> None:
    model = Model(name="m", provider="p")
    jobs = [
        trial(tool="pi", model=model, prompt_name="a.md"),
        trial(tool="pi", model=model, prompt_name="a.md", trial=2),
        trial(tool="crush", model=model, prompt_name="a.md"),
        trial(tool="pi", model=None, prompt_name="a.md"),
        trial(tool="pi", model=model, prompt_name="b.md", prompt="other"),
        trial(tool="pi", model=model, prompt_name="a.md", cell={"tool": "pi", "env.LEVEL": "2"}),
        trial(tool="pi", model=model, prompt_name="a.md", verify=FRESH),
    ]
    rows = make_scores(jobs)
    assert [row.trials for row in rows] == [2, 1, 1, 1, 1, 1]
    assert [(row.tool, row.model, row.prompt) for row in rows[:4]] == [
        *[("pi", "m", "a.md"), ("crush", "m", "a.md")],
        *[("pi", None, "a.md"), ("pi", "m", "b.md")],
    ]
    assert rows[4].axes == {"env.LEVEL": "2"}
    assert (rows[0].verify, rows[5].verify) == ("none", "fresh")


def test_prompts_that_begin_alike_are_told_apart() -> None:
    rows = make_scores([trial(prompt="Fix it\nnow"), trial(prompt="Fix it\nlater"), trial(prompt=None)])
    assert [row.prompt for row in rows] == ["Fix it", "Fix it (2)", "-"]


@pytest.mark.parametrize(
    ("job", "passed"),
    [
        (trial(Outcome.SUCCEEDED), True),
        (trial(Outcome.SUCCEEDED, verified=True), True),
        (trial(Outcome.FAILED, Reason.VERIFY, verified=False), False),
        (trial(Outcome.FAILED, Reason.AGENT), False),
        (trial(Outcome.FAILED, Reason.OOM), False),
        (trial(Outcome.FAILED, Reason.BUDGET), False),
        (trial(Outcome.TIMED_OUT, Reason.AGENT, verified=True), True),
        (trial(Outcome.TIMED_OUT, Reason.STALLED), False),
        (trial(Outcome.FAILED, Reason.PROVIDER), None),
        (trial(Outcome.TIMED_OUT, Reason.PROVIDER, verified=True), None),
        (trial(Outcome.FAILED, Reason.SETUP), None),
        (trial(Outcome.FAILED, Reason.SANDBOX), None),
        (trial(Outcome.LOST, Reason.WORKER), None),
        (trial(Outcome.CANCELLED), None),
        (trial(None), None),
    ],
)
def test_only_what_the_agent_did_is_scored(job: Job, passed: bool | None) -> None:
    assert has_passed(job) is passed


def test_a_row_counts_what_is_scored_and_names_the_rest() -> None:
    found = score(trial(), trial(Outcome.FAILED, Reason.AGENT), trial(Outcome.FAILED, Reason.AUTH), trial(None))
    assert (found.trials, found.scored, found.passed, found.open) == (4, 2, 1, 1)
    assert found.unscored == {"auth": 1}
    assert (found.pass_rate, found.pass_at) == (0.5, {1: 0.5, 2: 1.0})
    assert trials_text(found) == "4 (1 auth, 1 open)"


def test_with_nothing_scored_there_is_no_rate() -> None:
    found = score(trial(None))
    assert (found.pass_rate, found.interval, found.pass_at) == (None, None, {})
    assert (percent(found.pass_rate), interval(found.interval), written(found.cost_usd, dollars)) == ("-", "-", "-")


def test_a_figure_is_the_median_of_what_is_known_and_never_0_for_unknown() -> None:
    found = score(
        trial(agent_seconds=10, cost_usd=1.0, input_tokens=1000, reward=1.0),
        trial(agent_seconds=30, input_tokens=1000, output_tokens=500, cache_read_tokens=2000, reward=0.5),
        trial(agent_seconds=20),
    )
    assert found.seconds.value == 20
    assert (found.tokens.value, found.tokens.known, found.tokens.of) == (2250, 2, 3)
    assert written(found.tokens, count) == "2.2k (2 of 3)"
    assert written(found.cost_usd, dollars) == "$1.00 (1 of 3)"
    assert found.reward.value == 0.75
    nothing = score(trial())
    assert [written(figure, count) for figure in (nothing.tokens, nothing.cost_usd, nothing.seconds)] == ["unknown"] * 3


def test_what_was_not_scored_has_no_part_in_the_figures() -> None:
    found = score(trial(agent_seconds=10), trial(Outcome.FAILED, Reason.PROVIDER, agent_seconds=1000))
    assert found.seconds.value == 10


def test_a_batch_is_a_benchmark_by_its_cells_or_trials() -> None:
    assert not is_benchmark([make_job()])
    assert is_benchmark([make_job(), make_job(cell={"tool": "pi"})])
    assert is_benchmark([make_job(trials=2)])


def test_pass_at_k_has_a_column_for_what_the_trials_allow() -> None:
    assert shown_ks(make_scores([trial() for _ in range(5)])) == (2, 3, 5)
    assert shown_ks(make_scores([trial()])) == ()
    assert shown_ks([]) == ()


def test_the_table_leaves_out_what_no_row_has() -> None:
    plain = [str(column.header) for column in scores_table(make_scores([trial(), trial()])).columns]
    assert plain == "TOOL MODEL PROMPT VERIFY TRIALS PASSED RATE 95% PASS@2 TIME TOKENS COST".split()
    rows = make_scores([trial(reward=1.0, cell={"env.A": "1"}), trial(name="other")])
    assert {"JOB", "OTHER", "REWARD"} <= {str(column.header) for column in scores_table(rows).columns}


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1"])
def test_a86_a_csv_holds_no_formula_and_no_line_of_its_own(text: str) -> None:
    """A86: in every field that a job file gives."""
    job = trial(tool=text, model=Model(name=text), prompt_name=text, cell={text: f"{text}\n=2,3"})
    header, row = csv.reader(io.StringIO(scores_csv(make_scores([job]))))
    assert len(header) == len(row)
    assert not [cell for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\uff1d")]


def test_a_csv_has_plain_numbers_and_nothing_where_nothing_is_known() -> None:
    text = scores_csv(make_scores([trial(agent_seconds=1.5), trial(Outcome.FAILED, Reason.AGENT, agent_seconds=2.5)]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["pass_rate"], row["pass_at_2"], row["agent_seconds_median"]) == ("0.5", "1.0", "2.0")
    assert (row["tokens_median"], row["cost_usd_median"], row["reward_mean"]) == ("", "", "")


def test_not_a_name_of_a_file_but_the_beginning_of_the_prompt() -> None:
    assert score(trial(prompt="  \n\x1b[31mRed\x07 \u202e" + "x" * 100)).prompt.startswith("Red\\x07 \\u202exxx")
