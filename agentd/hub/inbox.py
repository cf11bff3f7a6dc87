"""Inboxes: a directed message from acceptance to its end.

A message with a place in an agent's inbox is in exactly one of: `agent.waiting`, `agent.delayed`, `agent.detached`,
or `held` of one session. It leaves when it ends. Whoever takes it (`session.credit`) is sent it at once and in the
order of ids; it counts as delivered only when the receiving library says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from agentd.host.config import Config
from agentd.hub import delays, plain, urgent
from agentd.hub.agents import Agent
from agentd.hub.dead import DeadLetters
from agentd.hub.deadlines import Deadlines
from agentd.hub.receipts import ACKED, DELIVERED, ENDED, EXPIRED, Entry, Receipts, Trail
from agentd.hub.requests import Requests
from agentd.hub.room import Room
from agentd.hub.session import Session
from agentd.wire.errors import NoSuchMessage, NotPermitted
from agentd.wire.names import id_text


class Inboxes(Room):
    """What happens in every inbox."""

    def __init__(
        self, config: Config, deadlines: Deadlines, receipts: Receipts, requests: Requests, dead: DeadLetters
    ) -> None:
        super().__init__(config.inbox)
        self.max_held = config.inbox.max_held
        self._max_attempts = config.message.max_attempts
        self.deadlines = deadlines
        self.journal = receipts.journal
        self._receipts = receipts
        self._requests = requests
        self._dead = dead
        self.caught_up: Callable[[Agent], None] = lambda agent: None  # all events of a durable subscription were sent

    def put(self, entry: Entry) -> None:
        """A fresh entry into its agent's inbox, and on to a taker that has room."""
        agent = entry.agent
        taker = self.taker_of_fresh(agent)
        agent.count += 1
        agent.bytes += entry.size_bytes
        self.bytes += entry.size_bytes
        if taker is not None:
            self._hand(entry, taker)
            return
        agent.waiting[entry.message.id] = entry
        if urgent.is_urgent(entry):
            urgent.to_front(agent, entry)

    def taker_of_fresh(self, agent: Agent) -> Session | None:
        """Who is sent a message that comes to this agent now; None when it has to wait. Asked once a message: who
        shares takes turns."""
        takers = agent.takers
        if not takers or agent.waiting or agent.paused or agent.count - len(agent.delayed) >= self.max_held:
            return None
        if len(takers) > 1:
            return self._taker(agent)
        taker = takers[0]
        return taker if taker.credit > 0 and not taker.stalled else None

    def may_take(self, taker: Session) -> int:
        """How many fresh messages in a row are for it, once it is sent the first."""
        agent = taker.agent
        return 1 if len(agent.takers) > 1 else min(taker.credit, self.max_held - agent.held_count)

    def charge(self, entry: Entry) -> None:
        """Count an entry that lies elsewhere than in `waiting`: an answer on its way to its asker, or restored mail."""
        entry.agent.count += 1
        entry.agent.bytes += entry.size_bytes
        self.bytes += entry.size_bytes

    def insert(self, entry: Entry) -> None:
        """A fresh entry to where its id says, also before those that came earlier; nobody is given it by that."""
        self.charge(entry)
        self.rejoin(entry)

    def _taker(self, agent: Agent) -> Session | None:
        """The next session with credit; those that share take turns."""
        takers = agent.takers
        for place, session in enumerate(takers):
            if session.credit > 0 and not session.stalled:
                if len(takers) > 1:
                    takers.append(takers.pop(place))
                return session
        return None

    def _hand(self, entry: Entry, session: Session) -> None:
        session.credit -= 1
        entry.holder = session
        session.held[entry.message.id] = entry
        session.push(entry.message)

    def pump(self, agent: Agent) -> None:
        """Send what waits to whoever takes it, as long as it does not hold too much; what is more than may be handed at
        once follows when that was sent."""
        if agent.paused:
            return
        waiting = agent.waiting
        room = self.max_held - agent.held_count
        if len(agent.takers) == 1:
            plain.hand_over(waiting, agent.takers[0], room)
            room = 0
        handed_bytes = 0
        while waiting and room > 0:
            room -= 1
            session = self._taker(agent)
            if session is None:
                return
            if handed_bytes >= session.at_once_bytes:
                session.more_waits()
                return
            _, entry = waiting.popitem(last=False)
            handed_bytes += entry.size_bytes
            self._hand(entry, session)
        if not waiting and agent.source is not None:
            self.caught_up(agent)

    def pause(self, agent: Agent, *, on: bool) -> None:
        """Give it nothing, or all that has waited meanwhile."""
        if agent.source is not None and agent.source.is_filling:  # the past comes first
            agent.source.stays_paused = on
            return
        agent.paused = on
        self.pump(agent)

    def receive(self, session: Session, credit: int) -> int:
        """Grant credit, or take back what is not used yet; how much it was."""
        if not session.takes:
            raise NotPermitted(
                f"This session only sends as {session.name}; it takes no mail",
                "Join under the name without take=False.",
            )
        before = session.credit
        session.credit = max(0, before + credit)
        change = abs(session.credit - before)
        if credit > 0:
            self.pump(session.agent)
        return change

    # Verdicts of the receiver.

    def delivered(self, session: Session, ids: list[int], now: float) -> None:
        """The library handed these to its application. Ids that are not held are too late to matter."""
        for id in ids:
            entry = session.held.get(id)
            if entry is not None and entry.state is not DELIVERED:
                self._receipts.delivered(entry, now, session.name)

    def ack(self, session: Session, ids: list[int], now: float) -> int:
        """Done. How many were not done before. Unknown ids are refused after all others are done: acks travel together,
        and one that comes too late must not undo the rest."""
        held, name, tapped = session.held, session.name, self._receipts.tap is not None
        delivered, acked = (DELIVERED, now, name, ""), (ACKED, now, name, "")
        count = 0
        done: list[Entry] = []
        undelivered = freed = run = 0
        before: Trail = ()
        after: Trail = ()
        refusal: NoSuchMessage | None = None
        full = session.agent.waiting and session.agent.held_count >= self.max_held
        for id in ids:
            entry = held.get(id)
            if entry is None:
                try:
                    entry = self._owned(session, id)
                except NoSuchMessage as error:
                    refusal = refusal or error
                    continue
            state = entry.state
            if state in ENDED:
                continue
            count += 1
            special = entry.watchers or entry.asker or entry.expiry or entry.timer or entry.due or tapped
            if entry.holder is not session or special:
                self.finish(entry, now, name)
                continue
            # The plain message, written out: nobody waits for it, nothing is to be cancelled.
            del held[id]
            entry.holder = None
            entry.state = ACKED
            if entry.trail is not before:  # what was accepted in one turn shares it, and is counted at once
                if run:
                    self._receipts.counts.took(session.tally, now - before[0][1], run)
                    undelivered += run
                    run = 0
                before = entry.trail
                after = (*before, acked) if state is DELIVERED else (*before, delivered, acked)
            if state is not DELIVERED:
                run += 1
            entry.trail = after
            entry.message.body = b""
            freed += entry.size_bytes
            done.append(entry)
        if done:
            agent = session.agent
            agent.count -= len(done)
            agent.bytes -= freed
            self.bytes -= freed
            counts, tally = self._receipts.counts, session.tally
            if run:
                counts.took(tally, now - before[0][1], run)
                undelivered += run
            counts.delivered += undelivered
            counts.acked += len(done)
            tally.delivered += undelivered
            tally.acked += len(done)
            self._receipts.retain(agent.ended, done, now)
            self.journal.acked(done, now)
        if full:
            self.pump(session.agent)
        if refusal is not None:
            raise refusal
        return count

    def finish(self, entry: Entry, now: float, who: str) -> None:
        """End an entry as acked, wherever it lies."""
        if entry.state is not DELIVERED:
            taken = entry.holder is not None or any(state is DELIVERED for state, _, _, _ in entry.trail)
            self._receipts.delivered(entry, now, who, "" if taken else "acked by its id, without being taken")
        self._remove(entry)
        if entry.asker is not None:
            self._requests.end_without_reply(entry, f"{who} acked the request and did not reply")
        self._receipts.end(entry, ACKED, now, who)

    def nack(self, session: Session, id: int, reason: str, after_s: float, now: float) -> None:
        """Not now: back into the inbox, one attempt gone."""
        entry = self._unfinished(session, id)
        if entry.state is not DELIVERED:
            self._receipts.delivered(entry, now, session.name)
        if urgent.is_urgent(entry):  # at most once
            self.die(entry, now, session.name, reason or "nacked", rejected=True, store=False)
            return
        self._detach(entry)
        self.come_back(entry, now, session.name, reason or "nacked", failed=True, after_s=after_s)
        self.pump(session.agent)

    def reject(self, session: Session, id: int, reason: str, now: float) -> None:
        """Never: a dead letter."""
        entry = self._unfinished(session, id)
        self.die(entry, now, session.name, reason or "rejected", rejected=True)
        self.pump(session.agent)

    def give_back(self, session: Session, ids: list[int], now: float) -> int:
        """Not wanted after all; no attempt counted. How many came back: what is held by nobody here can't."""
        count = 0
        for id in reversed(ids):
            entry = session.held.get(id) or session.agent.detached.get(id)
            if entry is not None:
                self._detach(entry)
                self.come_back(entry, now, session.name, "given back", failed=False)
                count += 1
        self.pump(session.agent)
        return count

    def working(self, session: Session, id: int, hold_s: float | None, now: float) -> None:
        """Still at it. With `hold_s` the agent holds the message that long, whatever becomes of the session."""
        entry = self._unfinished(session, id)
        if hold_s is None:
            return
        if entry.state is not DELIVERED:
            self._receipts.delivered(entry, now, session.name)
        self._detach(entry)
        delays.hold(self, entry, now + hold_s)
        self.pump(session.agent)  # of a durable subscription: its window has a place again

    def _owned(self, session: Session, id: int) -> Entry:
        entry = self._receipts.entries.get(id)
        if entry is None or entry.agent is not session.agent or entry.is_event:
            if entry is None:
                whose = "is not known"
            elif entry.is_event:
                whose = f"is an event on {entry.topic}"
            else:
                whose = f"is addressed to {entry.to}, not to {session.name}"
            raise NoSuchMessage(
                f"Message {id_text(id)} {whose}", "`agentctl inbox` lists your messages; --as says who you are."
            )
        return entry

    def _unfinished(self, session: Session, id: int) -> Entry:
        entry = session.held.get(id) or self._owned(session, id)
        if entry.state in ENDED:
            raise NoSuchMessage(
                f"Message {id_text(id)} is {entry.state.value} already", f"See `agentctl trace {id_text(id)}`."
            )
        return entry

    # Coming back and ending.

    def session_gone(self, session: Session, now: float, why: str) -> None:
        """Everything a session holds comes back; what its application had seen, with one attempt gone."""
        agent = session.agent
        if session in agent.takers:
            agent.takers.remove(session)
            agent.seen = now
        session.takes = False
        session.credit = 0
        urgent.session_gone(self, session, now, why)
        for _, entry in sorted(session.held.items(), reverse=True):
            seen = entry.state is DELIVERED
            self._detach(entry)
            self.come_back(entry, now, session.name, why, failed=seen)
        if not agent.live:
            for entry in list(agent.requests.values()):
                if entry.holder is None and entry.message.id not in agent.detached:
                    self.die(entry, now, agent.name, why, store=False)
            if not agent.unnamed:
                self.journal.keep_all(agent.unfinished())
        self.pump(agent)

    def _detach(self, entry: Entry) -> None:
        """Out of whoever holds it; the entry is nowhere until it is put somewhere."""
        id = entry.message.id
        if entry.holder is not None:
            del entry.holder.held[id]
            entry.holder = None
        else:
            entry.agent.detached.pop(id, None) or entry.agent.delayed.pop(id, None) or entry.agent.waiting.pop(id, None)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None

    def _remove(self, entry: Entry) -> None:
        """Out of the inbox altogether."""
        if entry.holder is not None and entry.timer is None:  # the common case, kept short
            del entry.holder.held[entry.message.id]
            entry.holder = None
        else:
            self._detach(entry)
        agent = entry.agent
        agent.count -= 1
        agent.bytes -= entry.size_bytes
        self.bytes -= entry.size_bytes

    def come_back(self, entry: Entry, now: float, who: str, note: str, *, failed: bool, after_s: float = 0.0) -> None:
        """A detached entry back to where it waits, unless its attempts or its time are over."""
        message = entry.message
        if failed and message.attempt >= self._max_attempts:
            self.die(entry, now, who, f"attempt {message.attempt} of {self._max_attempts}: {note}")
            return
        if entry.agent.unnamed:  # the reply to an asker that is gone and has no inbox
            self.die(entry, now, who, note, store=False)
            return
        if message.details is not None and message.details.reply_by is not None and entry.asker is None:
            self.expire(entry, now, who, "the asker stopped waiting")
            return
        was_seen = entry.state is DELIVERED
        if was_seen:
            self._receipts.back(entry, now, who, note)
        if failed:
            message.attempt += 1
        if entry.expiry is not None and entry.expiry.at <= now:
            self._expire(entry, now)
            return
        if entry.asker is not None and not entry.agent.live:  # nobody is there to reply
            self.die(entry, now, who, note, store=False)
            return
        if after_s > 0:
            delays.delay(self, entry, now + after_s)
            return
        self.rejoin(entry)
        if was_seen:
            self.journal.moved(entry)

    def lose(self, entry: Entry, now: float, who: str, note: str) -> None:
        """Delivered, and nobody can know what became of it."""
        self._remove(entry)
        self._receipts.lose(entry, now, who, note)

    def unhand(self, entry: Entry) -> None:
        """It was sent to a session that never showed it: to another."""
        self._detach(entry)
        self.rejoin(entry)

    def rejoin(self, entry: Entry) -> None:
        """Into `waiting`, in the order of ids."""
        agent, id = entry.agent, entry.message.id
        waiting = agent.waiting
        if not waiting:
            waiting[id] = entry
            return
        if urgent.rejoin(agent, entry):
            return
        first, last = next(iter(waiting)), next(reversed(waiting))
        waiting[id] = entry
        if id < first:
            waiting.move_to_end(id, last=False)
        elif id < last:
            agent.waiting = OrderedDict(sorted(waiting.items()))

    def expire_at(self, entry: Entry, at: float) -> None:
        """Let it expire at `at` unless it has been delivered by then."""
        entry.expiry = self.deadlines.add(at, lambda now: self._due(entry, now))

    def _due(self, entry: Entry, now: float) -> None:
        if entry.holder is None and entry.message.id not in entry.agent.detached:
            self._expire(entry, now)
        # Else it is with a session: if it comes back it expires then.

    def _expire(self, entry: Entry, now: float) -> None:
        entry.agent.seen = now
        if entry.asker is not None:
            self._requests.end_without_reply(entry, "it expired before anybody took it")
        self.expire(entry, now, entry.agent.name, "nobody took it in time")

    def expire(self, entry: Entry, now: float, who: str, note: str) -> None:
        """Nobody takes it any more, for this reason."""
        self._remove(entry)
        self._receipts.end(entry, EXPIRED, now, who, note)

    def withdraw(self, entry: Entry, now: float, note: str) -> None:
        """The asker waits no more: a request that nobody was sent ends; one that is out may still be answered."""
        if entry.holder is None and entry.state not in ENDED and entry.message.id not in entry.agent.detached:
            self.expire(entry, now, entry.message.sender, note)

    def die(
        self, entry: Entry, now: float, who: str, reason: str, *, rejected: bool = False, store: bool = True
    ) -> None:
        """Given up, for a reason."""
        self._remove(entry)
        if entry.asker is not None:
            self._requests.end_dead(entry, reason, rejected=rejected)
        self._dead.add(entry, now, who, reason, store=store)

    def requeue(self, entry: Entry, now: float, who: str) -> None:
        """A dead letter back into its inbox, its attempts counted anew. Its time and its asker are over: it waits for
        neither, and a reply goes to its sender's inbox."""
        self.check_room(entry.agent, entry.size_bytes, now)
        self._dead.take_out(entry)
        entry.message.attempt = 1
        details = entry.message.details
        if details is not None:
            details.reply_by = details.expires_at = None
        self._receipts.back(entry, now, who, "requeued")
        agent = entry.agent
        agent.count += 1
        agent.bytes += entry.size_bytes
        self.bytes += entry.size_bytes
        agent.unannounced.add(entry.message.id)  # as good as new
        self.rejoin(entry)
        self.journal.moved(entry)
        self.pump(agent)
