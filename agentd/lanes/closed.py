"""A lane that can't carry anything here, and says why. Nothing asked of it is ever sent another way."""

from __future__ import annotations

from typing import NoReturn

from agentd.hub.session import Session
from agentd.wire import choice
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Priority, Publish, Reply, Request, Send


class ClosedLane:
    """Refuses by name."""

    open = False

    def __init__(self, priority: Priority, reason: str) -> None:
        self.priority = priority
        self.reason = reason
        self.send = self.request = self.reply = self.publish = self._refuse

    def _refuse(self, session: Session, verb: Send | Request | Reply | Publish, now: float) -> NoReturn:
        raise refusal(self.priority, self.reason)


def refusal(priority: Priority, reason: str) -> AgentdError:
    """What everything that is asked of a closed lane is answered."""
    return choice.refusal("closed", lane=priority.value, why=reason)
