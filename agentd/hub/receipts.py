"""Where every message stands: the only place that changes a message's state.

    accepted -> stored -> delivered -> acked | expired | dead
                                    -> unknown, on a direct lane only: its receiver is gone and was not asked in time

Rule 1: a state changes here or not at all, and each change leaves a transition with its time and its who.
Rule 2: an end state is left only by requeueing a dead letter.
A delivered message that comes back (nack, receiver gone) is `accepted` again. Ended messages are remembered for a
while without their bodies, so that `trace` can say what became of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from agentd.host.config import TraceLimits
from agentd.hub.deadlines import Deadline, Deadlines
from agentd.hub.histogram import Histogram
from agentd.hub.stored import Stored
from agentd.hub.tally import Tally
from agentd.wire import messages as wire
from agentd.wire.errors import NoSuchMessage
from agentd.wire.messages import Message, Priority, Receipt, Route, State, TraceView, Transition
from agentd.wire.names import id_prefix, id_text

if TYPE_CHECKING:
    from agentd.hub.agents import Agent
    from agentd.hub.session import Session

# Members bound once: reaching them through the class costs 170 ns each in CPython 3.11.
ACCEPTED: Final = State.ACCEPTED
STORED: Final = State.STORED
DELIVERED: Final = State.DELIVERED
ACKED: Final = State.ACKED
EXPIRED: Final = State.EXPIRED
DEAD: Final = State.DEAD
UNKNOWN: Final = State.UNKNOWN
ENDED: Final = (ACKED, EXPIRED, DEAD, UNKNOWN)

#: Every transition there is; the state-machine tests hold all trails against it.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    ACCEPTED: frozenset({STORED, DELIVERED, ACKED, EXPIRED, DEAD}),
    STORED: frozenset({DELIVERED, ACKED, EXPIRED, DEAD}),
    DELIVERED: frozenset({ACCEPTED, STORED, ACKED, EXPIRED, DEAD, UNKNOWN}),
    ACKED: frozenset(),
    UNKNOWN: frozenset(),
    EXPIRED: frozenset(),
    DEAD: frozenset({ACCEPTED, STORED}),
}

_MAX_TRAIL: Final = 64

#: What a message costs beside its body, for quotas: the objects that stand for it.
OVERHEAD_BYTES: Final = 512


#: What a message went through: which state, when, who, why. Never changed in place, so that those of one run share it.
Trail = tuple[tuple[State, float, str, str], ...]


class Entry(Struct, gc=False, eq=False):
    """A message and where it stands. `gc=False`: entries are let go by name, never by a cycle collector's search."""

    message: Message
    agent: Agent  # in whose inbox it is or was; for an event, who published it
    size_bytes: int  # what it is charged with: its body and OVERHEAD_BYTES
    state: State
    trail: Trail
    holder: Session | None = None  # the session it was sent to
    watchers: list[tuple[Session, int, State]] | None = None  # who waits for which state, and for which call
    expiry: Deadline | None = None
    timer: Deadline | None = None  # end of a hold, or of a nack's delay
    asker: tuple[Session, int] | None = None  # a request that still waits: session and call
    asking_until: Deadline | None = None
    position: int = 0  # of its record in the journal; 0: it has none
    is_stored: bool = False  # the journal has it for good
    outstanding: int = 0  # an event: subscriptions that have yet to take it
    due: float = 0.0  # nobody was to be given it before; 0: its sender named no time

    @property
    def topic(self) -> str | None:
        """The topic it was published on; None for a message to an agent."""
        details = self.message.details
        return None if details is None else details.topic

    @property
    def to(self) -> str:
        """The agent it is addressed to, or the topic it was published on."""
        return (self.topic if self.is_event else None) or self.agent.name

    @property
    def is_event(self) -> bool:
        """An event on its way to who subscribes now. A copy of one in a durable subscription's inbox is mail."""
        return self.topic is not None and self.agent.source is None

    @property
    def began(self) -> float:
        """When it might be taken first."""
        return self.due or self.trail[0][1]

    @property
    def body_bytes(self) -> int:
        """The size of its body, also after that is gone."""
        return self.size_bytes - OVERHEAD_BYTES


#: Hears of every state that a message reaches: which, the message, when, by whom, why.
Tap = Callable[[State, Entry, float, str, str], None]


class Counts:
    """Totals since start."""

    __slots__ = (
        "accepted",
        "accepted_bytes",
        "acked",
        "dead",
        "delivered",
        "events",
        "expired",
        "latency",
        "missed",
        "published",
        "refused",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.accepted_bytes = 0
        self.delivered = 0
        self.acked = 0
        self.expired = 0
        self.dead = 0
        self.refused = 0
        self.published = 0
        self.events = 0
        self.missed = 0
        self.latency = Histogram()  # from acceptance to delivery, of messages to agents

    def took(self, tally: Tally, latency_s: float, count: int = 1) -> None:
        """So many messages to this agent were delivered after so long."""
        latency_ns = int(latency_s * 1e9)
        self.latency.record(latency_ns, count)
        tally.took(latency_ns, count)


class Retention:
    """Ended messages of one agent, oldest first, kept for `trace`."""

    __slots__ = ("armed", "entries")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.armed = False


class Receipts:
    """The registry of all messages that have not been forgotten."""

    def __init__(self, limits: TraceLimits, deadlines: Deadlines, first_id: int) -> None:
        self._limits = limits
        self._deadlines = deadlines
        self._max_kept = limits.max_messages
        self.next_id = first_id
        self.entries: dict[int, Entry] = {}
        self.counts = Counts()
        self.unnamed = Retention()  # for what agents without a name sent
        self.tap: Tap | None = None  # while somebody listens to the daemon's facts
        self.journal = Stored(self)
        self.wall_offset = 0.0  # the server keeps it right; seconds since 1970 = now + wall_offset

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"messages": len(self.entries), "tapped": int(self.tap is not None)}

    def stored(self, entries: list[Entry], now: float) -> None:
        """The journal has them. One that has been delivered meanwhile, or has ended, is told of as that."""
        transition = (STORED, now, "agentd", "")
        tap = self.tap
        before: Trail = ()
        after: Trail = ()
        for entry in entries:
            entry.is_stored = True
            if entry.state is ACCEPTED:
                entry.state = STORED
                if entry.trail is not before:
                    before = entry.trail
                    after = (*before, transition)
                entry.trail = after
                if tap is not None:
                    tap(STORED, entry, now, "agentd", "")

    def delivered(self, entry: Entry, now: float, who: str, note: str = "") -> None:
        """The receiving library took it for its application."""
        entry.state = DELIVERED
        entry.trail = (*entry.trail, (DELIVERED, now, who, note))
        self.counts.delivered += 1
        tally = entry.agent.tally
        tally.delivered += 1
        if entry.message.attempt == 1 and entry.message.lane is Priority.NORMAL:
            self.counts.took(tally, now - entry.began)
        if entry.watchers is not None:
            self._tell(entry, now, "")
        if self.tap is not None:
            self.tap(DELIVERED, entry, now, who, note)

    def back(self, entry: Entry, now: float, who: str, note: str) -> None:
        """It is to be delivered (again): given back, nacked, its receiver gone, or requeued."""
        entry.state = STORED if entry.is_stored else ACCEPTED
        trail = (*entry.trail, (entry.state, now, who, note))
        if len(trail) > _MAX_TRAIL:  # given back without end: the beginning and the latest tell the story
            latest = trail[_MAX_TRAIL // 2 :]
            trail = trail[:1] + (latest[1:] if latest[0][0] is ACCEPTED else latest)  # as is the first
        entry.trail = trail

    def end(self, entry: Entry, state: State, now: float, who: str, note: str = "") -> None:
        """Acked, expired, dead or unknown. A dead letter keeps its body."""
        assert entry.state not in ENDED, f"{entry.message.id} was {entry.state} already"
        entry.state = state
        entry.trail = (*entry.trail, (state, now, who, note))
        if entry.expiry is not None:
            entry.expiry.cancel()
            entry.expiry = None
        if entry.watchers is not None:
            self._tell(entry, now, note)
        if self.tap is not None:
            self.tap(state, entry, now, who, note)
        if state is ACKED:
            self.journal.acked([entry], now)
        elif state is not DEAD:
            self.journal.ended(entry)
        if state is not DEAD:
            entry.message.body = b""
        tally = entry.agent.tally
        if state is ACKED:
            self.counts.acked += 1
            tally.acked += 1
        elif state is EXPIRED:
            self.counts.expired += 1
            tally.expired += not entry.is_event  # an event's agent is its publisher
        elif state is DEAD:
            self.counts.dead += 1
            tally.dead += 1
            return  # kept as a dead letter; `retain` comes when it is dropped
        self.retain(entry.agent.ended, [entry], now)

    def lose(self, entry: Entry, now: float, who: str, note: str) -> None:
        """It was delivered, and nobody can know any more whether it was done."""
        self.end(entry, UNKNOWN, now, who, note)

    def retain(self, retention: Retention, ended: list[Entry], now: float) -> None:
        """Remember ended messages for a while."""
        kept = retention.entries
        kept.extend(ended)
        entries = self.entries
        for _ in range(len(kept) - self._max_kept):
            del entries[kept.popleft().message.id]
        if not retention.armed:
            retention.armed = True
            self._deadlines.add(now + self._limits.keep_s, lambda now: self._sweep(retention, now))

    def restore(self, retention: Retention, ended: list[Entry], now: float) -> None:
        """Remember messages that ended before this process began, oldest first: for what is left of their time."""
        for entry in ended[-self._max_kept :]:
            self.entries[entry.message.id] = entry
            retention.entries.append(entry)
        self._sweep(retention, now)

    def _sweep(self, retention: Retention, now: float) -> None:
        kept = retention.entries
        while kept and kept[0].trail[-1][1] <= now - self._limits.keep_s:
            del self.entries[kept.popleft().message.id]
        retention.armed = bool(kept)
        if kept:
            due = kept[0].trail[-1][1] + self._limits.keep_s
            self._deadlines.add(due, lambda now: self._sweep(retention, now))

    def forget(self, retention: Retention) -> None:
        """Forget a whole agent's ended messages, with the agent."""
        for entry in retention.entries:
            del self.entries[entry.message.id]
        retention.entries.clear()

    def watch(self, entry: Entry, session: Session, cid: int, wanted: State, now: float) -> None:
        """Send `session` a Receipt once the message has reached `wanted` or ended."""
        if entry.watchers is None:
            entry.watchers = []
        entry.watchers.append((session, cid, wanted))
        session.watching[cid] = entry.message.id
        if entry.state is not ACCEPTED:
            self._tell(entry, now, entry.trail[-1][3])

    def session_gone(self, session: Session) -> None:
        """It waits no more. What it waited for may lie here for weeks, and would keep the whole session."""
        for id in session.watching.values():
            entry = self.entries.get(id)
            if entry is not None and entry.watchers is not None:
                entry.watchers = [watcher for watcher in entry.watchers if watcher[0] is not session] or None
        session.watching.clear()

    def _tell(self, entry: Entry, now: float, note: str) -> None:
        state = entry.state
        ended = state in ENDED
        left = []
        for watcher in entry.watchers or ():
            session, cid, wanted = watcher
            if ended or wanted is state:
                session.watching.pop(cid, None)
                lane = entry.message.lane
                at = now + self.wall_offset
                session.push(Receipt(cid, entry.message.id, state, at, lane, route_of(lane), note))
            else:
                left.append(watcher)
        entry.watchers = left or None

    def get(self, id: int) -> Entry:
        """The message of that id, or NoSuchMessage."""
        entry = self.entries.get(id)
        if entry is None and id >> 63:
            raise NoSuchMessage(
                f"Message {id_text(id)} went from ring to ring, past agentd",
                "Its sender's receipt says what became of it.",
            )
        if entry is None:
            raise NoSuchMessage(
                f"No message {id_text(id)} is known",
                "Ended messages are forgotten after a while; `agentctl inbox` and `agentctl dead` list the others.",
            )
        return entry

    def find(self, prefix: str) -> Entry:
        """The one message whose id begins with these letters, or NoSuchMessage naming the candidates."""
        bits, mask = id_prefix(prefix)
        found = [id for id in self.entries if id & mask == bits]
        if len(found) == 1:
            return self.entries[found[0]]
        if not found:
            raise NoSuchMessage(
                f"No message's id begins with {prefix}", "`agentctl inbox` and `agentctl dead` list them."
            )
        shown = ", ".join(id_text(id) for id in sorted(found)[-5:])
        raise NoSuchMessage(f"{prefix} begins the ids of {len(found)} messages", f"Give more letters: {shown}.")

    def until(self, entry: Entry) -> float | None:
        """How long it is held, or delayed, by the wall clock; None where it is neither."""
        return entry.timer.at + self.wall_offset if entry.timer else None

    def trace(self, cid: int, entry: Entry) -> TraceView:
        """All that is known of a message, but its body."""
        message = entry.message
        details = message.details or _NO_DETAILS
        return TraceView(
            cid,
            message.id,
            entry.state,
            message.sender,
            entry.to,
            message.content,
            entry.body_bytes,
            message.lane,
            route_of(message.lane),
            message.attempt,
            [Transition(state, at + self.wall_offset, who, note) for state, at, who, note in entry.trail],
            details.re,
            details.thread,
            details.hops,
            self.until(entry),
        )


def route_of(lane: Priority) -> Route:
    """Which way the daemon carried a message of that lane."""
    return _ROUTES.get(lane, Route.RELAYED)


_ROUTES: Final = {Priority.NORMAL: Route.SOCKET, Priority.LOW: Route.JOURNAL}
_NO_DETAILS: Final[Any] = wire.Details()
