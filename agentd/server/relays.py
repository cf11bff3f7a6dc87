"""When the daemon looks at what it relayed: at a ring of its bell, which is for verdicts, and by a timer while
something is out that was not yet delivered, for which nobody rings."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from agentd import _native
from agentd.hub.pairs import Pair
from agentd.lanes.critical import CriticalLane
from agentd.lanes.relay import Relay
from agentd.wire import grants

if TYPE_CHECKING:
    from agentd.server.server import Server

#: At first after so long, then more seldom.
_FIRST_LOOK_S: Final = 0.001
_LAST_LOOK_S: Final = 0.1


class Relays:
    """The daemon's own ends of pairs, one for each session that reads a ring."""

    def __init__(self, server: Server, lane: CriticalLane) -> None:
        self._server = server
        self._lane = lane
        self.bell = -1
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = _FIRST_LOOK_S
        lane.look_again = self._relayed

    def open(self) -> None:
        """The loop runs."""
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._server.loop.add_reader(self.bell, self._rung)

    def close(self) -> None:
        """The daemon ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._server.loop.remove_reader(self.bell)
        os.close(self.bell)

    def make(self, pair: Pair, memory: int, doorbell: int) -> None:
        """The receiver reads the pair: write into it from now on."""
        limits = self._server.config.direct
        bell = os.dup(doorbell)
        try:
            channel = _native.Channel(
                memory,
                grants.CRITICAL,
                pair.number,
                limits.critical_bytes,
                limits.verdict_bytes,
                bell,
                None,
                lambda error, size: relay.refuse(error, size),
            )
        except OSError:
            os.close(bell)
            raise
        relay = Relay(self._server.hub, channel, pair.receiver.name, limits.verdict_bytes)
        self._lane.relays[pair.receiver] = relay

    def end(self, pair_of: object, why: str) -> None:
        """The session reads nothing any more."""
        relay = self._lane.relays.pop(pair_of, None)  # type: ignore[call-overload]
        if relay is not None:
            relay.end(self._server.now(), why)

    def _relayed(self) -> None:
        self._pause_s = _FIRST_LOOK_S
        self._look_again()

    def _rung(self) -> None:
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            return
        self._look()

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = self._server.loop.call_later(self._pause_s, self._due)
            self._pause_s = min(2 * self._pause_s, _LAST_LOOK_S)

    def _due(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        now = self._server.now()
        busy = [relay for relay in self._lane.relays.values() if relay is not None and relay.out]
        undelivered = [relay for relay in busy if relay.look(now)]
        if undelivered:
            self._look_again()
        self._server.flush(now)
