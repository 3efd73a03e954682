"""What the guest may reach through its worker. So far that is its model and nothing else (``model_route``)."""

from worker.gateway.budget import check_budget
from worker.gateway.dialects import speaking
from worker.gateway.limits import GatewayLimits
from worker.gateway.model_route import ModelGateway
from worker.gateway.prices import Price, price_of
from worker.gateway.providers import PRESETS, select_provider
from worker.gateway.quota import QuotaSeen
from worker.gateway.usage import RouteUsage

__all__ = [
    "PRESETS",
    "GatewayLimits",
    "ModelGateway",
    "Price",
    "QuotaSeen",
    "RouteUsage",
    "check_budget",
    "price_of",
    "select_provider",
    "speaking",
]
