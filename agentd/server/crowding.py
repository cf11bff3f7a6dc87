"""What all connections together may hold before they have said anything: how many have not said hello, and the bytes of
frames whose end has not come. Each has a time limit (session.py); here is the limit of their number and their sum.

Whoever comes in is never the one to go: past a limit it is who waits longest without a hello, or who holds most. So a
client that dawdles, or thousands of them, keep nobody else out.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agentd.host.config import ConnectionLimits
from agentd.hub.rates import Lately
from agentd.wire.errors import Busy

if TYPE_CHECKING:
    from agentd.server.session import SocketSession

log = logging.getLogger(__name__)


class Crowding:
    """Half-open connections, oldest first, and what each connection has of an unfinished frame.

    Invariant: `unfinished_bytes` is the sum of `unfinished`, and no 0 is in it.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self.half_open: dict[SocketSession, None] = {}
        self.unfinished: dict[SocketSession, int] = {}
        self.unfinished_bytes = 0
        self.turned_away = 0  # connections that were refused or ended because there were too many, or too much
        self._lately = Lately()

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {
            "half_open": len(self.half_open),
            "unfinished_bytes": self.unfinished_bytes,
            "turned_away": self.turned_away,
        }

    def opened(self, session: SocketSession, now: float) -> None:
        """A connection that has not said hello."""
        self.half_open[session] = None
        if len(self.half_open) > self._limits.max_half_open:
            oldest = next(iter(self.half_open))
            self._end(
                oldest,
                f"{len(self.half_open)} connections have not said hello, {self._limits.max_half_open} may",
                "connections.max_half_open",
                now,
            )

    def greeted(self, session: SocketSession) -> None:
        """It has said hello."""
        self.half_open.pop(session, None)

    def owes(self, session: SocketSession, size_bytes: int, now: float) -> None:
        """It has said so much of a frame whose end is still to come."""
        self.unfinished_bytes += size_bytes - self.unfinished.pop(session, 0)
        if not size_bytes:
            return
        self.unfinished[session] = size_bytes
        if self.unfinished_bytes > self._limits.max_unfinished_bytes:
            largest = max(self.unfinished, key=self.unfinished.__getitem__)
            self._end(
                largest,
                f"Unfinished frames have {self.unfinished_bytes} bytes, {self.unfinished[largest]} of them yours; "
                f"{self._limits.max_unfinished_bytes} may be",
                "connections.max_unfinished_bytes",
                now,
            )

    def gone(self, session: SocketSession) -> None:
        """It is over."""
        self.half_open.pop(session, None)
        self.unfinished_bytes -= self.unfinished.pop(session, 0)

    def count(self, why: str, now: float) -> None:
        """One more was turned away. The log says so once, not a thousand times."""
        self.turned_away += 1
        self._lately.note(now)
        if self._lately.count == 1:
            log.warning("%s: turned away; `agentctl stats` counts how many", why)

    def _end(self, session: SocketSession, why: str, key: str, now: float) -> None:
        self.count(f"{why} ({session.provenance})", now)
        session.close(why, error=Busy(why, f"Try again; {key} bounds them."))
