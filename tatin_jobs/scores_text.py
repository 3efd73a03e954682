"""How the figures of a benchmark are written, the same in a terminal, a page and a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from tatin_jobs.scores import Figure, Score, shown_ks
from tatin_jobs.terminal import clean_line

UNKNOWN = "unknown"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A spreadsheet takes a cell that begins so for a formula, in some languages the wide forms too (A86)."""


def percent(share: float | None) -> str:
    """``67%``; a dash where nothing was scored."""
    return "-" if share is None else f"{share * 100:.0f}%"


def interval(low_high: tuple[float, float] | None) -> str:
    """``21-94%``"""
    return "-" if low_high is None else f"{low_high[0] * 100:.0f}-{low_high[1] * 100:.0f}%"


def dollars(value: float) -> str:
    """``$1.20``, ``$0.0042``"""
    return f"${value:.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"


def count(value: float) -> str:
    """``812``, ``12.3k``, ``4.5M``"""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + unit
    return f"{value:.0f}"


def grade(value: float) -> str:
    """``0.75``"""
    return f"{value:.2f}"


def written(figure: Figure, how: Callable[[float], str]) -> str:
    """A figure, with how many trials it is known of where that is not all of them."""
    if figure.value is None:
        return UNKNOWN if figure.of else "-"
    part = f" ({figure.known} of {figure.of})" if figure.known < figure.of else ""
    return f"{how(figure.value)}{part}"


def trials_text(score: Score) -> str:
    """``3``, or ``3 (1 provider, 1 open)`` where not all of them count."""
    left = [f"{number} {why}" for why, number in score.unscored.items()]
    left += [f"{score.open} open"] if score.open else []
    return f"{score.trials} ({', '.join(left)})" if left else f"{score.trials}"


def axes_text(score: Score) -> str:
    """``env.LEVEL=2``"""
    return " ".join(f"{axis}={value}" for axis, value in score.axes.items())


def scores_csv(scores: Sequence[Score]) -> str:
    """All rows with plain numbers, an empty cell where a figure is unknown; nothing in it is a formula (A86)."""
    ks = shown_ks(scores)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = "name tool model prompt axes verify trials scored passed pass_rate low high".split()
    names += [f"pass_at_{k}" for k in ks]
    writer.writerow([*names, "reward_mean", "agent_seconds_median", "tokens_median", "cost_usd_median"])
    for score in scores:
        low, high = score.interval or (None, None)
        texts = (score.name, score.tool, score.model or "", score.prompt, axes_text(score), score.verify)
        numbers = (score.trials, score.scored, score.passed, score.pass_rate, low, high, *map(score.pass_at.get, ks))
        figures = (score.reward, score.seconds, score.tokens, score.cost_usd)
        writer.writerow([*map(_inert, texts), *numbers, *(figure.value for figure in figures)])
    return out.getvalue()


def _inert(text: str) -> str:
    line = clean_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line
