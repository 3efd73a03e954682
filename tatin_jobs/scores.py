"""What a batch says about its tools, models and prompts: one row for each combination. Records in, rows out.

A trial **passed** when verify says so, also where the agent ran out of time; without verify, when the job succeeded.
Only trials that show what the agent can do are **scored**: one that failed for a reason of the host, the network, the
model's server or the job file, or was lost or cancelled, is counted beside, and is no failure of the agent's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from statistics import fmean, median

from tatin_jobs.models import AttemptSummary, Frozen, Job
from tatin_jobs.states import JobState, Outcome, Reason
from tatin_jobs.stats import pass_at, wilson
from tatin_jobs.terminal import clean_line

OF_THE_AGENT = frozenset({Reason.AGENT, Reason.VERIFY, Reason.BUDGET, Reason.STALLED, Reason.OOM})
"""Reasons of a failure that are the agent's own."""
SHOWN_KS = (2, 3, 5, 10, 25, 50, 100)
PROMPT_CHARACTERS = 60
_PROMPT_FIELDS = ("prompt", "prompt_file", "template")


class Figure(Frozen):
    """The median of what is known of some trials. ``value`` None: nothing is known, which is not 0."""

    value: float | None
    known: int
    of: int


class Score(Frozen):
    """One combination. ``axes``: what else of a matrix tells it from the others. ``verify``: ``same``, ``fresh``, or
    ``none`` where the job's own end decides. ``unscored``: reason (or outcome) -> how many trials. ``interval``: of the
    pass rate, 95 %. ``pass_at``: k -> pass@k for every k up to the trials that were scored."""

    name: str
    tool: str
    model: str | None
    prompt: str
    axes: dict[str, str]
    verify: str
    trials: int
    open: int
    scored: int
    passed: int
    unscored: dict[str, int]
    pass_rate: float | None
    interval: tuple[float, float] | None
    pass_at: dict[int, float]
    reward: Figure
    """Its value is the mean: rewards are grades."""
    seconds: Figure
    """Of the agent alone."""
    tokens: Figure
    """All kinds together."""
    cost_usd: Figure


def make_scores(jobs: Iterable[Job]) -> tuple[Score, ...]:
    """A row for each combination, in the order of the jobs."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(_key(job), []).append(job)
    return _told_apart([_score(group) for group in groups.values()])


def is_benchmark(jobs: Iterable[Job]) -> bool:
    """Whether these were made to be compared: by a matrix, or by trials."""
    return any(job.spec.cell or job.spec.trials > 1 for job in jobs)


def shown_ks(scores: Sequence[Score]) -> tuple[int, ...]:
    """The k of pass@k that are worth a column."""
    most = max((score.trials for score in scores), default=0)
    return tuple(k for k in SHOWN_KS if k <= most)


def has_passed(job: Job) -> bool | None:
    """Whether this trial passed; None where it tells nothing of the agent."""
    if job.state is not JobState.FINISHED or _why_unscored(job):
        return None
    verified = job.summary.verified if job.summary else None
    return job.outcome is Outcome.SUCCEEDED if verified is None else verified


def tokens_of(job: Job) -> int | None:
    """Tokens of every kind that are known; None when neither what went in nor what came out is."""
    summary = job.summary or AttemptSummary()
    if summary.input_tokens is None and summary.output_tokens is None:
        return None
    kinds = (summary.input_tokens, summary.output_tokens, summary.cache_read_tokens, summary.cache_write_tokens)
    return sum(kind or 0 for kind in kinds)


def _key(job: Job) -> tuple[object, ...]:
    spec = job.spec
    model = spec.model and (spec.model.name, spec.model.provider, spec.model.base_url)
    prompt = spec.prompt_blob or sha256((spec.prompt or "").encode()).hexdigest()
    return (spec.name, spec.tool, model, prompt, spec.verify and spec.verify.where, tuple(sorted(spec.cell.items())))


def _score(jobs: Sequence[Job]) -> Score:
    spec = jobs[0].spec
    counted = [job for job in jobs if has_passed(job) is not None]
    passed, scored = sum(bool(has_passed(job)) for job in counted), len(counted)
    rewards = [job.summary.reward for job in counted if job.summary and job.summary.reward is not None]
    return Score(
        name=spec.name,
        tool=spec.tool,
        model=spec.model.name if spec.model else None,
        prompt=prompt_name(jobs[0]),
        axes={axis: value for axis, value in spec.cell.items() if not _is_a_column(axis)},
        verify=spec.verify.where if spec.verify else "none",
        trials=len(jobs),
        open=sum(job.state is not JobState.FINISHED for job in jobs),
        scored=scored,
        passed=passed,
        unscored=dict(Counter(why for job in jobs if (why := _why_unscored(job)))),
        pass_rate=passed / scored if scored else None,
        interval=wilson(passed, scored),
        pass_at={k: found for k in range(1, scored + 1) if (found := pass_at(k, passed, scored)) is not None},
        reward=Figure(value=fmean(rewards) if rewards else None, known=len(rewards), of=scored),
        seconds=_figure(counted, lambda job: job.summary.agent_seconds if job.summary else None),
        tokens=_figure(counted, tokens_of),
        cost_usd=_figure(counted, lambda job: job.summary.cost_usd if job.summary else None),
    )


def prompt_name(job: Job) -> str:
    """What a report calls the prompt: the name of its file, else how it begins."""
    spec = job.spec
    if spec.prompt_name:
        return clean_line(spec.prompt_name, PROMPT_CHARACTERS)
    lines = (spec.prompt or "").strip().splitlines()
    return clean_line(lines[0], PROMPT_CHARACTERS) if lines else "-"


def _is_a_column(axis: str) -> bool:
    return axis.split(".")[0] in ("tool", "model", *_PROMPT_FIELDS)


def _why_unscored(job: Job) -> str | None:
    if job.outcome in (Outcome.LOST, Outcome.CANCELLED):
        return str(job.outcome)
    if job.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and job.reason and job.reason not in OF_THE_AGENT:
        return str(job.reason)
    return None


def _figure(jobs: Sequence[Job], of: Callable[[Job], float | None]) -> Figure:
    known = [value for job in jobs if (value := of(job)) is not None]
    return Figure(value=median(known) if known else None, known=len(known), of=len(jobs))


def _told_apart(scores: Sequence[Score]) -> tuple[Score, ...]:
    """Prompts that begin alike get numbers."""
    seen: Counter[tuple[object, ...]] = Counter()
    told = []
    for score in scores:
        shown = (score.name, score.tool, score.model, score.prompt, score.verify, tuple(score.axes.items()))
        seen[shown] += 1
        again = f"{score.prompt} ({seen[shown]})"
        told.append(score if seen[shown] == 1 else score.model_copy(update={"prompt": again}))
    return tuple(told)
