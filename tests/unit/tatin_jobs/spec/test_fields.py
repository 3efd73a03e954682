"""What each field takes, what it becomes, and what is said of what it does not take."""

from __future__ import annotations

from typing import Any

import pytest

from tatin_jobs.models import Budget, Network, NetworkPolicy
from tatin_jobs.spec.unsupported import FIELDS
from tatin_jobs.states import Reason
from tests.unit.tatin_jobs.spec.files import MINIMAL, JobFolder

OPENCODE = "repo: https://example.com/a.git\ntool: opencode\nmodel: m\nprompt: p\n"


def test_the_shortest_job_gets_every_default(jobs: JobFolder) -> None:
    spec = jobs.job(MINIMAL)
    assert (spec.name, spec.tool, spec.command, spec.prompt) == ("job", "command", "make", None)
    assert spec.repo.url == "https://example.com/app.git"
    assert (spec.timeout_seconds, spec.idle_timeout_seconds, spec.priority) == (7200, 900, 0)
    assert (spec.resources.cpus, spec.verify, spec.artifacts, spec.retries.max) == (None, None, None, 0)


@pytest.mark.parametrize(("file", "name"), [("fix-it.yaml", "fix-it"), ("Fix it.yaml", "job"), ("-x.yml", "job")])
def test_a_job_without_name_is_named_after_its_file_if_that_can_be(jobs: JobFolder, file: str, name: str) -> None:
    (job,) = jobs.read(jobs.write(MINIMAL, file))
    assert job.spec.name == name


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("version: 1", "version", 1),
        ("name: a-b", "name", "a-b"),
        ("labels: {team: infra, run: '3', x: ''}", "labels", {"team": "infra", "run": "3", "x": ""}),
        ("tool: command", "tool", "command"),
        ("args: [--fast, '3', 'a b\nc']", "args", ("--fast", "3", "a b c")),
        ("setup: |\n  a\n  b", "setup", "a\nb"),
        ("sandbox: bwrap", "sandbox", "bwrap"),
        ("sandbox: qemu\nimage: ci-2\nkeep: on-failure", "image", "ci-2"),
        ("env: {CI: 'yes', Y: yes, T: 22:00}", "env", {"CI": "yes", "Y": "yes", "T": "22:00"}),
        ("timeout: 1h30m", "timeout_seconds", 5400),
        ("idle_timeout: 90s", "idle_timeout_seconds", 90),
        ("model: m\nbudget: {usd: 0.5, tokens: 2000000}", "budget", Budget(usd=0.5, tokens=2_000_000)),
        ("model: m\nbudget: {usd: 5, turns: '200'}", "budget", Budget(usd=5, turns=200)),
        ("priority: -1000", "priority", -1000),
        ("priority: '7'", "priority", 7),
        ("artifacts: ['work/**', './x']", "artifacts", ("work/**", "./x")),
        ("artifacts: []", "artifacts", ()),
        ("network: {mode: none}", "name", "job"),
    ],
)
def test_a_field_becomes_what_the_job_holds(jobs: JobFolder, text: str, field: str, expected: Any) -> None:
    assert getattr(jobs.field(text), field) == expected


def test_sections_are_resolved(jobs: JobFolder) -> None:
    spec = jobs.field(
        "verify: {run: make test, timeout: 20m, in: same}\n"
        "resources: {cpus: 2, memory: 4GiB, disk: 20GB}\n"
        "requires: {os: linux, arch: arm64, tags: [xcode, gpu]}\n"
        "retries: {max: 2, when: [agent, oom], backoff: 1h}\n"
    )
    assert spec.verify is not None
    assert (spec.verify.run, spec.verify.timeout_seconds) == ("make test", 1200)
    assert (spec.resources.cpus, spec.resources.memory_mib, spec.resources.disk_mib) == (2, 4096, 19074)
    assert (spec.requires.os, spec.requires.arch, spec.requires.tags) == ("linux", "arm64", ("xcode", "gpu"))
    assert (spec.retries.max, spec.retries.backoff_seconds) == (2, 3600)
    assert spec.retries.when == (Reason.AGENT, Reason.OOM)


@pytest.mark.parametrize("text", ["verify: make test", "verify: {run: make test}"])
def test_verify_may_be_one_line(jobs: JobFolder, text: str) -> None:
    verify = jobs.field(text).verify
    assert verify is not None
    assert (verify.run, verify.timeout_seconds) == ("make test", 600)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{mode: none}", Network()),
        ("open", Network(mode="open")),
        ("{mode: allowlist, allow: [pip, '*.example.com']}", Network(mode="allowlist", allow=("pip", "*.example.com"))),
        ("{allow: [pip]}", Network(mode="allowlist", allow=("pip",))),
        ("{setup: open}", Network(setup=NetworkPolicy(mode="open"))),
        (
            "{allow: [pip], setup: {allow: ['a.example:8080']}, verify: none}",
            Network(
                mode="allowlist",
                allow=("pip",),
                setup=NetworkPolicy(mode="allowlist", allow=("a.example:8080",)),
                verify=NetworkPolicy(),
            ),
        ),
    ],
)
def test_a_network_is_a_mode_or_a_list_and_each_step_may_have_its_own(
    jobs: JobFolder, text: str, expected: Network
) -> None:
    assert jobs.field(f"network: {text}").network == expected


def test_a_model_is_a_name_that_is_not_split_or_a_mapping(jobs: JobFolder) -> None:
    short = jobs.job(OPENCODE.replace("model: m", "model: openai/gpt")).model
    long = jobs.job(OPENCODE.replace("model: m", "model: {name: m, provider: p, base_url: 'http://h:1/v1'}")).model
    assert short is not None
    assert long is not None
    assert (short.name, short.provider, short.base_url) == ("openai/gpt", None, None)
    assert (long.name, long.provider, long.base_url) == ("m", "p", "http://h:1/v1")


def test_a_command_is_a_line_or_an_argument_vector(jobs: JobFolder) -> None:
    repo = "repo: https://example.com/a.git\n"
    assert jobs.job(f"{repo}command: make 'a b' | tee x").command == "make 'a b' | tee x"
    assert jobs.job(f"{repo}command: [make, a b]").command == ("make", "a b")


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("version: 2", "version", "does not know"),
        ("version: true", "version", "does not know"),
        ("name: Fix", "name", "'Fix' is no usable name"),
        ("name: 123", "name", "is a number where text is wanted"),
        ("labels: [a]", "labels", "is not a mapping"),
        ("labels: {team: 3}", "labels.team", "is a number"),
        ("args: --fast", "args", "is not a list"),
        ("args: [a, 3]", "args[1]", "is a number"),
        ("args: [{a: b}]", "args[0]", "is a mapping"),
        (f"args: [{', '.join(['a'] * 257)}]", "args", "more than 256 items"),
        (f"args: [{'x' * 60_000}, {'y' * 60_000}]", "args", "96.0 KiB in all"),
        ("setup: ''", "setup", "is empty"),
        ("setup:", "setup", "has no value"),
        ('setup: "a\\eb"', "setup", "U+001B"),
        ("verify: {timeout: 1m}", "verify.run", "is missing"),
        ("verify: {run: a, timeout: 0s}", "verify.timeout", "is not between 1s and 30d"),
        ("budget: {turns: 5}", "budget", "goes only with a `model`"),
        ("budget: {usd: 0}\nmodel: m", "budget.usd", "is not over 0"),
        ("budget: {usd: 1e9}\nmodel: m", "budget.usd", "at most 1000000"),
        ("budget: {usd: $5}\nmodel: m", "budget.usd", "is no amount of US dollars"),
        ("budget: {usd: true}\nmodel: m", "budget.usd", "is no amount of US dollars"),
        ("budget: {tokens: 1.5}\nmodel: m", "budget.tokens", "is no whole number"),
        ("budget: {turns: 0}\nmodel: m", "budget.turns", "is not between 1 and"),
        ("budget: {euro: 5}\nmodel: m", "budget.euro", "is no field"),
        ("verify: {run: a, in: fesh}", "verify.in", "Did you mean `fresh`?"),
        ("sandbox: docker", "sandbox", "'docker' is not known here"),
        ("image: ../x", "image", "small letters"),
        ("keep: forever", "keep", "Did you mean `never`?"),
        ("sandbox: bwarp", "sandbox", "Did you mean `bwrap`?"),
        ("resources: 4", "resources", "is not a mapping"),
        ("resources: {cpus: 0}", "resources.cpus", "is not between 1 and 1024"),
        ("resources: {cpus: 1.5}", "resources.cpus", "is no whole number"),
        ("resources: {cpus: true}", "resources.cpus", "is no whole number"),
        ("resources: {memory: 4096}", "resources.memory", "is not a size"),
        ("resources: {memory: 1kB}", "resources.memory", "is not between"),
        ("resources: {disk: 100 TiB}", "resources.disk", "is not between"),
        ("requires: {os: windows}", "requires.os", "is not known here"),
        ("requires: {arch: x86}", "requires.arch", "is not known here"),
        ("requires: {tags: ['a:b']}", "requires.tags[0]", "is no usable name"),
        ("requires: {tags: [a, a]}", "requires.tags", "twice"),
        ("network: {mode: opn}", "network.mode", "Did you mean `open`?"),
        ("network: {mode: allowlist}", "network.allow", "is missing"),
        ("network: {mode: open, allow: [pip]}", "network.allow", "goes only with `mode: allowlist`"),
        ("network: {setup: {mode: allowlist}}", "network.setup.allow", "is missing"),
        ("network: {setup: allowlist}", "network.setup", "names no host"),
        ("network: {verify: {alow: [pip]}}", "network.verify.alow", "Did you mean `allow`?"),
        ("network: {allow: [pipp]}", "network.allow[0]", "is none of the ready-made lists"),
        ("network: {allow: ['https://a.example/']}", "network.allow[0]", "more than a host and a port"),
        ("network: {allow: [10.0.0.1/8]}", "network.allow[0]", "is no range of addresses"),
        ("network: {allow: [pip, pip]}", "network.allow", "twice"),
        ("env: {CI: 1}", "env.CI", "is a number"),
        ("env: {CI: true}", "env.CI", "is true or false"),
        ("env: {1A: x}", "env.1A", "is no usable name"),
        ("env: {TATIN_X: x}", "env.TATIN_X", "begins with `TATIN_`"),
        ('env: {A: "x\\ny"}', "env.A", "holds a newline"),
        ("timeout: 5 min", "timeout", "'5 min' is not a duration"),
        ("timeout: 300", "timeout", "'300' is not a duration"),
        ("timeout: 31d", "timeout", "30d"),
        ("idle_timeout: 0s", "idle_timeout", "is not between"),
        ("retries: {max: 11}", "retries.max", "is not between 0 and 10"),
        ("retries: {when: [quota]}", "retries.when[0]", "is not known here"),
        ("retries: {when: [netwrk]}", "retries.when[0]", "Did you mean `network`?"),
        ("retries: {backoff: 2h}", "retries.backoff", "is not between 1s and 1h"),
        ("priority: 1001", "priority", "is not between -1000 and 1000"),
        ("priority: 1e3", "priority", "is no whole number"),
        ("artifacts: work/**", "artifacts", "is not a list"),
        ("artifacts: [/etc]", "artifacts[0]", "leads out"),
        ("artifacts: [work/../../x]", "artifacts[0]", "leads out"),
        (f"artifacts: [{', '.join(f'a{n}' for n in range(65))}]", "artifacts", "more than 64 items"),
        ("model: {provider: ollama}", "model.name", "is missing"),
        ("model: 3", "model", "is neither text nor a mapping"),
        ("model: {name: m, base_url: 'ftp://h'}", "model.base_url", "is no http or https address"),
        ("model: {name: m, base_url: 'http://h/?k=1'}", "model.base_url", "has a `?`"),
        ("model: {name: m, provider: a/b}", "model.provider", "is no usable name"),
    ],
)
def test_what_a_field_does_not_take_is_refused_by_name(jobs: JobFolder, text: str, field: str, message: str) -> None:
    found = jobs.refused(text)
    assert (found.line, found.field) == (3, field)
    assert message in found.message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("repo: https://example.com/a.git\nprompt: x", "tool"),
        ("repo: https://example.com/a.git\ntool: command", "command"),
        ("repo: https://example.com/a.git\ntool: opencode\nprompt: x", "model"),
        ("repo: https://example.com/a.git\ntool: opencode\nmodel: m", "prompt"),
        ("command: make", "repo"),
        ("command: make\nrepo: {ref: main}", "repo"),
    ],
)
def test_what_a_job_needs_and_has_not_is_named(jobs: JobFolder, text: str, field: str) -> None:
    found = jobs.complaint(text)
    assert found.field == field
    assert "is missing" in found.message or "names no repository" in found.message
    assert found.try_


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (OPENCODE + "prompt_file: p.md", "prompt_file"),
        (OPENCODE + "command: make", "command"),
        ("command: make\nrepo: {path: ., url: 'https://example.com/a'}\nname: x", "repo.path"),
    ],
)
def test_fields_that_exclude_one_another_are_named(jobs: JobFolder, text: str, field: str) -> None:
    jobs.write("p", "p.md")
    assert jobs.complaint(text).field == field


@pytest.mark.parametrize("tool", ["claude", "opencode", "pi", "crush", "my.module:Agent", "m:A"])
def test_a_tool_is_one_of_ours_or_a_class_of_the_users(jobs: JobFolder, tool: str) -> None:
    assert jobs.job(f"repo: https://example.com/a.git\ntool: {tool}\nmodel: m\nprompt: x").tool == tool


@pytest.mark.parametrize("tool", ["clod", "my.module:", ":Agent", "a b:C", "../x:C", "os:system:x", "1m:A", "é:A"])
def test_what_is_no_tool_is_refused_by_name(jobs: JobFolder, tool: str) -> None:
    found = jobs.complaint(f"repo: https://example.com/a.git\ntool: {tool!r}\nmodel: m\nprompt: x")
    assert found.field == "tool"


@pytest.mark.parametrize("name", [".".join(path) for path in FIELDS])
def test_a_field_of_the_design_that_is_not_built_is_refused_by_name(jobs: JobFolder, name: str) -> None:
    found = jobs.complaint(MINIMAL, overrides=[f"{name}=x"])
    assert found.message == f"`{name}` is not supported yet."
    assert found.field == name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("promt: x", "Did you mean `prompt`?"),
        ("Timeout: 3m", "Did you mean `timeout`?"),
        ("verify: {runs: x, run: y}", "Did you mean `run`?"),
        ("verify: {inn: same, run: y}", "Did you mean `in`?"),
        ("resources: {memry: 1GiB}", "Did you mean `memory`?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(jobs: JobFolder, text: str, hint: str) -> None:
    found = jobs.refused(text)
    assert found.message == f"is no field of a job file. {hint}"


def test_an_unknown_key_like_no_other_lists_what_there_is_without_its_value(jobs: JobFolder) -> None:
    found = jobs.refused("resources: {qqq: hunter2}")
    assert found.try_ == "the fields here: cpus, memory, disk."
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("field", ["env: {A: 12345678}", 'env: {A: "12345678\\n"}', "prompt: 12345678"])
def test_values_that_may_be_long_or_secret_are_not_repeated(jobs: JobFolder, field: str) -> None:
    found = jobs.refused(field)
    assert "12345678" not in str(found)
    assert found.value is None


def test_every_complaint_comes_at_once_in_the_order_of_files_and_lines(jobs: JobFolder) -> None:
    first = "name: A\nrepo: {url: 'https://example.com/a', depth: x}\nnme: b\ntool: opencode\ntimeout: soon\nname: b\n"
    second = (
        "command: make\nrepo: https://example.com/a\n---\n[a]\n---\ncommand: make\nprompt_file: gone.md\npriority: x\n"
    )
    found = jobs.complaints(first, second)
    places = [(text.file[-6:], text.line, text.field) for text in found]
    assert [place[:2] for place in places] == sorted(place[:2] for place in places)
    assert sorted(places) == [
        ("0.yaml", 1, "model"),
        ("0.yaml", 1, "name"),
        ("0.yaml", 1, "prompt"),
        ("0.yaml", 2, "repo.depth"),
        ("0.yaml", 3, "nme"),
        ("0.yaml", 5, "timeout"),
        ("0.yaml", 6, "name"),
        ("1.yaml", 4, ""),
        ("1.yaml", 6, "repo"),
        ("1.yaml", 7, "prompt_file"),
        ("1.yaml", 8, "priority"),
    ]
    assert "stands on line 1 already" in found[6].message


def test_a_line_is_that_of_the_value_in_the_file(jobs: JobFolder) -> None:
    text = "# a comment\n\nretries:\n  max: 3\n  when:\n    - sandbox\n    - nothing\n"
    text += "verify:\n  run: |\n    a\n  timeout: x\n"
    assert [(found.line, found.field) for found in jobs.complaints(text + MINIMAL)] == [
        (7, "retries.when[1]"),
        (11, "verify.timeout"),
    ]


def test_a_value_is_shown_short_and_clean(jobs: JobFolder) -> None:
    found = jobs.refused(f'name: "\\e]0;x\\u202e{"y" * 500}"')
    assert found.value is not None
    assert "\x1b" not in str(found)
    assert "\u202e" not in str(found)
    assert len(found.value) <= 80
