"""Which API an attempt speaks: the best that both its agent tool and its model server know. Nothing is translated."""

from __future__ import annotations

from collections.abc import Sequence

from tatin_jobs.errors import AttemptError
from tatin_jobs.settings import ModelProvider
from tatin_jobs.states import Reason
from worker.agents.base import Api
from worker.gateway.providers import PRESETS

TITLES = {"openai": "OpenAI's API (Chat Completions)", "anthropic": "Anthropic's API (Messages)"}


def speaking(name: str, provider: ModelProvider, tool: str, apis: Sequence[Api]) -> tuple[Api, ModelProvider]:
    """The one API that ``tool`` is to speak with ``provider``, and the provider with that as its own. ``apis``: those
    that the tool knows, the best first.

    Raises:
        AttemptError: reason refused; they have none in common.
    """
    known = provider.api
    if "api" not in provider.model_fields_set and name in PRESETS:
        known = PRESETS[name].api
    for api in apis:
        if known in (api, "both"):
            return api, provider.model_copy(update={"api": api})
    raise AttemptError(
        f"`tool: {tool}` speaks only {TITLES[apis[0]]}, and model provider '{name}' does not: use `tool: opencode` or"
        " `tool: pi` with it.",
        seen=f'[models.{name}] api = "{known}"',
        try_=f'if that server has Anthropic\'s `/v1/messages` too, write api = "both" into [models.{name}] of the'
        " worker's tatin.toml.",
        reason=Reason.REFUSED,
    )
