"""What CRITICAL and HIGH have in common: from ring to ring between two attached agents, who need the daemon only to be
introduced. What comes here is relayed: into the receiver's ring where it has one, else first of all on its socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from agentd.hub.agents import Agent
from agentd.hub.histogram import Histogram
from agentd.hub.hub import Hub
from agentd.hub.inbox import Inboxes
from agentd.hub.receipts import Entry
from agentd.hub.router import Router
from agentd.hub.session import Session
from agentd.lanes import closed
from agentd.lanes.relay import Relay
from agentd.wire import choice, records
from agentd.wire.choice import Recipient
from agentd.wire.errors import Backpressure
from agentd.wire.grants import OPERATIONS
from agentd.wire.messages import Priority, Publish, Reply, Request, Send

_RETRY_S = 0.02


class DirectLane:
    """The daemon's part of one of them."""

    def __init__(self, priority: Priority, hub: Hub, why_closed: str = "", how: str = "") -> None:
        self.priority = priority
        self._how = how  # beside shared memory
        self._hub = hub
        self._router: Router = hub.router
        self._inboxes: Inboxes = hub.inboxes
        self._closed = why_closed
        self.relays: dict[Session, Relay | None] = {}  # of those that read a ring; None: it is being made
        self.pinned: dict[Session, str] = {}  # where their threads run
        self.latency = Histogram()  # from ring to ring, of some; as their receivers say
        self.taken = 0
        self.operations: dict[str, int] = {}  # that senders have submitted to io_uring, as they say
        self.more: Callable[[], str] = lambda: ""  # what else there is to say of it
        self.invite: Callable[[Session], bool] = lambda session: False  # ask it to attach; whether it may still do so
        self.standing: Callable[[Session, bool], Recipient] = lambda taker, relayed: Recipient.SOCKET
        self.look_again: Callable[[], None] = lambda: None  # something is out whose delivery nobody rings for

    @property
    def open(self) -> bool:
        """Whether the kernel and the configuration allow it."""
        return not self._closed

    @property
    def reason(self) -> str:
        """How it carries them now, or why it can't."""
        if self._closed:
            return self._closed
        pairs = [pair for pair in self._hub.pairs.by_number.values() if pair.lane is self.priority and pair.sender]
        how = f" {self._how}" if self._how else ""
        more = f"; {text}" if (text := self.more()) else ""
        count = f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'}"
        return f"shared memory{how}, {count}; the unattached are relayed{more}"

    def measured(self, taken: int, latencies_ns: list[int]) -> None:
        """A receiver says what it took."""
        self.taken += taken
        for latency_ns in latencies_ns:
            self.latency.record(latency_ns)

    def submitted(self, counts: list[int]) -> None:
        """A sender says what it had io_uring do."""
        for kind, n in zip(OPERATIONS, counts, strict=False):
            if n:
                self.operations[kind] = self.operations.get(kind, 0) + n

    def send(self, session: Session, verb: Send, now: float) -> None:
        """Relay one message."""
        self._check_open()
        assert verb.options is not None
        options = verb.options
        entry = self._router.prepare(session, verb, options, now)
        deadline = None if options.ttl is None else now + options.ttl
        relay = self._relay(entry)
        if relay is not None:
            relay.carry(entry, deadline)
            self._router.admit(session, verb.cid, entry, options, now)
            if relay.look(now):
                self.look_again()
            return
        self._inboxes.check_room(entry.agent, entry.size_bytes, now)
        self._router.admit(session, verb.cid, entry, options, now)
        if deadline is not None:
            self._inboxes.expire_at(entry, deadline)
        self._inboxes.put(entry)

    def recipient(self, agent: Agent, *, relayed: bool) -> Recipient:
        """How a live agent would be reached now: by agentd, or by a sender that is attached to shared memory."""
        where = {
            Recipient.RING if relayed and taker in self.relays else self.standing(taker, relayed)
            for taker in agent.takers
        }
        return next(best for best in (Recipient.RING, Recipient.ATTACHING, Recipient.SOCKET) if best in where)

    def inline_bytes(self, *, relayed: bool) -> int:
        """The largest body that rides in the ring, without details and deadline."""
        config = self._hub.config
        wide = self.priority is Priority.HIGH and not relayed
        ring_bytes = config.high.ring_bytes if wide else config.direct.critical_bytes
        most = records.max_body_bytes(ring_bytes)
        if not self.pool_bytes(relayed=relayed):
            return most
        return min(most, ring_bytes // records.POOLED_PART, records.POOLED_BYTES)

    def pool_bytes(self, *, relayed: bool) -> int:
        """The largest body that the pool of a pair takes, agentd's own too; none where all have what they may."""
        return self._hub.config.high.pool_bytes if self.priority is Priority.HIGH else 0

    def _relay(self, entry: Entry) -> Relay | None:
        """Into whose ring; None where the agent has none and is told on its socket."""
        attached = [taker for taker in entry.agent.takers if taker in self.relays]
        ready = [relay for taker in attached if (relay := self.relays[taker]) is not None]
        if not ready and (attached or any(taker.can_attach and self.invite(taker) for taker in entry.agent.takers)):
            raise Backpressure(f"{entry.agent.name} is just being attached", "Send again.", retry_after=_RETRY_S)
        if not ready:
            return None
        return min(ready, key=lambda relay: len(relay.out))

    def request(self, session: Session, verb: Request, now: float) -> NoReturn:
        """Only from ring to ring."""
        self._check_open()
        raise choice.refusal("request_unattached")

    def reply(self, session: Session, verb: Reply, now: float) -> NoReturn:
        """A reply goes the way its request came."""
        self._check_open()
        raise choice.refusal("direct_reply")

    def publish(self, session: Session, verb: Publish, now: float) -> NoReturn:
        """One sender, one receiver."""
        self._check_open()
        raise choice.refusal("direct_publish")

    def _check_open(self) -> None:
        if self._closed:
            raise closed.refusal(self.priority, self._closed)
