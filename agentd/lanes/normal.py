"""NORMAL: through the daemon's socket into an inbox in its memory."""

from __future__ import annotations

from agentd.hub.router import Router
from agentd.wire.messages import Priority


class NormalLane:
    """The lane that is always there: the router's own verbs, with no call in between."""

    priority = Priority.NORMAL
    open = True
    reason = "the Unix socket"

    def __init__(self, router: Router) -> None:
        self.send = router.send
        self.request = router.request
        self.reply = router.reply
        self.publish = router.publish
