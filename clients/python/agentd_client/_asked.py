"""What waits for verdicts besides a plain message: a request and a file."""

from __future__ import annotations

from collections.abc import Callable

from agentd.wire import records
from agentd.wire.bodies import Content
from agentd_client.receipt import Submitted


class Question(Submitted, eq=False):
    """A request from ring to ring."""

    reply: tuple[Content, bytes] | None = None


class Sent(Submitted, eq=False):
    """A file from ring to ring."""

    saved: int = -1  # so many bytes; -1: it is not wanted yet
    whole: bool = False  # it lies there under its name
    answered: bool = False  # its receiver has said how it ended
    news: Callable[[], None] | None = None  # called with each change

    def heard(self, code: int, payload: bytes) -> bool:
        """Whether this is what its receiver says on the way."""
        self.answered = code not in (records.SAVING, records.SAVED)
        if self.answered:
            return False
        self.saved = max(self.saved, int.from_bytes(payload[:8], "little"))
        self.whole = self.whole or code == records.SAVED
        if self.news is not None:
            self.news()
        return True
