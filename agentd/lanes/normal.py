"""NORMAL: through the daemon's socket into an inbox in its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentd.hub.router import Router
from agentd.hub.session import Session
from agentd.lanes.lane import Carried
from agentd.wire.messages import Priority, Publish, Reply, Request, Send


class NormalLane:
    """The lane that is always there."""

    priority = Priority.NORMAL
    open = True
    reason = "the Unix socket"

    def __init__(self, router: Router) -> None:
        self._carriers: dict[type, Callable[[Session, Any, float], None]] = {
            Send: router.send,
            Request: router.request,
            Reply: router.reply,
            Publish: router.publish,
        }

    def carry(self, session: Session, verb: Carried, now: float) -> None:
        """Accept it into an inbox."""
        self._carriers[type(verb)](session, verb, now)
