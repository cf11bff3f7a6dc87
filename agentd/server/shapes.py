"""What a pair's memory looks like on each direct lane, and making it."""

from __future__ import annotations

import logging
import os
from typing import Final

from agentd import _native
from agentd.host.config import Config
from agentd.host.machine import why_no_io_uring_here
from agentd.hub.pairs import Pair, Pairs
from agentd.wire import grants
from agentd.wire.errors import LimitReached
from agentd.wire.messages import Priority

log = logging.getLogger(__name__)

#: A pair's pages beside its two rings.
_PAGES_BYTES: Final = 3 * 4096


class Shapes:
    """As the configuration has them."""

    def __init__(self, config: Config, pairs: Pairs) -> None:
        self._limits = config.direct
        self._high = config.high
        self._pairs = pairs
        self._ring_bytes = {Priority.CRITICAL: self._limits.critical_bytes, Priority.HIGH: self._high.ring_bytes}
        self._huge_pages = self._limits.huge_pages

    def sizes(self, lane: Priority, *, relays: bool = False) -> tuple[int, int]:
        """What a pair takes at once, and what its pool may take as it is needed: none once all have what they may."""
        pool_bytes = self._high.pool_bytes if lane is Priority.HIGH else 0
        if self._pairs.pool_bytes + pool_bytes > self._high.max_pool_bytes:
            pool_bytes = 0
        return self._size(self._ring(lane, relays), self._limits.verdict_bytes), pool_bytes

    def presented(self, packet: grants.Present) -> tuple[int, int]:
        """The same for one that was made before agentd came back."""
        return self._size(packet.ring_bytes, packet.verdict_bytes), packet.pool_bytes

    def _size(self, ring_bytes: int, verdict_bytes: int) -> int:
        return _PAGES_BYTES + ring_bytes + verdict_bytes

    def of(self, pair: Pair) -> tuple[int, int, int]:
        """As both ends are told: lane, ring, verdict ring. The pool is the pair's own."""
        return grants.LANES[pair.lane], self._ring(pair.lane, pair.sender is None), self._limits.verdict_bytes

    def _ring(self, lane: Priority, relays: bool) -> int:
        """What agentd writes itself is little: a small ring will do, with the pool for what is large."""
        return self._limits.critical_bytes if relays else self._ring_bytes[lane]

    def create(self, pair: Pair) -> int:
        """Its memory. LimitReached, and it is no pair, where there is none."""
        lane, ring_bytes, verdict_bytes = self.of(pair)
        shape = (lane, pair.number, ring_bytes, verdict_bytes, pair.pool_bytes)
        if self._huge_pages and pair.lane is Priority.CRITICAL:
            try:
                return _native.create_pair(*shape, True)
            except OSError as error:
                self._huge_pages = False
                log.warning("direct.huge_pages: %s; usual pages are used from now on", error.strerror)
        try:
            return _native.create_pair(*shape, False)
        except OSError as error:
            self._pairs.close(pair.number)
            raise LimitReached(
                f"No memory for a pair of {pair.size_bytes} bytes: {error.strerror}",
                f"{self._setting(pair.lane)} and direct.max_pairs say how much there may be; messages are relayed.",
            ) from None

    def _setting(self, lane: Priority) -> str:
        return "direct.critical_bytes" if lane is Priority.CRITICAL else "high.ring_bytes"


def how_submitted(io_uring: bool) -> str:
    """How senders of the high lane submit: what the lane's reason says of it."""
    why = why_no_io_uring_here() if io_uring else "high.io_uring is false"
    return f"without io_uring: {why}" if why else "and io_uring"


def no_shared_memory(enabled: bool) -> str:
    """Why there is none between agents; empty where there is: tried, not looked up."""
    if not enabled:
        return "direct.enabled is false"
    try:
        os.close(_native.create_pair(1, 0, 4096, 4096, 0, False))
    except OSError as error:
        return f"no sealed memory can be made: {error.strerror}"
    return ""
