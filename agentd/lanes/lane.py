"""What a lane is: a way for messages of one priority, open or closed for a reason."""

from __future__ import annotations

from typing import Protocol

from agentd.hub.session import Session
from agentd.wire.messages import Priority, Publish, Reply, Request, Send

Carried = Send | Request | Reply | Publish


class Lane(Protocol):
    """All five satisfy this."""

    priority: Priority
    #: Whether messages can go this way here and now.
    open: bool
    #: How it carries them, or why it can't.
    reason: str

    def carry(self, session: Session, verb: Carried, now: float) -> None:
        """Take a message on, or raise a named refusal and have done nothing."""
        ...
