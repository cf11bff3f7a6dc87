"""Durable subscriptions: inboxes that events fill. Attempts, holds, dead letters, limits, the journal and restarts are
those of any inbox; what is here is who fills one and who takes from it.

`sub:NAME` is in the registry of agents, with a `source` instead of sessions. An event that matches becomes a message of
its own there, under an id of its own: several subscriptions settle theirs apart. Whoever subscribes under NAME takes by
a cursor, which is a session to the inbox: what it is sent goes to the subscriber, with the number of the subscription;
and what the subscriber says of a message is said by the cursor that holds it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from agentd.host.config import TopicLimits
from agentd.hub.agents import Agent, Agents, Source
from agentd.hub.dead import DeadLetters
from agentd.hub.deadlines import Deadlines
from agentd.hub.inbox import Inboxes
from agentd.hub.past import NEW, Past, begin_of
from agentd.hub.receipts import ACCEPTED, OVERHEAD_BYTES, Entry, Receipts
from agentd.hub.session import Session
from agentd.wire.errors import AgentdError, BadRequest, Busy, NoSuchMessage, NotPermitted
from agentd.wire.messages import DaemonMessage, Details, LaggedEvent, Message, Subscribe
from agentd.wire.names import OWN_TOPICS, SUBSCRIPTION, check_name

_MAX_CACHED = 4096
#: In a gap: nobody knows how many.
UNCOUNTED = -1
#: Of the past, charged with what is reckoned beside the bodies: so much is put into an inbox at a time, in 0.5 ms, and
#: then others have their turn.
_FILL_BYTES = 32 * 1024
_PAUSE_S = 0.001


class Cursor(Session):
    """A subscriber's share of a durable subscription. Its credit is what its window has left: it asks for nothing."""

    def __init__(self, number: int, session: Session, agent: Agent, window: int, told: Callable[[Agent], None]) -> None:
        super().__init__()
        self.number = number
        self.session = session
        self.agent = agent
        self.tally = agent.tally
        self.name = session.name
        self.provenance, self.pid, self.command = session.provenance, session.pid, session.command
        self.joined = self.takes = self.shares = True
        self.window = window
        self._told = told

    @property
    def credit(self) -> int:
        """So much more it may be sent."""
        return max(0, self.window - len(self.held)) if self.takes else 0

    @credit.setter
    def credit(self, credit: int) -> None:
        pass  # it follows from what is held

    @property
    def stalled(self) -> bool:
        """Whether its subscriber does not read."""
        return self.session.stalled

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        pass

    @property
    def at_once_bytes(self) -> float:
        """What its subscriber may be handed."""
        return self.session.at_once_bytes

    def more_waits(self) -> None:
        """Its subscriber sees to it."""
        self.session.more_waits()

    def write(self, message: DaemonMessage) -> None:
        """To the subscriber, behind the gap that came before it."""
        if type(message) is Message and message.details is not None:
            source = self.agent.source
            if source is not None and source.missed and message.id > source.missed_after:
                self.tell_gap(source)
            message.details.subscription = self.number
            self.session.push(message)
            message.details.subscription = 0
        else:
            self.session.push(message)

    def tell_gap(self, source: Source) -> None:
        """Here is the gap."""
        missed, source.missed = source.missed, 0
        source.is_noted = False
        self.session.push(LaggedEvent(self.number, missed))
        self._told(self.agent)


class Durables:
    """All durable subscriptions, and the cursors into them."""

    def __init__(
        self,
        limits: TopicLimits,
        deadlines: Deadlines,
        agents: Agents,
        receipts: Receipts,
        inboxes: Inboxes,
        dead: DeadLetters,
    ) -> None:
        self._limits = limits
        self._deadlines = deadlines
        self._agents = agents
        self._receipts = receipts
        self._inboxes = inboxes
        self._dead = dead
        inboxes.caught_up = self._caught_up
        self._matching: dict[str, tuple[Agent, ...]] = {}  # by topic; emptied when a subscription comes or goes

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        all_of_them = [agent for agent in self._agents.by_name.values() if agent.source is not None]
        return {"durable": len(all_of_them), "cursors": sum(len(agent.takers) for agent in all_of_them)}

    # Coming and going.

    def subscribe(self, session: Session, verb: Subscribe, number: int, now: float) -> tuple[Cursor, str]:
        """A cursor, which takes nothing before begin(); and what of the verb was passed over."""
        name = SUBSCRIPTION + check_name(verb.name or "")
        if verb.pattern.startswith(OWN_TOPICS):
            raise BadRequest("What happens in agentd is not kept", "Subscribe to its own topics without a name.")
        agent = self._agents.by_name.get(name)
        note = ""
        if agent is None:
            begin = begin_of(verb.start, now + self._receipts.wall_offset)
            with_past = verb.start != NEW
            agent = self._agents.create_durable(name, Source(verb.pattern, is_filling=with_past), now)
            self._matching.clear()
            if with_past:
                self._look_back(agent, begin)
        else:
            self._check_pattern(agent, verb)
            if verb.start != NEW and not (agent.source and agent.source.is_filling):
                note = f"{verb.name} goes on where it was: a start is for a new one"
        window = min(verb.window or self._limits.max_events, self._limits.max_events)
        cursor = Cursor(number, session, agent, window, self._receipts.journal.durable)
        session.cursors[number] = cursor
        return cursor, note

    def _check_pattern(self, agent: Agent, verb: Subscribe) -> None:
        source = agent.source
        assert source is not None
        if not source.pattern:
            agent.source = Source(verb.pattern, source.missed)
            self._receipts.journal.durable(agent)
            self._matching.clear()
        elif source.pattern != verb.pattern:
            raise BadRequest(
                f"The durable subscription {verb.name} is to {source.pattern}, not to {verb.pattern}",
                f"Take another name, or end that one: `agentctl unsubscribe {verb.name}`.",
            )

    def begin(self, cursor: Cursor) -> None:
        """Its subscriber knows it: now it takes. PAIRS WITH detach()."""
        agent = cursor.agent
        agent.takers.append(cursor)
        self._inboxes.pump(agent)

    def detach(self, cursor: Cursor, now: float, why: str) -> None:
        """The subscriber takes no more by it: what it had not settled goes back. PAIRS WITH begin()."""
        del cursor.session.cursors[cursor.number]
        self._inboxes.session_gone(cursor, now, why)

    def session_gone(self, session: Session, now: float, why: str) -> None:
        """All of its cursors."""
        for cursor in list(session.cursors.values()):
            self.detach(cursor, now, why)

    def end(self, name: str, now: float, who: str) -> int:
        """The subscription is over for good: what waits expires, dead letters are dropped. How many these were."""
        agent = self._agents.by_name.get(SUBSCRIPTION + check_name(name))
        if agent is None:
            raise BadRequest(f"There is no durable subscription {name}", "`agentctl agents` lists them as sub:NAME.")
        if agent.takers:
            taker = agent.takers[0]
            raise NotPermitted(
                f"{name} is subscribed to by {taker.name}, pid {taker.pid} ({taker.command or 'unknown command'})",
                "End that first.",
            )
        mail, letters = agent.unfinished(), list(agent.dead.values())
        for entry in mail:
            self._inboxes.expire(entry, now, who, "the subscription was ended")
        for entry in letters:
            self._dead.drop(entry, now)
        self._agents.remove(agent)
        self._matching.clear()
        return len(mail) + len(letters)

    # The past.

    def _look_back(self, agent: Agent, begin: tuple[float, int]) -> None:
        """Have it begin with what the journal still has. Those events get ids that are kept free for them, before all
        that come from now on, which wait behind; and no more than half of the inbox."""
        source, receipts = agent.source, self._receipts
        assert source is not None
        most = max(1, self._inboxes.max_messages // 2)
        past = Past(source.pattern, begin, receipts.next_id, most, self._inboxes.max_bytes // 2)
        first_id = receipts.next_id
        receipts.next_id += most
        agent.paused = True
        receipts.journal.look_back(past.add, lambda why: self._looked_back(agent, past, first_id, why))

    def _looked_back(self, agent: Agent, past: Past, first_id: int, why: str) -> None:
        source = agent.source
        if source is None or self._agents.by_name.get(agent.name) is not agent:
            return  # it was ended meanwhile
        messages = past.in_order()
        last_id = first_id + len(messages) - 1
        if missed := UNCOUNTED if why else past.missed:
            source.missed, source.missed_after = missed, min(last_id, source.missed_after or last_id)
        self._deadlines.add(0.0, lambda now: self._fill(agent, messages, last_id, now))

    def _fill(self, agent: Agent, messages: list[Message], id: int, now: float) -> None:
        """The next few, newest first: each goes before all that are there."""
        source, receipts = agent.source, self._receipts
        if source is None or self._agents.by_name.get(agent.name) is not agent:
            return
        room_bytes, copies = _FILL_BYTES, list[Entry]()
        again_s = _PAUSE_S
        while messages and room_bytes > 0:
            message = messages[-1]
            copy = self._copy(message, message.details, agent, id, now, message.sent_at - receipts.wall_offset)
            try:
                if not self._inboxes.has_room(agent, copy.size_bytes):
                    raise self._inboxes.no_room(agent, copy.size_bytes, now)
                receipts.journal.keep(copy)
            except Busy as error:
                again_s = error.retry_after or _PAUSE_S
                break
            except AgentdError:
                source.missed = UNCOUNTED if source.missed == UNCOUNTED else source.missed + len(messages)
                source.missed_after = 0
                messages.clear()
                break
            messages.pop()
            id -= 1
            room_bytes -= copy.size_bytes
            receipts.entries[copy.message.id] = copy
            self._expire(copy)
            self._inboxes.insert(copy)
            copies.append(copy)
        if copies and copies[-1].position:
            receipts.journal.answer(copies, None, 0)
        if messages:
            self._deadlines.add(now + again_s, lambda now: self._fill(agent, messages, id, now))
            return
        source.is_filling = False
        receipts.journal.durable(agent)
        self._inboxes.pause(agent, on=source.stays_paused)

    # Events.

    def matching(self, topic: str) -> tuple[Agent, ...]:
        """Those that want an event on this topic."""
        found = self._matching.get(topic)
        if found is None:
            if len(self._matching) >= _MAX_CACHED:
                self._matching.clear()
            agents = self._agents.by_name.values()
            found = tuple(agent for agent in agents if agent.source is not None and agent.source.matches(topic))
            self._matching[topic] = found
        return found

    def publish(self, entry: Entry, now: float) -> tuple[list[Entry], list[str]]:
        """Into the inbox of each that wants it: the copies, and who had no room. Busy, and nothing is done, where the
        disk is behind. The event itself is in no registry yet; the copies have the ids behind its own."""
        kept: list[Entry] = []
        refused: list[str] = []
        receipts = self._receipts
        receipts.next_id = entry.message.id + 1
        for agent in self.matching(entry.topic or ""):
            copy = self._copy(entry.message, entry.message.details, agent, receipts.next_id, now, now)
            try:
                if not self._inboxes.has_room(agent, copy.size_bytes):
                    raise self._inboxes.no_room(agent, copy.size_bytes, now)
                receipts.journal.keep(copy, wait=bool(kept or refused))
            except AgentdError as error:
                if isinstance(error, Busy) and not (kept or refused):
                    receipts.next_id = entry.message.id
                    raise
                refused.append(agent.name)
                self._missed(agent)
                continue
            receipts.next_id += 1
            receipts.entries[copy.message.id] = copy
            receipts.counts.events += 1
            self._expire(copy)
            self._inboxes.put(copy)
            kept.append(copy)
        return kept, refused

    def _copy(
        self, event: Message, details: Details | None, agent: Agent, id: int, now: float, published: float
    ) -> Entry:
        """The event, or another copy of it, as a message of its own."""
        assert details is not None
        wall, keep_s = self._receipts.wall_offset, self._limits.keep_s
        expires_at = published + wall + keep_s if keep_s else None
        details = structs.replace(details, subscription=0, event=details.event or event.id, expires_at=expires_at)
        message = structs.replace(event, id=id, attempt=1, details=details)
        size_bytes = len(event.body) + OVERHEAD_BYTES
        return Entry(message, agent, size_bytes, ACCEPTED, ((ACCEPTED, now, event.sender, ""),))

    def _expire(self, copy: Entry) -> None:
        details = copy.message.details
        if details is not None and details.expires_at is not None:
            self._inboxes.expire_at(copy, details.expires_at - self._receipts.wall_offset)

    def _missed(self, agent: Agent) -> None:
        """An event passes it by. Its subscribers hear of that at this place, at once where they wait for events."""
        source = agent.source
        assert source is not None
        self._receipts.counts.missed += 1
        if not source.missed:
            source.missed_after = self._receipts.next_id - 1
        if not source.is_noted and not source.is_filling:
            missed, source.missed = source.missed, UNCOUNTED  # what a crash leaves of it
            self._receipts.journal.durable(agent)
            source.missed, source.is_noted = missed, True
        if source.missed != UNCOUNTED:
            source.missed += 1
        if not agent.count:
            self._caught_up(agent)

    def _caught_up(self, agent: Agent) -> None:
        """What waited was sent: here is the place of a gap, if there is one. The next event may not come for long."""
        source = agent.source
        if source is not None and source.missed and agent.takers and not source.is_filling:
            cursor = agent.takers[0]
            assert isinstance(cursor, Cursor)
            cursor.tell_gap(source)

    # What subscribers say of messages.

    def taker(self, session: Session, id: int) -> Session:
        """Who of the session speaks of this message: a cursor where it is one of its durable subscriptions', else the
        session itself."""
        if not session.cursors:
            return session
        entry = self._receipts.entries.get(id)
        if entry is None or entry.agent.source is None:
            return session
        mine = [cursor for cursor in session.cursors.values() if cursor.agent is entry.agent]
        return next((cursor for cursor in mine if cursor is entry.holder), mine[0] if mine else session)

    def _shares(self, session: Session, ids: list[int]) -> dict[Session, list[int]]:
        shares: dict[Session, list[int]] = {}
        for id in ids:
            shares.setdefault(self.taker(session, id), []).append(id)
        return shares

    def delivered(self, session: Session, ids: list[int], now: float) -> None:
        """As Inboxes.delivered(), of whatever inbox."""
        for taker, share in self._shares(session, ids).items():
            self._inboxes.delivered(taker, share, now)

    def ack(self, session: Session, ids: list[int], now: float) -> int:
        """As Inboxes.ack(), of whatever inbox."""
        count = 0
        refusal: NoSuchMessage | None = None
        for taker, share in self._shares(session, ids).items():
            try:
                count += self._inboxes.ack(taker, share, now)
            except NoSuchMessage as error:
                refusal = refusal or error
            if taker is not session:
                self._inboxes.pump(taker.agent)  # an ack is the credit for the next
        if refusal is not None:
            raise refusal
        return count

    def give_back(self, session: Session, ids: list[int], now: float) -> int:
        """As Inboxes.give_back(), of whatever inbox."""
        shares = self._shares(session, ids)
        return sum(self._inboxes.give_back(taker, share, now) for taker, share in shares.items())
