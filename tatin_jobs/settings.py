"""Settings: defaults < ``<home>/tatin.toml`` < ``TATIN_*`` environment < flags; each declared once, with its source.

``tatin.toml`` is the host's own and trusted; job files cannot set anything here. Keys of models are read where they
are used (``ModelProvider.key``), so that a Settings can be printed.
"""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from tatin_jobs.errors import BadInput
from tatin_jobs.home import Home
from tatin_jobs.names import WORKER
from tatin_jobs.secret_sources import SecretSource


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _network(value: object) -> object:
    """A range of addresses as written: 192.0.2.0/24, or one address."""
    try:
        return ip_network(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"'{str(value)[:60]}' is no range of addresses such as 192.0.2.0/24") from error


class SecretSetting(_Section):
    """``[secrets.<name>]``: a secret that jobs may ask for by name, and where it comes from: exactly one of these."""

    env: str | None = None
    file: Path | None = None
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    keychain: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("write one of `env`, `file`, `command` and `keychain`")
        return self

    @property
    def source(self) -> SecretSource:
        return SecretSource(self.env, self.file, self.command, self.keychain)


class ModelProvider(_Section):
    """``[models.<provider>]``: the address of a model server as seen from this host, and where its key comes from.

    At most one of ``key_env`` (a variable of the worker's environment), ``key_file`` (mode 0600), ``key_command`` and
    ``key_keychain`` (macOS) may be set; none for servers that want no key. ``api`` is the dialect: openai (Chat
    Completions), anthropic (Messages), or both. ``subscription``: the key is the token of a Claude subscription.
    """

    base_url: str
    api: Literal["openai", "anthropic", "both"] = "openai"
    context_tokens: int | None = Field(default=None, ge=1024, le=100_000_000)
    """How much its models read, in tokens. An agent that knows it shortens its history in time."""
    key_env: str | None = None
    key_file: Path | None = None
    key_command: tuple[str, ...] | None = Field(default=None, min_length=1)
    key_keychain: str | None = None
    subscription: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        given = [self.key_env, self.key_file, self.key_command, self.key_keychain]
        if sum(source is not None for source in given) > 1:
            raise ValueError("write at most one of `key_env`, `key_file`, `key_command` and `key_keychain`")
        if self.subscription and (self.api != "anthropic" or self.key_source is None):
            raise ValueError('a subscription has `api = "anthropic"` and a token')
        return self

    @property
    def key_source(self) -> SecretSource | None:
        """None: the server wants no key."""
        if not (self.key_env or self.key_file or self.key_command or self.key_keychain):
            return None
        return SecretSource(self.key_env, self.key_file, self.key_command, self.key_keychain)

    def key(self) -> str | None:
        """The key, or None when the server wants none; may take a minute.

        Raises:
            BadInput: it cannot be had.
        """
        source = self.key_source
        return source.read(f"The key of model server '{self.base_url}'") if source else None


class AgentSettings(_Section):
    """``[agents.<tool>]``: what this worker does its own way with one agent tool."""

    version: str | None = Field(default=None, pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$")
    """Instead of the version that this release of Tatin pins and was tested with."""
    config: Path | None = None
    """A JSON file in the form of the tool's own configuration. What Tatin writes for a job is merged into it; it goes
    into the guest, so it must hold no secret."""


class GatewaySettings(_Section):
    """``[gateway]``: what every guest of this host reaches its networks by.

    ``trusted_networks``: ranges that guests may reach although they are not public; a job still has to allow them.
    ``ca_certificate``: a PEM file whose authorities every guest trusts beside its own (an inspecting proxy's).
    """

    trusted_networks: tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...] = ()
    ca_certificate: Path | None = None


class Settings(_Section):
    """Everything that can be set. ``sources`` maps a name to where its value came from; absent: the default."""

    home: Path
    redis_url: str | None = None
    worker_name: str = Field(pattern=f"^(?:{WORKER.pattern})$")
    """Unique among the workers of one store: leases and capacity are kept by it."""
    cpus: int | None = Field(default=None, ge=1, le=4096)
    """CPUs offered; default: twice the logical ones (agents mostly wait for the model)."""
    memory_mib: int | None = Field(default=None, ge=256)
    """Memory offered; default: RAM less max(2 GiB, 25 %)."""
    slots: int | None = Field(default=None, ge=1, le=512)
    """Attempts at once; default: one per offered CPU, 64 at most."""
    sandbox: str = "auto"
    tart_ssh: Literal["network", "exec"] = "network"
    """How Tart's guests are reached: by their address, or through ``tart exec``, which needs no network."""
    tags: tuple[str, ...] = ()
    disk_floor_mib: int = Field(default=5 * 1024, ge=0)
    """No claim while less than this is free."""
    lease_seconds: float = Field(default=60, ge=0.5, le=3600)
    beat_seconds: float = Field(default=10, ge=0.05, le=600)
    reap_seconds: float = Field(default=5, ge=0.05, le=600)
    cut_off_seconds: float = Field(default=900, ge=1)
    """How long attempts go on that cannot be renewed: somebody else may run the job by then."""
    max_deaths: int = Field(default=2, ge=1, le=20)
    """A job is lost when this many of its workers died."""
    drain_seconds: float = Field(default=600, ge=0)
    """How long a drain waits for running attempts before it hands them back."""
    default_cpus: int = Field(default=4, ge=1)
    default_memory_mib: int = Field(default=8192, ge=128)
    default_disk_mib: int = Field(default=20_000, ge=100)
    models: dict[str, ModelProvider] = Field(default_factory=dict)
    secrets: dict[str, SecretSetting] = Field(default_factory=dict)
    """What jobs may have put into their guests, by name."""
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    agent_classes: tuple[str, ...] = ()
    """``module:Class`` of the agent adapters of the user's own that jobs may name as their ``tool``. Their code runs in
    the worker, outside every sandbox, so a job file alone cannot choose it."""
    gateway: GatewaySettings = GatewaySettings()
    private_repos: bool = False
    """Whether jobs may clone from this host and its private network (A27)."""
    notify: tuple[str, ...] = ()
    """argv of a command that is run when a batch ends or is held; the facts come as JSON on its stdin."""
    log_limit_mib: int = Field(default=64, ge=1)
    """agent.log is cut at this size."""
    artifact_limit_mib: int = Field(default=2048, ge=1)
    sources: dict[str, str] = Field(default_factory=dict)

    @field_validator("agents")
    @classmethod
    def _known_tools(cls, agents: dict[str, AgentSettings]) -> dict[str, AgentSettings]:
        from tatin_jobs.tools.pins import TOOLS

        for name in agents:
            if name not in TOOLS and ":" not in name:
                raise ValueError(f"there is no agent tool '{name}'; one of: {', '.join(sorted(TOOLS))}")
        return agents

    def agent(self, tool: str) -> AgentSettings:
        """What is set for this agent tool."""
        return self.agents.get(tool, AgentSettings())

    def source(self, name: str) -> str:
        """Where the value of ``name`` came from, for ``doctor``."""
        return self.sources.get(name, "default")


ENVIRONMENT: dict[str, str] = {
    "TATIN_REDIS_URL": "redis_url",
    "TATIN_WORKER_NAME": "worker_name",
    "TATIN_SLOTS": "slots",
    "TATIN_SANDBOX": "sandbox",
    "TATIN_TART_SSH": "tart_ssh",
    "TATIN_LEASE_SECONDS": "lease_seconds",
    "TATIN_BEAT_SECONDS": "beat_seconds",
    "TATIN_REAP_SECONDS": "reap_seconds",
    "TATIN_CUT_OFF_SECONDS": "cut_off_seconds",
    "TATIN_DRAIN_SECONDS": "drain_seconds",
    "TATIN_DISK_FLOOR": "disk_floor_mib",
    "TATIN_CPUS": "default_cpus",
    "TATIN_MEMORY": "default_memory_mib",
    "TATIN_DISK": "default_disk_gb",
}
"""Variable -> setting. ``TATIN_CPUS``, ``TATIN_MEMORY`` (MiB) and ``TATIN_DISK`` (GB) are the original's and set what a
job gets that names no resources."""


def home_from(environ: Mapping[str, str]) -> Home:
    """The home that ``TATIN_HOME`` names, or ``~/.tatin``."""
    text = environ.get("TATIN_HOME")
    return Home(Path(text).expanduser().absolute() if text else Path.home() / ".tatin")


def load_settings(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
    """Read all sources, lowest first. ``flags`` whose value is None were not given.

    Raises:
        BadInput: a file that cannot be read, an unknown key or a value out of range; names file, field and value.
    """
    home = home_from(environ)
    values: dict[str, Any] = {"home": home.root, "worker_name": _host_name()}
    sources: dict[str, str] = {"home": "TATIN_HOME" if environ.get("TATIN_HOME") else "default"}
    for name, value in _read_file(home.settings_file).items():
        values[name] = value
        sources[name] = str(home.settings_file)
    for variable, name in ENVIRONMENT.items():
        if text := environ.get(variable):
            values[name] = text
            sources[name] = variable
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = value
            sources[name] = "flag"
    return _validate(values, sources)


def _validate(values: dict[str, Any], sources: dict[str, str]) -> Settings:
    if "default_disk_gb" in values:
        source = sources["default_disk_mib"] = sources.pop("default_disk_gb")
        text = str(values.pop("default_disk_gb"))
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            raise BadInput(
                f"Setting 'default_disk_gb' is wrong: {text[:40]!r} is no whole number of GB.", seen=f"from {source}"
            )
        values["default_disk_mib"] = int(text) * 1000
    if "sources" in values:
        raise BadInput("Unknown setting 'sources'.", seen=f"from {sources['sources']}")
    try:
        return Settings(**values, sources=sources)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = ".".join(str(part) for part in item["loc"])
            source = sources.get(str(item["loc"][0]) if item["loc"] else "", "default")
            wrong = "there is none of that name" if item["type"] == "extra_forbidden" else item["msg"]
            lines.append(f"Setting '{name}' from {source} is wrong: {wrong}.")
        raise BadInput(
            "\n".join(lines), try_="correct it there, or take it out; no command works until then."
        ) from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"The settings file '{path}' cannot be read.", seen=str(error)) from error


def _host_name() -> str:
    name = "".join(char if char.isalnum() or char in "-_." else "-" for char in socket.gethostname().split(".")[0])
    return name.strip("-_.")[:60] or "worker"
