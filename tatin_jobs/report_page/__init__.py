"""The report as one HTML page that holds all it needs: no script, no address, charts of our own in SVG.

Everything that comes from a job is cleaned, and escaped by the template; the policy in the page's head allows nothing
but its own style sheet (A82).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tatin_jobs.models import AttemptSummary, Job
from tatin_jobs.reports import Report
from tatin_jobs.scores import Figure, Score, has_passed, shown_ks, tokens_of
from tatin_jobs.scores_text import axes_text, count, dollars, grade, interval, percent, trials_text, written
from tatin_jobs.states import JobState
from tatin_jobs.terminal import clean_line
from tatin_jobs.units import format_duration

COLOURS = 6
"""How many tools have one of their own in the style sheet; the others share the last."""
_TIMES = (1, 2, 4, 10, 20, 30, 60, 120, 240, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 43_200)
"""Seconds at which an axis of time may end, so that its middle is a time to be read, too."""
MAX_JOBS = 2_000
"""More are not listed one by one: the page would be slow to open."""


@dataclass(frozen=True)
class Bar:
    """One row of a chart. ``share`` and ``low``, ``high`` are percentages of the chart's width; None: no bar."""

    score: Score
    colour: int
    value: str
    said: str
    share: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """``ticks``: (percentage of the width, text)."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]


def report_page(report: Report, scores: Sequence[Score], jobs: Sequence[Job], *, source: str = "") -> str:
    """The page. ``source``: where the batch came from, for people."""
    style = _text("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page: str = _template().render(
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        report=report,
        source=clean_line(source),
        tiles=_tiles(report, scores, jobs),
        charts=_charts(scores),
        scores=scores,
        colours=_colours(scores),
        ks=shown_ks(scores),
        rewards=any(score.reward.known for score in scores),
        others=any(score.axes for score in scores),
        names=len({score.name for score in scores}) > 1,
        jobs=[_job_row(job) for job in jobs[:MAX_JOBS]],
        left_out=max(0, len(jobs) - MAX_JOBS),
    )
    return page


def _tiles(report: Report, scores: Sequence[Score], jobs: Sequence[Job]) -> list[tuple[str, str, str]]:
    """(title, figure, what it is of)."""
    scored, passed = sum(score.scored for score in scores), sum(score.passed for score in scores)
    tokens = [known for job in jobs if (known := tokens_of(job)) is not None]
    costs = [job.summary.cost_usd for job in jobs if job.summary and job.summary.cost_usd is not None]
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in report.counts.items())
    return [
        ("Jobs", f"{len(jobs):,}", counts),
        ("Passed", percent(passed / scored if scored else None), f"{passed} of {scored} trials that were scored"),
        ("Time of all jobs", format_duration(report.wall_seconds), "as if one after the other"),
        ("Tokens", count(sum(tokens)) if tokens else "unknown", _known(len(tokens), len(jobs))),
        ("Cost", dollars(sum(costs)) if costs else "unknown", _known(len(costs), len(jobs))),
    ]


def _known(known: int, of: int) -> str:
    return f"known of {known} of {of} jobs"


def _charts(scores: Sequence[Score]) -> list[Chart]:
    charts = [
        _rates(scores),
        _figures("Time", scores, [score.seconds for score in scores], format_duration, _TIMES),
        _figures("Tokens", scores, [score.tokens for score in scores], count),
        _figures("Cost", scores, [score.cost_usd for score in scores], dollars),
    ]
    return [chart for chart in charts if any(bar.share is not None for bar in chart.bars)]


def _rates(scores: Sequence[Score]) -> Chart:
    colours = _colours(scores)
    bars = []
    for score in scores:
        low, high = score.interval or (None, None)
        said = f"{score.passed} of {score.scored} passed, 95 % interval {interval(score.interval)}"
        value = f"{percent(score.pass_rate)} · {score.passed}/{score.scored}"
        bars.append(Bar(score, colours[score.tool], value, said, _share(score.pass_rate), _share(low), _share(high)))
    ticks = tuple((share, f"{share}%") for share in (0, 25, 50, 75, 100))
    return Chart("Pass rate", "with its 95 % interval (Wilson)", tuple(bars), ticks)


def _figures(
    title: str,
    scores: Sequence[Score],
    figures: Sequence[Figure],
    how: Callable[[float], str],
    steps: Sequence[float] = (),
) -> Chart:
    colours = _colours(scores)
    top = _round_up(max((figure.value or 0 for figure in figures), default=0), steps)
    bars = []
    for score, figure in zip(scores, figures, strict=True):
        share = None if figure.value is None else round(100 * figure.value / top, 2)
        text = written(figure, how)
        bars.append(Bar(score, colours[score.tool], text, f"{title.lower()}: {text}", share))
    ticks = tuple((share, how(top * share / 100)) for share in (0, 50, 100))
    return Chart(title, "median of a trial", tuple(bars), ticks)


def _share(rate: float | None) -> float | None:
    return None if rate is None else round(100 * rate, 2)


def _round_up(value: float, steps: Sequence[float]) -> float:
    """The first of ``steps`` that holds it, else the next of 1, 2, 4, 6, 8 times a power of ten: a scale to be read."""
    if found := next((step for step in steps if step >= value), None):
        return found
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)


def _colours(scores: Sequence[Score]) -> dict[str, int]:
    """The number of each tool's colour, in the order in which they come."""
    tools = list(dict.fromkeys(score.tool for score in scores))
    return {tool: min(index, COLOURS - 1) for index, tool in enumerate(tools)}


def _job_row(job: Job) -> dict[str, Any]:
    summary, passed = job.summary or AttemptSummary(), has_passed(job)
    cells = [f"{axis}={value}" for axis, value in job.spec.cell.items()]
    tokens = tokens_of(job)
    return {
        "mark": {True: "pass", False: "fail", None: "none"}[passed],
        "glyph": {True: "✓", False: "✗", None: "○"}[passed],
        "id": job.id,
        "agent": clean_line(f"{job.spec.tool} {job.spec.model.name if job.spec.model else ''}"),
        "cell": clean_line(" ".join(cells) + (f" #{job.spec.trial}" if job.spec.trials > 1 else "")),
        "status": clean_line(
            str(job.state)
            if job.state is not JobState.FINISHED
            else f"{job.outcome}{f': {job.reason}' if job.reason else ''}".replace("_", " ")
        ),
        "verify": summary.verify_in or "-",
        "reward": "-" if summary.reward is None else grade(summary.reward),
        "seconds": "-" if summary.agent_seconds is None else format_duration(summary.agent_seconds),
        "tokens": "unknown" if tokens is None else count(tokens),
        "cost": "unknown" if summary.cost_usd is None else dollars(summary.cost_usd),
        "message": clean_line(job.message),
        "said": clean_line(summary.final_text or "", 100),
    }


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clean": clean_line}
    environment.globals |= {
        "percent": percent,
        "interval": interval,
        "written": written,
        "grade": grade,
        "count": count,
        "dollars": dollars,
        "duration": format_duration,
        "trials_text": trials_text,
        "axes_text": axes_text,
    }
    return environment.from_string(_text("page.html.j2"))
