"""The job file as the user writes it: every field that is honoured, with its words and examples for the schema.

Fields of the design that are not built yet are in ``unsupported``; what two fields say of each other is in ``rules``.
None stands for a field that was left out; ``null`` in a file is refused before it comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tatin_jobs.models import DEFAULT_IDLE_TIMEOUT_SECONDS, DEFAULT_IMAGE, DEFAULT_TIMEOUT_SECONDS, Retries, Verify
from tatin_jobs.spec import fields as f
from tatin_jobs.spec.overrides import SHORT_FORMS


@dataclass(frozen=True)
class _ShortForm:
    """One text stands for a mapping with this one key."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def mapping(value: object) -> object:
            return {self.key: value} if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RepoFile(_Section):
    """The repository: one of `url` and `path`, and what of it."""

    url: f.Repository | None = Field(
        None, description="An address (https, http, ssh, git), or a local path.", examples=["https://example.com/a.git"]
    )
    path: f.RepositoryFolder | None = Field(
        None,
        description="A folder of the submitter's, relative to the job file. HEAD (or `ref`) goes along with the job;"
        " uncommitted changes do not.",
        examples=[".."],
    )
    ref: f.Ref | None = Field(
        None, description="Branch, tag or commit; the default branch (of a folder: HEAD) without it.", examples=["main"]
    )
    depth: f.Depth | None = Field(None, description="How many commits of history to bring; all without it.")
    subdir: f.Subdir | None = Field(
        None,
        description="Folder of the repository in which setup, agent and verify run.",
        examples=["packages/core"],
    )


class ModelFile(_Section):
    """The model, as the worker's settings know it."""

    name: f.ModelName = Field(description="The name that its server knows.", examples=["qwen3-coder"])
    provider: f.ProviderName | None = Field(
        None,
        description="A `[models.<provider>]` section of the worker's tatin.toml, or one of ollama, lmstudio, vllm, mlx,"
        " openai, anthropic.",
        examples=["ollama"],
    )
    base_url: f.BaseUrl | None = Field(
        None,
        description="Address of the server as seen from the worker; it must be one that the worker's settings have.",
        examples=["http://127.0.0.1:11434"],
    )


class VerifyFile(_Section):
    """What decides whether the work is good."""

    run: f.Line = Field(
        description="A `sh -c` line, run in the repository after the agent is dead. Exit status 0 is a pass; where it"
        " leaves a reward file in $TATIN_REWARD_DIR, that decides.",
        examples=["make test"],
    )
    timeout: f.Timeout = Field(Verify(run="x").timeout_seconds, description="Its time limit.", examples=["10m"])
    where: f.VerifyIn = Field(
        "same",
        alias="in",
        description="`same`: in the sandbox in which the agent worked. `fresh`: in a second one, on a clean clone with"
        " the agent's patch.",
    )


class ResourcesFile(_Section):
    """What the sandbox gets. Written: a need. Left out: a wish for the worker's default, or all it has if less."""

    cpus: f.Cpus | None = Field(None, description="CPUs.", examples=[2])
    memory: f.Memory | None = Field(None, description="Memory.", examples=["4GiB"])
    disk: f.Disk | None = Field(None, description="Disk.", examples=["20GB"])


class RequiresFile(_Section):
    """What a worker must have to take the job."""

    os: f.OperatingSystem | None = Field(None, description="Operating system of the sandbox.")
    arch: f.Arch | None = Field(None, description="Processor architecture of the sandbox.")
    tags: f.Tags = Field((), description="Tags of the worker's settings.", examples=[["xcode"]])


class NetworkPolicyFile(_Section):
    """What the sandbox reaches. Its model is reached in every mode."""

    mode: f.NetworkMode | None = Field(
        None,
        description="`none`: nothing. `allowlist`: what `allow` names. `open`: every public address. Without it:"
        " `allowlist` where there is an `allow`, else `none`.",
    )
    allow: f.Allow = Field(
        (),
        description="Hosts (`docs.example.com`, `*.example.com`), ports (`host:8080`; without one 80 and 443), ranges"
        " (`192.0.2.0/24`), and ready-made lists: apt, cargo, git, go, npm, pip.",
        examples=[["pip", "docs.example.com"]],
    )


class NetworkFile(NetworkPolicyFile):
    """What the sandbox reaches, and what it reaches during setup and verify where that differs."""

    setup: Annotated[NetworkPolicyFile, _ShortForm(SHORT_FORMS["network"])] | None = Field(
        None, description="Another policy while `setup` runs: a mode, or a mapping.", examples=[{"allow": ["npm"]}]
    )
    verify: Annotated[NetworkPolicyFile, _ShortForm(SHORT_FORMS["network"])] | None = Field(
        None, description="Another policy while `verify` runs: a mode, or a mapping.", examples=["none"]
    )


class BudgetFile(_Section):
    """What the model calls of one attempt may use in all; the call after it is refused and the agent stopped."""

    usd: f.Dollars | None = Field(
        None, description="US dollars, by the worker's prices; refused for a model that has none there.", examples=[5]
    )
    tokens: f.TokenCount | None = Field(
        None, description="Tokens of every kind, those of caches too.", examples=[2_000_000]
    )
    turns: f.TurnCount | None = Field(None, description="Calls that the model answers.", examples=[200])


class RetriesFile(_Section):
    """Further attempts after a failure."""

    max: f.RetryCount = Field(Retries().max, description="How many at most.")
    when: f.RetryReasons = Field(
        Retries().when, description="Reasons for which to try again.", examples=[["sandbox", "provider", "network"]]
    )
    backoff: f.Backoff = Field(
        Retries().backoff_seconds,
        description="Pause before the first; doubled for each further one, an hour at most.",
        examples=["30s"],
    )


class JobFile(_Section):
    """A Tatin job: a repository, an agent tool and a prompt."""

    version: f.Version = Field(1, description="Version of this format.")
    name: f.JobName | None = Field(
        None,
        description="First part of the job's id. Without it: the file's name if that can be one, else `job`.",
        examples=["fix-flaky-tests"],
    )
    labels: f.Labels = Field(default_factory=dict, description="Your own marks.", examples=[{"team": "infra"}])
    repo: Annotated[RepoFile, _ShortForm(SHORT_FORMS["repo"])] = Field(
        description="The repository to work on: an address, a local path, or a mapping.",
        examples=["https://example.com/app.git", ".."],
    )
    tool: f.Tool | None = Field(
        None,
        description="The agent: claude, opencode, pi, crush, command, or `module:Class` of an adapter of your own that"
        " the worker's settings list. May be left out where `command` is given.",
        examples=["opencode"],
    )
    model: Annotated[ModelFile, _ShortForm(SHORT_FORMS["model"])] | None = Field(
        None,
        description="The model: its name, or a mapping. Every tool but `command` needs one.",
        examples=["qwen3-coder", {"name": "qwen3-coder", "provider": "ollama"}],
    )
    prompt: f.Prompt | None = Field(
        None, description="What the agent is to do.", examples=["Make the test suite stable."]
    )
    prompt_file: f.PromptPath | None = Field(
        None,
        description="A UTF-8 file with the prompt, beside or below the job file; anywhere else by its absolute path.",
        examples=["prompt.md"],
    )
    template: f.PromptPath | None = Field(
        None,
        description="A Jinja2 template of the prompt, a file as with `prompt_file`.",
        examples=["fix.md.j2"],
    )
    vars: f.Vars = Field(default_factory=dict, description="The names that `template` uses.", examples=[{"issue": 12}])
    command: f.Command | None = Field(
        None,
        description="With `tool: command`: the program that is the agent. A list is its argument vector, a text a"
        " `sh -c` line. It runs in the repository; the prompt is on its stdin and its path in TATIN_PROMPT_FILE.",
        examples=["./agent --yes", ["python3", "agent.py"]],
    )
    args: f.Arguments = Field((), description="Further arguments of the agent, after Tatin's own.")
    matrix: f.Matrix = Field(
        None,
        description="One job for each combination of these values: field -> list of its values, with `include` and"
        " `exclude` as in GitHub Actions.",
        examples=[{"tool": ["claude", "pi"], "model": ["a", "b"]}],
    )
    trials: f.Trials = Field(
        1, description="How often each combination runs, as a job of its own each time.", examples=[3]
    )
    inputs: f.Inputs = Field(
        (),
        description="Files beside or below the job file; they are copied into the guest's `work/` under the same"
        " relative name.",
        examples=[["data.csv"]],
    )
    setup: f.Line | None = Field(
        None, description="A `sh -c` line, run in the repository before the agent.", examples=["make deps"]
    )
    verify: Annotated[VerifyFile, _ShortForm(SHORT_FORMS["verify"])] | None = Field(
        None,
        description="What decides whether the work is good: a `sh -c` line, or a mapping.",
        examples=["make test", {"run": "make test", "timeout": "10m"}],
    )
    sandbox: f.Sandbox = Field("auto", description="Kind of sandbox; `auto`: the strongest that the worker has.")
    image: f.Image = Field(
        DEFAULT_IMAGE, description="What a virtual machine is made from: an image of `tatin image list`."
    )
    keep: f.Keep = Field(
        "never",
        description="Whether a virtual machine stays, stopped, when the job has ended, for `tatin attach`: for a day,"
        " and three at most on a host.",
    )
    resources: ResourcesFile = Field(ResourcesFile(), description="CPUs, memory and disk.", examples=[{"cpus": 2}])
    requires: RequiresFile = Field(RequiresFile(), description="What the worker must be.", examples=[{"os": "linux"}])
    network: Annotated[NetworkFile, _ShortForm(SHORT_FORMS["network"])] = Field(
        NetworkFile(),
        description="What the sandbox reaches, beside its model: a mode, or a mapping. Nothing without it.",
        examples=["open", {"mode": "allowlist", "allow": ["pip", "docs.example.com"]}],
    )
    env: f.Env = Field(
        default_factory=dict,
        description="Variables of setup, agent and verify. No secrets: they would be stored with the job.",
        examples=[{"CI": "1"}],
    )
    secrets: f.SecretNames = Field(
        (),
        description="Names of secrets of the worker (`[secrets.<name>]` in its tatin.toml), put into the environment of"
        " setup, agent and verify. The keys of models need none: they stay on the worker.",
        examples=[["NPM_TOKEN"]],
    )
    timeout: f.Timeout = Field(
        DEFAULT_TIMEOUT_SECONDS, description="Time limit of the agent, by the clock on the wall.", examples=["2h"]
    )
    idle_timeout: f.Timeout = Field(
        DEFAULT_IDLE_TIMEOUT_SECONDS,
        description="How long the agent may be quiet: no output, no call of its model, and its CPU idle.",
        examples=["15m"],
    )
    budget: BudgetFile | None = Field(
        None, description="What the agent's model calls may use.", examples=[{"usd": 5, "turns": 200}]
    )
    retries: RetriesFile = Field(RetriesFile(), description="Further attempts after a failure.", examples=[{"max": 2}])
    priority: f.Priority = Field(0, description="Higher goes first.")
    not_before: f.Instant | None = Field(
        None,
        description="Held until then: a time of day (the next one, where you are), or a date and time, with its zone"
        " or where you are.",
        examples=["22:00", "2030-01-31T22:00:00Z"],
    )
    deadline: f.Deadline | None = Field(
        None,
        description="Over by then, whatever it does: what waits is not run, what runs is stopped and its work brought"
        " back. Written as `not_before`.",
        examples=["07:00"],
    )
    needs: f.Needs = Field(
        (),
        description="Jobs that must succeed before this one runs: names of jobs of the same submit (all of that name),"
        " or ids. When one does not, this one ends as cancelled.",
        examples=[["build"]],
    )
    account: f.Account | None = Field(
        None,
        description="Whose limit its model calls count against. When it is reached, all jobs of the account are held"
        " until it is over. Without it: the model's provider and the name of its key.",
        examples=["claude-max-1"],
    )
    artifacts: f.Artifacts | None = Field(
        None,
        description="What to bring back, as patterns relative to the guest's home. Without it: all of `work/` but the"
        " repository. The patch, the log and the transcript always come.",
        examples=[["work/**/*.csv", "work/report.html"]],
    )
