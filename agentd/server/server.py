"""The server: the sessions, the one timer that the hub's deadlines sleep on, and the orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from agentd.host import clock
from agentd.host.arguments import VERSION
from agentd.host.config import Config
from agentd.host.counters import Counters
from agentd.hub import views
from agentd.hub.hub import Hub
from agentd.lanes.choice import Lanes
from agentd.server.alertness import Alertness
from agentd.server.crowding import Crowding
from agentd.server.direct import Direct
from agentd.server.journal import Journal
from agentd.server.listener import BACKLOG
from agentd.server.measures import Measures
from agentd.server.reaper import Reaper
from agentd.server.served import ServedSession
from agentd.server.session import SocketSession
from agentd.server.supervision import Supervision
from agentd.wire.messages import StatusView

log = logging.getLogger(__name__)

#: A read: a whole chunk fits, and what it has to decode holds nobody up.
_READ_BYTES = 66 * 1024
#: Connections over the limit that may wait to be told so; more are closed without a word.
_MAX_TURNED_AWAY = 8
#: Shortest sleep for a deadline: the loop's clock counts whole milliseconds.
_TICK_S = 0.001
#: How long the wall clock is taken to keep its distance from the boot clock.
_OFFSET_S = 1.0
#: How long a client has to read the daemon's last words.
_LAST_WORDS_S = 1.0


class Server:
    """Everything between the sockets and the hub. All of it runs in one loop, without a lock."""

    def __init__(
        self,
        config: Config,
        hub: Hub,
        lanes: Lanes,
        journal: Journal,
        socket_path: Path,
        max_connections: int,
        counters: Counters | None = None,
    ) -> None:
        self.config = config
        self.hub = hub
        self.lanes = lanes
        self.uid = os.getuid()
        self.boot = secrets.token_hex(8)
        self.clock: Callable[[], float] = clock.boottime
        self.sessions: set[ServedSession] = set()
        self.dirty: list[ServedSession] = []  # sessions with something to send at the end of this turn
        self.read_buffer = bytearray(_READ_BYTES)
        self.read_view = memoryview(self.read_buffer)
        self.open_turns = 0  # sessions whose turn goes on after the others have had a slice of theirs
        self.crowding = Crowding(config.connections)
        self.closing: set[SocketSession] = set()  # over, their sockets not yet
        self.loop: asyncio.AbstractEventLoop
        self.reaper: Reaper
        self.supervision: Supervision | None = None  # under a service manager only
        self.alertness: Alertness | None = None  # where the process is the daemon's own
        self.measures = Measures(self, counters)
        self.direct: Direct | None = None  # where there is shared memory between agents
        self._journal = journal
        self._socket_path = socket_path
        self._max_connections = max_connections
        self._turned_away: set[ServedSession] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._quiet: asyncio.Event
        self._closed: asyncio.Event
        self._offset_due = 0.0

    async def serve(self, sock: socket.socket, stop: asyncio.Event) -> None:
        """Serve until `stop`, then drain."""
        self.loop = asyncio.get_running_loop()
        self.reaper = Reaper(self.loop)
        self._quiet = asyncio.Event()
        self._closed = asyncio.Event()
        listener = await self.loop.create_unix_server(lambda: SocketSession(self), sock=sock, backlog=BACKLOG)
        self._arm()
        self._journal.serve(self.loop, self.now, self.flush)
        if self.direct is not None:
            self.direct.open()
        if self.supervision is not None:
            self.supervision.ready(self.loop)
        await stop.wait()
        if self.supervision is not None:
            self.supervision.stopping()
        await self._drain()
        listener.close()
        for session in self.sessions:
            session.take_no_more()  # what one of them leaves behind is for the next start, not for those that go next
        if self.direct is not None:
            self.direct.close()  # first: a session's end is that of its pairs
        for session in [*self.sessions, *self._turned_away]:
            session.say_goodbye("agentd is stopping")
        await self._wait_closed()
        if self._timer is not None:
            self._timer.cancel()
        if self.supervision is not None:
            self.supervision.close()
        self.measures.close()

    # Sessions.

    def admit(self, session: SocketSession) -> bool:
        """Whether there is room for one more. If not, it is told so as soon as it says which face it speaks."""
        now = self.now()
        if len(self.sessions) < self._max_connections:
            self.sessions.add(session)
            self.crowding.opened(session, now)
            return True
        self.crowding.count(f"{len(self.sessions)} connections, the most there may be", now)
        if len(self._turned_away) < _MAX_TURNED_AWAY:
            self._turned_away.add(session)
        else:
            session.close("too many connections")
        return False

    def session_gone(self, session: ServedSession, why: str) -> None:
        """A session ended."""
        self.sessions.discard(session)
        self._turned_away.discard(session)
        if self.direct is not None:
            self.direct.session_gone(session, why)
        now = self.now()
        self.hub.leave(session, now, why)
        self.flush(now)

    def socket_closed(self, session: SocketSession) -> None:
        """The last of a session."""
        self.closing.discard(session)
        if not self.closing:
            self._closed.set()

    async def _wait_closed(self) -> None:
        """Until the last words are out, or their readers are too slow."""
        self._closed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S if self.closing else 0):
                await self._closed.wait()

    # The end of a turn, and time.

    def now(self) -> float:
        """The time of this turn. Follows the wall clock, which may be set."""
        now = self.clock()
        if now >= self._offset_due:
            self._offset_due = now + _OFFSET_S
            self.hub.receipts.wall_offset = clock.wall_offset()
        return now

    def flush(self, now: float, others: int = 0) -> None:
        """Send what this turn brought about, and set the timer by what it left to do. The first `others` of those with
        something to send belong to a turn that is not over."""
        self._journal.end_turn(now)
        dirty = self.dirty
        while len(dirty) > others:
            dirty.pop().send_pending()
        due = self.hub.deadlines.next()
        if due is not None and due < self._timer_at:
            self._arm()
        if self.hub.router.draining and not self._busy():
            self._quiet.set()
        if self.supervision is not None:
            self.supervision.something_happened()
        self.measures.changed(now)
        if self.alertness is not None:
            self.alertness.something_happened(self.loop, now)

    def _arm(self) -> None:
        due = self.hub.deadlines.next()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = float("inf")
        if due is not None:
            self._timer_at = due
            self._timer = self.loop.call_later(max(due - self.clock(), 0.0) + _TICK_S, self._run_deadlines)

    def _run_deadlines(self) -> None:
        now = self.now()
        self._timer = None
        self._timer_at = float("inf")
        try:
            self.hub.deadlines.run(now)
        except Exception:
            log.exception("a defect in what was due")
        self._arm()
        self.flush(now)

    # Stopping.

    async def _drain(self) -> None:
        """Take no new work; give what is out time to be finished."""
        self.hub.router.draining = True
        log.info("stopping: new work is refused, up to %g s for what is out", self.config.shutdown.drain_s)
        self.flush(self.now())
        try:
            async with asyncio.timeout(self.config.shutdown.drain_s):
                await self._quiet.wait()
        except TimeoutError:
            log.info("still out after %g s: kept for the next start", self.config.shutdown.drain_s)

    def _busy(self) -> bool:
        """Whether something is in somebody's hands, or on its way there."""
        return any(
            session.held  # also of one that takes no mail: an answer
            or session.asking
            or session.unsent
            or any(taker.held or (taker.credit and taker.agent.waiting) for taker in session.all_takers())
            for session in self.sessions
            if session.joined
        )

    def keep(self) -> None:
        """Write what outlives this run. After `serve`, however that ended."""
        now = self.now()
        for session in list(self.hub.sessions):
            self.hub.leave(session, now, "agentd is stopping")
        self._journal.close(self.hub, now)

    # What it says of itself.

    def status(self, cid: int, now: float) -> StatusView:
        """The daemon in brief."""
        waiting, held, dead = views.totals(self.hub)
        agents = self.hub.agents.by_name.values()
        return StatusView(
            cid,
            VERSION,
            os.getpid(),
            self.boot,
            self.measures.up_s,
            str(self._socket_path),
            self._journal.persistence,
            self.hub.agents.named,
            sum(agent.live for agent in agents),
            len(self.sessions),
            waiting,
            held,
            dead,
            self.hub.router.draining,
            self.measures.lane_views(),
            self._journal.disk_view(),
        )

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"sessions": len(self.sessions), "closing": len(self.closing), "turned_away": len(self._turned_away)}

    def summary(self) -> str:
        """The daemon in a line, trouble first, as the service manager shows it."""
        waiting, held, dead = views.totals(self.hub)
        live = sum(agent.live for agent in self.hub.agents.by_name.values())
        parts = [f"{dead} dead letters"] * bool(dead) + [f"{live} agents", f"{waiting} waiting", f"{held} held"]
        return ", ".join(parts)
