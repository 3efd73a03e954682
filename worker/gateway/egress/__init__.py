"""The egress gateway: what a guest reaches beside its model, by name and port, with evidence of all of it."""

from worker.gateway.egress.denial import Denial
from worker.gateway.egress.evidence import Destination, Evidence
from worker.gateway.egress.gateway import EgressGateway
from worker.gateway.egress.limits import EgressLimits
from worker.gateway.egress.policy import NOTHING, Policy, make_policy
from worker.gateway.egress.target import Target, parse_target

__all__ = [
    "NOTHING",
    "Denial",
    "Destination",
    "EgressGateway",
    "EgressLimits",
    "Evidence",
    "Policy",
    "Target",
    "make_policy",
    "parse_target",
]
