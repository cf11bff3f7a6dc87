"""What the daemon measures of itself, and where others see it: asked over the socket, or in shared memory while it is
busy. After a turn a snapshot is due a little later; an idle daemon writes none."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from agentd.host.counters import Counters
from agentd.host.process import usage
from agentd.hub import views
from agentd.hub.histogram import Histogram
from agentd.lanes.direct import DirectLane
from agentd.server.spare_memory import SpareMemory
from agentd.wire.messages import LaneView, Priority, StatsView
from agentd.wire.snapshots import encode_snapshot

if TYPE_CHECKING:
    from agentd.server.server import Server

_EVERY_S: Final = 0.1
#: A snapshot of many agents takes a while: this much of the time may go into them, no more.
_SHARE: Final = 0.05
#: The lane whose messages the hub's registries hold.
_NORMAL: Final = Priority.NORMAL


class Measures:
    """The daemon's own figures."""

    def __init__(self, server: Server, counters: Counters | None) -> None:
        self._server = server
        self._hub = server.hub
        self._counters = counters  # None: nobody else is to see them
        self._started = server.clock()
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self.spare_memory: SpareMemory | None = None  # where the process is the daemon's own
        self.own_time = Histogram()  # a verb's share of its turn: from its read to what it brought about handed on

    def turn_took(self, began: float, verbs: int) -> None:
        """A turn of so many verbs is over, all it brought about handed to the kernel."""
        if verbs > 0:
            self.own_time.record(int((self._server.clock() - began) * 1e9 / verbs), verbs)

    @property
    def up_s(self) -> float:
        """Since the start."""
        return self._server.clock() - self._started

    def lane_views(self) -> list[LaneView]:
        """Every lane: state, aim, and what was measured."""
        found = self._server.lanes.views()
        for lane in found:
            lane.aim_s, lane.aim_of = self._aim(lane.lane)
            if lane.lane is _NORMAL:
                lane.own_time = views.latency(self.own_time)
                lane.latency = views.latency(self._hub.receipts.counts.latency)
            carrier = self._server.lanes.by_priority[lane.lane]
            if isinstance(carrier, DirectLane):
                lane.latency = views.latency(carrier.latency)
                lane.operations = carrier.operations
        return found

    def _aim(self, lane: Priority) -> tuple[float | None, str]:
        aims = self._server.config.aims
        aim_us = {
            Priority.CRITICAL: (aims.critical_us, "latency"),
            Priority.HIGH: (aims.high_us, "latency"),
            Priority.NORMAL: (aims.normal_us, "own_time"),
            Priority.LOW: (aims.low_us, "own_time"),
        }.get(lane)
        return (None, "") if aim_us is None else (aim_us[0] / 1e6, aim_us[1])

    def stats(self, cid: int, now: float, *, agents: bool) -> StatsView:
        """Counters since start, gauges now."""
        hub = self._hub
        counts = hub.receipts.counts
        waiting, held, _ = views.totals(hub)
        used = usage()
        view = StatsView(
            cid,
            self.up_s,
            counts.accepted,
            counts.delivered,
            counts.acked,
            counts.expired,
            counts.dead,
            counts.refused,
            counts.published,
            counts.events,
            counts.missed,
            counts.accepted_bytes,
            waiting,
            held,
            len(hub.receipts.entries),
            len(self._server.sessions),
            used.rss_bytes,
            used.cpu_s,
            used.fds,
            hub.rates.limited,
            self._server.crowding.turned_away,
            pid=os.getpid(),
        )
        view.lanes = [views.lane_flow(hub, now, _NORMAL.value)]
        view.registries = {
            **hub.statistics(),
            "server": self._server.statistics(),
            "crowding": self._server.crowding.statistics(),
        }
        if self._server.alertness is not None:
            view.registries["alertness"] = self._server.alertness.statistics()
        if self._server.direct is not None:
            view.registries["direct"] = self._server.direct.statistics()
        if agents:
            view.agents = views.flows(hub, now, self._server.config.stats.max_agents)
        return view

    def changed(self, now: float) -> None:
        """A turn is over: a snapshot is due, soon enough to be current and late enough to have other turns in it."""
        if self._timer is None and self._counters is not None:
            self._timer = self._server.loop.call_later(max(self._next_at - now, _EVERY_S), self._write)

    def _write(self) -> None:
        assert self._counters is not None
        self._timer = None
        began = self._server.now()
        found = self.stats(0, began, agents=True)
        self._counters.write(encode_snapshot(found))
        if self.spare_memory is not None:
            self.spare_memory.look(found.rss_bytes, self._server.loop)
        ended = self._server.clock()
        self._next_at = ended + max(_EVERY_S, (ended - began) / _SHARE)

    def close(self) -> None:
        """The daemon ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self.spare_memory is not None:
            self.spare_memory.close()
        if self._counters is not None:
            self._counters.close()
