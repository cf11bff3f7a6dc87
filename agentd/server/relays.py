"""When the daemon looks at what it relayed: at a ring of its bell, which is for verdicts, and by a timer while
something is out that was not yet delivered, for which nobody rings."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentd import _native
from agentd.hub.pairs import Pair
from agentd.hub.session import Session
from agentd.lanes.direct import DirectLane
from agentd.lanes.relay import Relay

if TYPE_CHECKING:
    from agentd.server.server import Server

#: At first after so long, then more seldom.
_FIRST_LOOK_S: Final = 0.001
_LAST_LOOK_S: Final = 0.1
#: How long a receiver whose session is over may take to close its end or to end, and how often that is looked at.
_DOUBT_S: Final = 1.0
_CERTAIN_S: Final = 0.005
#: When memory of large bodies is given back, and how often that is tried where a receiver keeps them.
_TIDY_S: Final = 1.0
_LAST_TIDY_S: Final = 60.0


class Relays:
    """The daemon's own ends of pairs, one for each lane that a session reads."""

    def __init__(self, server: Server, lanes: tuple[DirectLane, ...]) -> None:
        self._server = server
        self._lanes = lanes
        self.bell = -1
        self._processes: dict[Relay, int] = {}
        self._ending: dict[Relay, tuple[asyncio.TimerHandle, str]] = {}
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._pause_s = _FIRST_LOOK_S
        self._grown: set[Relay] = set()  # whose pools take memory
        self._tidying: asyncio.TimerHandle | None = None
        for lane in lanes:
            lane.look_again = self._relayed

    def __iter__(self) -> Iterator[Relay]:
        """Those that are made."""
        return (relay for lane in self._lanes for relay in lane.relays.values() if relay is not None)

    def open(self) -> None:
        """The loop runs."""
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._server.loop.add_reader(self.bell, self._rung)

    def stopping(self) -> None:
        """What is not certain now will never be."""
        self._closing = True
        for relay, (timer, why) in list(self._ending.items()):
            timer.cancel()
            self._end(relay, why, 0.0)

    def close(self) -> None:
        """The daemon ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._tidying is not None:
            self._tidying.cancel()
        self._server.loop.remove_reader(self.bell)
        os.close(self.bell)

    def make(self, pair: Pair, lane: DirectLane, shape: tuple[int, int, int], memory: int, doorbell: int) -> None:
        """The receiver reads the pair: write into it from now on."""
        number, ring_bytes, verdict_bytes = shape
        bell = os.dup(doorbell)
        try:
            channel = _native.Channel(
                memory,
                number,
                pair.number,
                ring_bytes,
                verdict_bytes,
                pair.pool_bytes,
                bell,
                None,
                lambda error, size: relay.refuse(error, size),
            )
        except OSError:
            os.close(bell)
            raise
        receiver: Any = pair.receiver
        process = -1 if receiver.pidfd is None else os.dup(receiver.pidfd)
        relay = Relay(self._server.hub, channel, receiver.name, pair.lane, verdict_bytes, partial(_has_ended, process))
        channel.grown = partial(self._grew, relay)
        self._processes[relay] = process
        lane.relays[receiver] = relay

    def end(self, session: Session, lane: DirectLane, why: str) -> None:
        """The session reads that lane no more."""
        relay = lane.relays.pop(session, None)
        if relay is not None:
            self._end(relay, why, self._server.loop.time() + _DOUBT_S)

    def _end(self, relay: Relay, why: str, until: float) -> None:
        """A session's end comes a moment before its process's: look again, until what it left unread is surely dead."""
        if relay.out and not relay.certain and self._server.loop.time() < until and not self._closing:
            timer = self._server.loop.call_later(_CERTAIN_S, self._end, relay, why, until)
            self._ending[relay] = timer, why
            return
        self._ending.pop(relay, None)
        relay.end(self._server.now(), why)
        if (process := self._processes.pop(relay, -1)) >= 0:
            os.close(process)
        self._server.flush(self._server.now())

    def _grew(self, relay: Relay) -> None:
        self._grown.add(relay)
        if self._tidying is not None:
            self._tidying.cancel()
        self._tidying = self._server.loop.call_later(_TIDY_S, self._tidy, 2 * _TIDY_S)

    def _tidy(self, pause_s: float) -> None:
        self._tidying = None
        self._grown = {relay for relay in self._grown if not relay.tidy()}
        if self._grown:
            self._tidying = self._server.loop.call_later(pause_s, self._tidy, min(2 * pause_s, _LAST_TIDY_S))

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
        busy = [relay for relay in self if relay.out]
        undelivered = [relay for relay in busy if relay.look(now)]
        if undelivered:
            self._look_again()
        self._server.flush(now)


def _has_ended(pidfd: int) -> bool:
    """Whether that process has; False where none is known."""
    if pidfd < 0:
        return False
    watched = select.poll()
    watched.register(pidfd, select.POLLIN)
    return bool(watched.poll(0))
