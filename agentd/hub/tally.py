"""What was counted: of a lane, or of one agent. Only ever added to, by the file that knows that it happened."""

from __future__ import annotations

from agentd.hub.histogram import Histogram


class Tally:
    """Totals since start.

    sent and bytes are of messages that were accepted: of an agent, those that it sent. delivered, acked, dead, expired
    and the latency (acceptance to delivery, as the receiving library said it) are of its mail; refused of its calls.
    """

    __slots__ = ("acked", "bytes", "dead", "delivered", "expired", "latency", "refused", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.bytes = 0
        self.delivered = 0
        self.acked = 0
        self.dead = 0
        self.expired = 0
        self.refused = 0
        self.latency: Histogram | None = None  # from the first delivery on

    def took(self, latency_ns: int, count: int = 1) -> None:
        """So many were delivered after so long."""
        if self.latency is None:
            self.latency = Histogram()
        self.latency.record(latency_ns, count)
