"""Artifact patterns -> what is searched and taken."""

from __future__ import annotations

import re

import pytest

from worker.collect.globs import plan_search

HOME, REPO = "/home/agent", "/home/agent/work/repo"


def taken(glob: str, path: str) -> bool:
    search = plan_search([glob], home=HOME, repo_path=REPO)
    roots = (*search.roots, *search.repo_roots)
    below = any(root == "." or path == root or path.startswith(f"{root}/") for root in roots)
    return below and re.search(search.pattern, path) is not None


@pytest.mark.parametrize(
    ("glob", "path", "wanted"),
    [
        ("work/report.html", "./work/report.html", True),
        ("work/report.html", "./work/reportxhtml", False),
        ("work/*.csv", "./work/a.csv", True),
        ("work/*.csv", "./work/d/a.csv", False),
        ("work/**/*.csv", "./work/a.csv", True),
        ("work/**/*.csv", "./work/d/e/a.csv", True),
        ("work/plots", "./work/plots/d/a.png", True),
        ("work/plots/", "./work/plots/a.png", True),
        ("work/plot", "./work/plots/a.png", False),
        ("work/a?c", "./work/abc", True),
        ("work/a?c", "./work/a/c", False),
        ("work/[ab]x", "./work/bx", True),
        ("work/[!ab]x", "./work/bx", False),
        ("work/a+b(c)", "./work/a+b(c)", True),
        ("/home/agent/work/x", "./work/x", True),
        ("./work/x", "./work/x", True),
        ("**/x", "./.cache/x", True),
        ("work/repo/dist/**", "./work/repo/dist/a/b", True),
    ],
)
def test_what_a_pattern_takes(glob: str, path: str, wanted: bool) -> None:
    assert taken(glob, path) is wanted


def test_only_a_pattern_that_names_the_repository_reaches_into_it() -> None:
    search = plan_search(["work/**", "work/repo/*.log", "work/repository/x"], home=HOME, repo_path=REPO)
    assert search.roots == ("./work",)
    assert search.repo_roots == ("./work/repo",)


def test_without_patterns_all_of_work_is_searched() -> None:
    search = plan_search(None, home=HOME, repo_path=REPO)
    assert (search.roots, search.repo_roots, search.pattern) == (("./work",), (), "")


@pytest.mark.parametrize("glob", ["../x", "/etc/passwd", "~/x", "work/../../x", "", "a\nb", "x" * 2000, "work/[z-a]"])
def test_a_pattern_that_leads_out_or_is_none_is_named(glob: str) -> None:
    search = plan_search([glob, "work/x"], home=HOME, repo_path=REPO)
    assert len(search.unusable) == 1
    assert search.roots == ("./work/x",)
