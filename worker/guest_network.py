"""One attempt's network: the egress gateway in front of its sandboxes, the variables by which programs in there find
it, the authorities that they trust, and what is told of all of it.

A guest's network is one port of its own loopback, where an HTTP proxy of the worker answers (``Sandbox.serve``). So
this is all that a provider needs to give, and nothing here knows which provider it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from tatin_jobs.errors import AttemptError
from tatin_jobs.models import JobSpec, NetworkPolicy
from tatin_jobs.netrules import TOOLS
from tatin_jobs.results import DeniedFacts, NetworkFacts, ReachedFacts
from tatin_jobs.settings import GatewaySettings
from tatin_jobs.states import Reason
from worker.agents.base import NO_PROXY
from worker.gateway.egress import NOTHING, Denial, EgressGateway, make_policy, parse_target
from worker.guest_root import tell_root
from worker.guest_trust import TRUST_VARIABLES, certificates_in, put_trust
from worker.sandboxes.base import Capabilities, Sandbox
from worker.toollists import ToolList, ask

PROXY_PORT = 4018
"""The port of the guest's loopback at which the gateway answers. Any would do: the guest's network is its own."""
PROXY = f"http://127.0.0.1:{PROXY_PORT}"
MAX_TOLD = 100
"""Denials that the live log tells one by one; the result has them all."""

Phase = Literal["setup", "agent", "verify"]


class GuestNetwork:
    """Open while its context is. ``tell`` gets lines for people as things happen."""

    def __init__(self, settings: GatewaySettings, spec: JobSpec, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._spec = spec
        self._tell = tell
        self._told = 0
        self._gateway = EgressGateway(settings.trusted_networks, self._denied)
        self._lists: dict[str, ToolList] = {}
        self._served = False

    async def __aenter__(self) -> Self:
        await self._gateway.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut everything. Safe to call twice."""
        await self._gateway.close()

    async def attach(self, sandbox: Sandbox) -> None:
        """Give a sandbox of this attempt its network, with nothing reachable yet, before the repository comes into it.

        Where the provider cannot keep a guest from going elsewhere, a job that wants no network gets no gateway: it
        would only tell a part of the story.

        Raises:
            AttemptError: reason worker, the settings' certificate cannot be used. SandboxError.
        """
        await self._gateway.enter(NOTHING)
        await self._serve(sandbox)
        if self._settings.ca_certificate:
            await put_trust(sandbox, await self._certificate())
        if self._served and sandbox.capabilities.sudo:
            trust = self._settings.ca_certificate is not None
            await tell_root(sandbox, self.environment(), PROXY, trust=trust)
        if tools := self._unknown_tools():
            await self._learn(sandbox, tools)

    async def resume(
        self, sandbox: Sandbox, lists: Mapping[str, Sequence[str]], earlier: NetworkFacts | None = None
    ) -> None:
        """Give a sandbox that outlived its worker its network again. ``lists``: those of before, since what a tool
        says now the repository may have had it say. ``earlier``: what was reached and denied by then, as far as it was
        noted; it is counted on."""
        if earlier is not None:
            self._gateway.evidence.go_on(earlier)
            self._told = len(earlier.denied)
        self._lists = {tool: ToolList(tuple(map(parse_target, found))) for tool, found in lists.items()}
        await self._serve(sandbox)

    def lists(self) -> dict[str, tuple[str, ...]]:
        """What each ready-made list of the job stands for, as ``host:port``."""
        return {tool: tuple(str(target) for target in found.targets) for tool, found in self._lists.items()}

    async def enter(self, phase: Phase) -> None:
        """From now on the policy of this phase counts; what an earlier one let through is cut."""
        network = self._spec.network
        own: Mapping[Phase, NetworkPolicy | None] = {"setup": network.setup, "agent": None, "verify": network.verify}
        field = f"network.{phase}" if own[phase] else "network"
        targets = {tool: found.targets for tool, found in self._lists.items()}
        await self._gateway.enter(make_policy(own[phase] or network, targets, field))

    def environment(self) -> dict[str, str]:
        """Variables for every command of the job. Those that the job sets itself are not among them, but for NO_PROXY:
        the model route must not go through the gateway, which would refuse it."""
        made: dict[str, str] = {}
        if self._served:
            made |= {name: PROXY for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
            made["NODE_USE_ENV_PROXY"] = "1"
        if self._settings.ca_certificate:
            made |= TRUST_VARIABLES
        made = {name: value for name, value in made.items() if name not in self._spec.env}
        if self._served:
            own = self._spec.env
            made |= {name: f"{own[name]},{value}" if name in own else value for name, value in NO_PROXY.items()}
        return made

    def facts(self, model_server: ReachedFacts | None) -> NetworkFacts:
        """All that is known so far, for the result."""
        evidence = self._gateway.evidence
        reached = [
            ReachedFacts(
                where=where,
                connections=item.connections,
                failed=item.failed,
                sent_bytes=item.sent_bytes,
                received_bytes=item.received_bytes,
            )
            for where, item in evidence.destinations.items()
        ]
        return NetworkFacts(
            mode=self._spec.network.mode,
            allow=self._spec.network.allow,
            lists=self.lists(),
            reached=(*([model_server] if model_server else []), *reached),
            denied=tuple(DeniedFacts(where=where, why=why, times=n) for (where, why), n in evidence.denied.items()),
        )

    def ports(self, capabilities: Capabilities) -> tuple[int, ...]:
        """Those of the guest that it serves, in a sandbox that can do so much."""
        wanted = any(policy.mode != "none" for policy in self._spec.network.policies())
        return (PROXY_PORT,) if wanted or capabilities.egress_control else ()

    async def _serve(self, sandbox: Sandbox) -> None:
        for port in self.ports(sandbox.capabilities):
            await sandbox.serve(port, self._gateway.protocol)
            self._served = True

    def _unknown_tools(self) -> list[str]:
        named = {rule for policy in self._spec.network.policies() for rule in policy.allow if rule in TOOLS}
        return sorted(named - self._lists.keys())

    async def _learn(self, sandbox: Sandbox, tools: list[str]) -> None:
        env = {**self.environment(), **self._spec.env}
        trusted = self._settings.trusted_networks
        self._lists |= await ask(sandbox, tools, env=env, repo_url=self._spec.repo.url, trusted=trusted)
        for tool in tools:
            found = self._lists[tool]
            hosts = ", ".join(str(target) for target in found.targets)
            self._tell(f"allow {tool}: {hosts}" if hosts else f"allow {tool} allows nothing: {found.seen}")

    async def _certificate(self) -> bytes:
        assert self._settings.ca_certificate is not None  # the caller looked
        path = self._settings.ca_certificate.expanduser()
        try:
            data = await asyncio.to_thread(path.read_bytes)
            certificates_in(data)
        except (OSError, ValueError) as error:
            raise AttemptError(
                f"The certificates '{path}' of this worker's settings cannot be used.",
                seen=str(error),
                try_="mend `ca_certificate` under [gateway] in the worker's tatin.toml.",
                reason=Reason.WORKER,
            ) from error
        return data

    def _denied(self, denial: Denial) -> None:
        self._told += 1
        if self._told <= MAX_TOLD:
            self._tell(str(denial))
        elif self._told == MAX_TOLD + 1:
            self._tell("blocked: more places, which are in the result and not told here")
