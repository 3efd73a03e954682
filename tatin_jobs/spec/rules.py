"""What the fields of one job say of each other: which exclude one another, and which one needs another.

Only the presence of fields is looked at, so these complaints come along with those about single fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tatin_jobs.spec.checks import TOOLS
from tatin_jobs.spec.problems import Problem

PROMPTS = ("prompt", "prompt_file", "template")
"""Each gives the prompt."""
_OWN_POLICY = ("setup", "verify")


def cross_check(job: Mapping[str, Any], *, sound: bool) -> Iterator[Problem]:
    """What is wrong between the fields of ``job``, as the file has them. Unless it is ``sound``, nothing is missed."""
    yield from _excluded(job)
    if sound:
        yield from _missing(job)


def tool_of(job: Mapping[str, Any]) -> object:
    """The tool, which a command says by itself."""
    return job.get("tool", "command" if "command" in job else None)


def _excluded(job: Mapping[str, Any]) -> Iterator[Problem]:
    first, *others = [name for name in PROMPTS if name in job] or [""]
    for other in others:
        yield Problem((other,), f"stands beside `{first}`.", try_="keep one of the two.")
    if "vars" in job and "template" not in job:
        yield Problem(("vars",), "goes only with `template`.", try_="remove it, or write a `template`.")
    if "command" in job and tool_of(job) in TOOLS and tool_of(job) != "command":
        yield Problem(("command",), "goes only with `tool: command`.", try_="remove it, or change `tool`.")
    env, secrets = job.get("env"), job.get("secrets")
    if isinstance(env, dict) and isinstance(secrets, list):
        for index, name in enumerate(secrets):
            if isinstance(name, str) and name in env:
                yield Problem(("secrets", index), "stands in `env` too.", try_="keep one of the two.")
    repo = job.get("repo")
    if isinstance(repo, dict) and "url" in repo and "path" in repo:
        yield Problem(("repo", "path"), "stands beside `url`.", try_="keep one of the two.")
    yield from _network(job.get("network"))


def _network(network: object) -> Iterator[Problem]:
    if not isinstance(network, dict):
        return
    for path, policy in ((("network",), network), *((("network", step), network.get(step)) for step in _OWN_POLICY)):
        if not isinstance(policy, dict):
            if policy == "allowlist":
                yield Problem(path, "names no host.", try_="write {allow: [pip, docs.example.com]}.")
        elif policy.get("mode") == "allowlist" and not policy.get("allow"):
            yield Problem((*path, "allow"), "is missing.", try_="write [pip, docs.example.com], or `mode: none`.")
        elif policy.get("mode") in ("none", "open") and "allow" in policy:
            yield Problem((*path, "allow"), "goes only with `mode: allowlist`.", try_="remove it, or change `mode`.")


def _missing(job: Mapping[str, Any]) -> Iterator[Problem]:
    tool = tool_of(job)
    if tool is None:
        yield Problem(("tool",), "is missing.", try_="write `tool: opencode`, or a `command`.")
    if tool == "command" and "command" not in job:
        yield Problem(("command",), "is missing.", try_="write the program that is the agent, as `command: ./agent`.")
    if tool not in (None, "command") and "model" not in job:
        yield Problem(("model",), "is missing.", try_="write `model: {name: qwen3-coder, provider: ollama}`.")
    if "budget" in job and "model" not in job:
        yield Problem(
            ("budget",),
            "goes only with a `model`: it is the calls through the model route that are counted.",
            try_="name the model, or limit the time with `timeout`.",
        )
    if tool != "command" and not any(name in job for name in PROMPTS):
        yield Problem(("prompt",), "is missing.", try_="write what the agent is to do as `prompt` or `prompt_file`.")
    repo = job.get("repo")
    if isinstance(repo, dict) and "url" not in repo and "path" not in repo:
        yield Problem(("repo",), "names no repository.", try_="write an address as `url` or a folder as `path`.")
