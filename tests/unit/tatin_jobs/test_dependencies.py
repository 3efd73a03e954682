"""``needs`` of a submit: names, ids, and circles."""

from __future__ import annotations

import pytest

from tatin_jobs.dependencies import needed_ids
from tatin_jobs.errors import BadInput
from tests.support.records import make_spec
from tests.support.stores import fake_store, make_job, submit


def ids_for(needs: dict[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    specs = [make_spec(name=name, needs=wanted) for name, wanted in needs.items()]
    store = fake_store()
    submit(store, make_job("old-abc"), make_job("old-xyz"))
    return needed_ids(store, specs, [f"{name}-1" for name in needs])


def test_names_of_the_submit_become_its_ids() -> None:
    assert ids_for({"a": (), "b": ("a",), "c": ("a", "b")}) == [(), ("a-1",), ("a-1", "b-1")]


def test_a_name_stands_for_all_jobs_that_are_called_so() -> None:
    specs = [make_spec(name="cell"), make_spec(name="cell"), make_spec(name="sum", needs=("cell",))]
    assert needed_ids(fake_store(), specs, ["c-1", "c-2", "s-1"]) == [(), (), ("c-1", "c-2")]


def test_a_known_id_or_its_beginning_is_found() -> None:
    assert ids_for({"a": ("old-abc",), "b": ("old-x",)}) == [("old-abc",), ("old-xyz",)]


@pytest.mark.parametrize("unknown", ["nowhere", "old"])
def test_what_is_neither_is_refused(unknown: str) -> None:
    with pytest.raises(BadInput, match=f"Job 'a' needs '{unknown}'"):
        ids_for({"a": (unknown,)})


def test_a_circle_is_refused_and_shown() -> None:
    with pytest.raises(BadInput, match=r"circle: (a -> b -> a|b -> a -> b)"):
        ids_for({"a": ("b",), "b": ("a",)})
    with pytest.raises(BadInput, match="circle: a -> a"):
        ids_for({"a": ("a",)})
