"""Rules about what is committed besides code: locks, examples, changelog, licence, and what no file may name."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import tatin_jobs
from tatin_jobs.models import JobSpec, Repo
from tatin_jobs.settings import Settings
from tatin_jobs.tools import TOOLS
from tests.project.tree import ROOT, files
from worker.agents.base import AgentTask, ModelRoute
from worker.gateway import PRESETS

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-node.lock"]
REGISTRIES = [
    *("registry.npm" + "js.org", "registry." + "yarnpkg", "npm.pkg." + "github"),
    *("pypi" + ".org", "python" + "hosted", "test." + "pypi", "crates" + ".io", "ghcr" + ".io"),
]
"""In two halves, or this file would be the first to break the rule."""
MACHINE_PATHS = re.compile(
    r"(?<![\w./}-])(?:/work/(?:main|shared|\.)|/root/|/Users/\w|/home/(?!agent\b)\w|/opt/(?:wheels|pypi))"
)
PIN = re.compile(r"^([a-z0-9-]+(?:\[[a-z,]+\])?)==(\S+)", re.MULTILINE)


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("name", files())
def test_no_file_names_a_registry_or_a_place_on_somebodys_machine(name: str) -> None:
    text = text_of(name)
    assert not [word for word in REGISTRIES if word in text.lower()]
    if not name.startswith("tests/project/"):
        assert not MACHINE_PATHS.findall(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /work/main/x", True),
        ("'/root/.ssh'", True),
        ("cd /home/someone", True),
        ("/home/agent/work/repo", False),
        ("root:x:0:0:root:/root:/usr/sbin/nologin", False),
    ],
)
def test_the_pattern_of_machine_paths_finds_them(text: str, found: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) is found


# Locks


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall(text_of(name)))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_versions_and_hashes_and_no_address(name: str) -> None:
    text = text_of(name)
    assert pins(name)
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
    for entry in re.split(r"\n(?=\S)", text.strip()):
        if not entry.startswith("#"):
            assert "==" in entry.split()[0]
            assert "--hash=sha256:" in entry


def test_what_development_installs_holds_all_that_running_installs() -> None:
    running, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert running.items() <= development.items()


def test_every_dependency_is_locked_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads(text_of("pyproject.toml"))
    for lock, texts in {
        "requirements.lock": [*project["project"]["dependencies"], *project["build-system"]["requires"]],
        "requirements-dev.lock": project["dependency-groups"]["dev"],
    }.items():
        locked = {canonicalize_name(name.partition("[")[0]): version for name, version in pins(lock).items()}
        for text in texts:
            wanted = Requirement(text)
            version = locked.get(canonicalize_name(wanted.name))
            assert version is not None, f"{lock} lacks {wanted.name}: run scripts/lock"
            assert wanted.specifier.contains(version), f"{lock} has {wanted.name} {version}: run scripts/lock"


# The rest


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads(text_of("pyproject.toml"))["project"]["version"] == tatin_jobs.__version__


def test_the_changelog_begins_with_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    sections = set(re.findall(r"^### (.+)$", text_of("CHANGELOG.md"), re.MULTILINE))
    assert sections <= {"Added", "Changed", "Fixed", "Removed", "Security"}


def test_the_licence_is_here_in_full() -> None:
    text = text_of("LICENSE")
    assert text.startswith("Mozilla Public License Version 2.0")
    assert "Exhibit B" in text


def example(name: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(text_of(f"work/{name}"))
    return made


def test_the_example_of_opencode_names_models_that_it_defines() -> None:
    config = example("example.opencode.json")
    for key in ("model", "small_model"):
        provider, _, model = config[key].partition("/")
        assert model in config["provider"][provider]["models"]
        assert config["provider"][provider]["options"]["baseURL"].endswith("/v1")


def test_the_example_of_crush_names_models_that_it_defines() -> None:
    config = example("example.crush.json")
    for chosen in config["models"].values():
        assert chosen["model"] in [model["id"] for model in config["providers"][chosen["provider"]]["models"]]


def test_the_examples_of_pi_name_a_model_that_they_define() -> None:
    chosen, providers = example("example.pi-settings.json"), example("example.pi-models.json")["providers"]
    models = providers[chosen["defaultProvider"]]["models"]
    assert chosen["defaultModel"] in [model["id"] for model in models]


def test_the_example_of_claude_asks_for_one_model_whatever_it_is_called() -> None:
    config = example("example.claude-settings.json")
    assert {value for name, value in config["env"].items() if name.endswith("_MODEL")} == {config["model"]}
    assert not config["env"]["ANTHROPIC_BASE_URL"].endswith("/v1")


def test_there_is_an_example_job_for_each_tool_and_each_model_provider_and_the_readme_names_it() -> None:
    jobs = [name for name in files() if re.fullmatch(r"jobs/[^/]+\.yaml", name)]
    text = "\n".join(text_of(name) for name in jobs)
    for tool in ("claude", "opencode", "pi", "crush", r"my_agents:\w+"):
        assert re.search(rf"^tool: {tool}$", text, re.MULTILINE), tool
    assert re.search("^command: ", text, re.MULTILINE)
    for provider in PRESETS:
        assert f"provider: {provider}}}" in text
    assert "base_url: " in text
    assert all(f"`{Path(name).name}`" in text_of("jobs/README.md") for name in jobs)


def test_the_page_on_agents_names_the_pinned_versions_and_its_adapter_is_one() -> None:
    page = text_of("docs/agents.md")
    assert all(tool.version in page for tool in TOOLS.values())
    for block in re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        Settings(home=ROOT, worker_name="w", **tomllib.loads(block))
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = {}
    exec(source, made)
    route = ModelRoute("http://127.0.0.1:4017", "t", "m", "ollama")
    spec = JobSpec(name="a", repo=Repo(path="."), tool="my_agents:Aider", prompt="p")
    plan = made["Aider"]().plan(AgentTask("a-1", spec, "/p.txt", "/r", "/home/agent", route))
    assert plan.argv[-1] == "/p.txt"
    assert plan.env["OPENAI_BASE_URL"] == "http://127.0.0.1:4017/v1"


def test_the_readme_of_work_names_each_example_and_the_tried_version() -> None:
    text = text_of("work/README.md")
    for name in files():
        if name.startswith("work/example."):
            assert Path(name).name in text
    assert all(TOOLS[name].version in text for name in ("claude", "opencode", "pi"))
