"""LOW: into the journal, and from there into the inbox. Slower than NORMAL by what the disk takes, and never lost."""

from __future__ import annotations

from collections.abc import Callable

from agentd.hub.router import Router
from agentd.wire.messages import Priority


class LowLane:
    """The router's own verbs: what makes them keep a message is its priority."""

    priority = Priority.LOW

    def __init__(self, router: Router, trouble: Callable[[], str], level: str) -> None:
        self._trouble = trouble
        self._level = level
        self.send = router.send
        self.request = router.request
        self.reply = router.reply
        self.publish = router.publish

    @property
    def open(self) -> bool:
        """Not once the disk has failed."""
        return not self._trouble()

    @property
    def reason(self) -> str:
        """What a message is when it is called stored; or why none can be."""
        return self._trouble() or f"the journal, {self._level}"
