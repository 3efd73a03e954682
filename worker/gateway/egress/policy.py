"""What a guest may reach at present, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tatin_jobs.models import NetworkPolicy
from tatin_jobs.netrules import AddressRule, HostRule, ToolRule, parse_rule
from worker.gateway.egress.denial import NO_NETWORK, NOT_ALLOWED
from worker.gateway.egress.target import Target

Reach = HostRule | AddressRule


@dataclass(frozen=True)
class Policy:
    """``rules`` count in mode allowlist only. ``field`` is the job's field that it comes from, for people."""

    mode: str = "none"
    rules: tuple[Reach, ...] = ()
    field: str = "network"

    def denies(self, target: Target) -> str | None:
        """Why the guest may not go there; None when it may, as far as names and ports go."""
        if self.mode == "open":
            return None
        if self.mode == "none":
            return NO_NETWORK
        return None if any(rule.allows(target.host, target.port) for rule in self.rules) else NOT_ALLOWED


NOTHING = Policy()


def make_policy(policy: NetworkPolicy, lists: Mapping[str, Sequence[Target]], field: str) -> Policy:
    """The policy of a job, with each ready-made list in it replaced by what that tool uses."""
    rules: list[Reach] = []
    for text in policy.allow:
        rule = parse_rule(text)
        if isinstance(rule, ToolRule):
            rules += [exactly(target) for target in lists.get(rule.tool, ())]
        else:
            rules.append(rule)
    return Policy(policy.mode, tuple(rules), field)


def exactly(target: Target) -> Reach:
    """The rule that allows this host and port and nothing else."""
    rule = parse_rule(str(target))
    assert not isinstance(rule, ToolRule)  # it has a port
    return rule
