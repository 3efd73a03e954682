"""The table of moves over all pairs against what each may do, and the diagram against the table."""

from __future__ import annotations

import itertools
import re

import pytest

from tatin_jobs import states
from tatin_jobs.states import TRANSITIONS, JobState, Move, allowed

Q, H, R, F = JobState.QUEUED, JobState.HELD, JobState.RUNNING, JobState.FINISHED

WANTED: set[tuple[JobState | None, Move, JobState]] = {
    (None, Move.SUBMIT, Q),
    (None, Move.SUBMIT, H),
    (H, Move.RELEASE, Q),
    (H, Move.RELEASE, H),
    (H, Move.SETTLE, Q),
    (H, Move.SETTLE, H),
    (H, Move.SETTLE, F),
    (Q, Move.OVERDUE, F),
    (H, Move.OVERDUE, F),
    (R, Move.OVERDUE, R),
    (H, Move.HOLD, H),
    (Q, Move.HOLD, H),
    (Q, Move.CLAIM, R),
    (R, Move.RENEW, R),
    (R, Move.STEP, R),
    (R, Move.FINISH, F),
    (R, Move.REQUEUE, Q),
    (R, Move.REQUEUE, H),
    (R, Move.REAP, Q),
    (R, Move.REAP, F),
    (R, Move.CANCEL, R),
    (Q, Move.CANCEL, F),
    (H, Move.CANCEL, F),
}


@pytest.mark.parametrize("before", [None, *JobState])
@pytest.mark.parametrize("move", Move)
def test_every_pair_is_allowed_or_refused_as_the_table_says(before: JobState | None, move: Move) -> None:
    for after in JobState:
        assert allowed(before, move, after) == ((before, move, after) in WANTED)


def test_finished_is_final() -> None:
    assert not any(before is F for before, _ in TRANSITIONS)


def test_every_state_can_be_reached_and_left_for_finished() -> None:
    reached: set[JobState | None] = {None}
    for _ in JobState:
        reached |= {after for (before, _), afters in TRANSITIONS.items() if before in reached for after in afters}
    assert reached == {None, *JobState}
    ending: set[JobState | None] = {F}
    for _ in JobState:
        ending |= {before for (before, _), afters in TRANSITIONS.items() if afters & ending}
    assert {Q, H, R} <= ending


def test_the_diagram_shows_the_table() -> None:
    """Each arrow of the module's docstring stands for moves of the table, and each move of the table has its arrow."""
    arrows = re.findall(r"^ {4}(\S.*?) +-*--([a-z, ]+?)-*> (.+)$", states.__doc__ or "", re.MULTILINE)
    assert arrows
    drawn = set()
    for befores, moves, afters in arrows:
        for before, move, after in itertools.product(
            befores.split(", "), moves.split(", "), re.split(r" \| ", afters.strip())
        ):
            drawn.add((None if before == "(none)" else JobState(before), Move(move), JobState(after)))
    invisible = {one for one in WANTED if one[1] is Move.CANCEL and one[0] is R}  # marks only, and is said beside
    assert {one for one in WANTED if one not in drawn} == invisible
    assert {(before, move) for before, move, _ in drawn} <= set(TRANSITIONS)
