"""The table of a benchmark: a row for each combination of tool, model and prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tatin_jobs.cli.output import cell, plain_table
from tatin_jobs.scores import Score, shown_ks
from tatin_jobs.scores_text import axes_text, count, dollars, grade, interval, percent, trials_text, written
from tatin_jobs.units import format_duration

if TYPE_CHECKING:
    from rich.table import Table

Column = tuple[str, Callable[[Score], str]]


def scores_table(scores: Sequence[Score]) -> Table:
    """Columns that would say the same in every row (no other axes, no rewards) are left out."""
    columns = _columns(scores)
    right = tuple(name for name, _ in columns if name not in ("JOB", "TOOL", "MODEL", "PROMPT", "OTHER", "VERIFY"))
    table = plain_table(*(name for name, _ in columns), right=right)
    for score in scores:
        table.add_row(*(cell(text(score), limit=60) for _, text in columns))
    return table


def _columns(scores: Sequence[Score]) -> list[Column]:
    columns: list[Column] = [
        ("TOOL", lambda score: score.tool),
        ("MODEL", lambda score: score.model or "-"),
        ("PROMPT", lambda score: score.prompt),
        ("VERIFY", lambda score: score.verify),
        ("TRIALS", trials_text),
        ("PASSED", lambda score: f"{score.passed}/{score.scored}"),
        ("RATE", lambda score: percent(score.pass_rate)),
        ("95%", lambda score: interval(score.interval)),
    ]
    columns += [_pass_at(k) for k in shown_ks(scores)]
    if any(score.reward.known for score in scores):
        columns.append(("REWARD", lambda score: written(score.reward, grade)))
    columns += [
        ("TIME", lambda score: written(score.seconds, format_duration)),
        ("TOKENS", lambda score: written(score.tokens, count)),
        ("COST", lambda score: written(score.cost_usd, dollars)),
    ]
    if any(score.axes for score in scores):
        columns.insert(3, ("OTHER", axes_text))
    if len({score.name for score in scores}) > 1:
        columns.insert(0, ("JOB", lambda score: score.name))
    return columns


def _pass_at(k: int) -> Column:
    return f"PASS@{k}", lambda score: percent(score.pass_at.get(k))
