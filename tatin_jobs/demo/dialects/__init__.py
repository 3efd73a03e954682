"""The three APIs that the scripted model server speaks, by the path at which each is asked. One file per API."""

from __future__ import annotations

from collections.abc import Mapping

from tatin_jobs.demo.dialects.asked import Asked, Dialect
from tatin_jobs.demo.dialects.chat import Chat
from tatin_jobs.demo.dialects.messages import Messages
from tatin_jobs.demo.dialects.responses import Responses

__all__ = ["DIALECTS", "Asked", "Dialect"]

DIALECTS: Mapping[str, Dialect] = {dialect.path: dialect for dialect in (Chat(), Responses(), Messages())}
"""Path -> dialect."""
