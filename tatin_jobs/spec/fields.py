"""The types of a job file's fields: each is a check (``checks``) and how the schema describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from tatin_jobs import names
from tatin_jobs.spec import checks, local_files
from tatin_jobs.spec.local_files import InputSource, PromptFile, Surroundings
from tatin_jobs.spec.unsupported import VALUES
from tatin_jobs.spec.when import deadline, not_before
from tatin_jobs.states import Reason
from tatin_jobs.units import MAX_DURATION_SECONDS

SANDBOXES = ("auto", "tart", "qemu", "bwrap")
RETRYABLE = (
    Reason.AGENT,
    Reason.VERIFY,
    Reason.SETUP,
    Reason.REPO,
    Reason.SANDBOX,
    Reason.PROVIDER,
    Reason.NETWORK,
    Reason.AUTH,
    Reason.OOM,
    Reason.DISK,
    Reason.WORKER,
)
"""The other reasons never end an attempt as failed: quota holds the job, a time limit is an outcome of its own."""
MAX_BACKOFF_SECONDS = 3600
"""The worker waits no longer than that between two attempts."""

_NAME_RULE = "1 to 40 of a-z, 0-9 and -, no dash at either end"
_LABEL_RULE = "1 to 63 letters, digits and . _ -, with a letter or digit at both ends"
_GIB = 1024


@dataclass(frozen=True, eq=False)
class Checked:
    """A check in place of pydantic's own for the type, and the JSON Schema of what it takes."""

    check: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


@dataclass(frozen=True, eq=False)
class Located:
    """A check of text that looks at the Surroundings, which are the context of the validation."""

    check: Callable[[Any, Surroundings], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any, info: ValidationInfo[Surroundings]) -> Any:
            return self.check(value, info.context)

        return core_schema.with_info_plain_validator_function(check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string"}


def _texts(check: Callable[[Any], Any], **schema: Any) -> Checked:
    return Checked(check, {"type": "string", **schema})


def _named(pattern: re.Pattern[str], rule: str) -> Checked:
    return _texts(lambda value: checks.matching(pattern, rule, value), pattern=f"^(?:{pattern.pattern})$")


def _numbers(low: int, high: int) -> Checked:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Checked(lambda value: checks.whole(value, low, high), schema)


def _choices(choices: tuple[str, ...], field: tuple[str, ...] = ()) -> Checked:
    refused = VALUES.get(field, {})
    return Checked(lambda value: checks.chosen(choices, refused, value), {"enum": list(choices)})


def _durations(high: int) -> Checked:
    pattern = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
    return _texts(lambda value: checks.duration(1, high, value), pattern=pattern, minLength=2)


def _sizes(low_mib: int, high_mib: int) -> Checked:
    pattern = r"^[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
    return _texts(lambda value: checks.size(low_mib, high_mib, value), pattern=pattern)


_MATRIX_SCHEMA = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}}
_ARGV_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": checks.MAX_LIST}
_NO_REPEATS = AfterValidator(checks.no_repeats)
_TOTAL = AfterValidator(checks.check_total)

_TOOL_SCHEMA = {
    "anyOf": [{"enum": list(checks.TOOLS)}, {"type": "string", "pattern": f"^(?:{checks.OWN_TOOL.pattern})$"}]
}
Version = Annotated[int, Checked(checks.version, {"const": 1})]
JobName = Annotated[str, _named(names.NAME, _NAME_RULE)]
LabelKey = Annotated[str, _named(names.LABEL_KEY, _LABEL_RULE)]
LabelValue = Annotated[str, _named(names.LABEL_VALUE, f"nothing, or {_LABEL_RULE}")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=checks.MAX_LABELS)]
Tool = Annotated[str, Checked(checks.tool, _TOOL_SCHEMA)]
Repository = Annotated[str | Path, Located(local_files.repository)]
RepositoryFolder = Annotated[Path, Located(local_files.repository_folder)]
Ref = Annotated[str, _texts(checks.ref)]
Depth = Annotated[int, _numbers(1, 1_000_000)]
Subdir = Annotated[str, _texts(checks.subdir)]
ModelName = Annotated[str, _texts(checks.model_name)]
ProviderName = Annotated[str, _named(names.LABEL_KEY, _LABEL_RULE)]
BaseUrl = Annotated[str, _texts(checks.base_url)]
Prompt = Annotated[str, _texts(checks.prompt)]
PromptPath = Annotated[PromptFile, Located(local_files.prompt_file)]
Vars = Annotated[dict[str, Any], Checked(checks.template_vars, {"type": "object"})]
Command = Annotated[str | tuple[str, ...], Checked(checks.command, {"anyOf": [{"type": "string"}, _ARGV_SCHEMA]})]
Argument = Annotated[str, _texts(checks.argument)]
Arguments = Annotated[tuple[Argument, ...], Field(max_length=checks.MAX_LIST), _TOTAL]
Input = Annotated[InputSource, Located(local_files.input_file)]
Matrix = Annotated[None, Checked(lambda value: value, _MATRIX_SCHEMA)]
"""Read by ``matrix`` before the fields are."""
Trials = Annotated[int, _numbers(1, checks.MAX_TRIALS)]
Inputs = Annotated[
    tuple[Input, ...], Field(max_length=checks.MAX_INPUTS), _NO_REPEATS, AfterValidator(local_files.check_inputs)
]
Line = Annotated[str, _texts(checks.line)]
VerifyIn = Annotated[str, _choices(("same", "fresh"))]
Sandbox = Annotated[str, _choices(SANDBOXES)]
Image = Annotated[str, _named(names.IMAGE, "small letters, digits and dashes, 40 at most")]
Keep = Annotated[str, _choices(("never", "on-failure", "always"))]
Cpus = Annotated[int, _numbers(1, 1024)]
Memory = Annotated[int, _sizes(128, 4096 * _GIB)]
Disk = Annotated[int, _sizes(100, 64 * 1024 * _GIB)]
OperatingSystem = Annotated[str, _choices(("linux", "macos"))]
Arch = Annotated[str, _choices(("arm64", "amd64"))]
Tag = Annotated[str, _named(names.TAG, _LABEL_RULE)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=checks.MAX_TAGS), _NO_REPEATS]
NetworkMode = Annotated[str, _choices(("none", "allowlist", "open"))]
AllowRule = Annotated[str, _texts(checks.allow_rule)]
Allow = Annotated[tuple[AllowRule, ...], Field(max_length=checks.MAX_LIST), _NO_REPEATS]
EnvName = Annotated[str, _texts(checks.env_name, pattern=f"^(?:{names.ENV_NAME.pattern})$")]
EnvValue = Annotated[str, _texts(checks.env_value)]
Env = Annotated[dict[EnvName, EnvValue], Field(max_length=checks.MAX_LIST), _TOTAL]
SecretNames = Annotated[tuple[EnvName, ...], Field(max_length=checks.MAX_LIST), _NO_REPEATS]
Dollars = Annotated[
    float, Checked(checks.dollars, {"type": "number", "exclusiveMinimum": 0, "maximum": checks.MAX_DOLLARS})
]
TokenCount = Annotated[int, _numbers(1, 10**12)]
TurnCount = Annotated[int, _numbers(1, 10**6)]
Timeout = Annotated[int, _durations(MAX_DURATION_SECONDS)]
RetryCount = Annotated[int, _numbers(0, 10)]
RetryReason = Annotated[Reason, Checked(checks.reason(RETRYABLE), {"enum": [str(reason) for reason in RETRYABLE]})]
RetryReasons = Annotated[tuple[RetryReason, ...], _NO_REPEATS]
Backoff = Annotated[int, _durations(MAX_BACKOFF_SECONDS)]
Priority = Annotated[int, _numbers(-1000, 1000)]
Instant = Annotated[datetime, Located(not_before)]
Deadline = Annotated[datetime, Located(deadline)]
Account = Annotated[str, _named(names.LABEL_KEY, _LABEL_RULE)]
NeededJob = Annotated[str, _named(names.ID, "a job's name or id: a-z, 0-9 and -")]
Needs = Annotated[tuple[NeededJob, ...], Field(max_length=checks.MAX_NEEDS), _NO_REPEATS]
ArtifactGlob = Annotated[str, _texts(checks.artifact_glob)]
Artifacts = Annotated[tuple[ArtifactGlob, ...], Field(max_length=checks.MAX_GLOBS), _NO_REPEATS]
