"""The hub: every registry of the domain as a plain attribute. Reading this class shows the whole state of agentd.

Synchronous; time comes in as `now` (seconds of CLOCK_BOOTTIME). It never waits: what must happen later is a deadline,
and the server calls `deadlines.run(now)`.
"""

from __future__ import annotations

from agentd.host.config import Config
from agentd.hub import notices
from agentd.hub.agents import Agents
from agentd.hub.dead import DeadLetters
from agentd.hub.deadlines import Deadlines
from agentd.hub.durable import Durables
from agentd.hub.facts import Facts
from agentd.hub.inbox import Inboxes
from agentd.hub.pairs import Pairs
from agentd.hub.past import NEW, begin_of
from agentd.hub.rates import Rates
from agentd.hub.receipts import Receipts
from agentd.hub.requests import Requests
from agentd.hub.router import Router, shutting_down
from agentd.hub.session import Session
from agentd.hub.topics import Topics
from agentd.wire.errors import BadRequest, NameInUse
from agentd.wire.messages import Join, Subscribe, Subscribed, Unsubscribe
from agentd.wire.names import check_name, check_pattern


class Hub:
    """Who is there, what waits for whom, and where every message stands."""

    def __init__(self, config: Config, first_id: int) -> None:
        self.config = config
        self.deadlines = Deadlines()
        self.receipts = Receipts(config.trace, self.deadlines, first_id)
        self.receipts.journal.is_all_recorded = config.journal.history == "all"
        self.agents = Agents(config.agents, self.deadlines, self.receipts)
        self.requests = Requests(self.deadlines)
        self.dead = DeadLetters(config.dead, self.receipts)
        self.inboxes = Inboxes(config, self.deadlines, self.receipts, self.requests, self.dead)
        self.requests.withdraw = self.inboxes.withdraw
        self.topics = Topics(config.topics, self.receipts)
        self.durables = Durables(config.topics, self.deadlines, self.agents, self.receipts, self.inboxes, self.dead)
        self.facts = Facts(self.topics, self.receipts)
        self.rates = Rates(config.rate)
        self.router = Router(
            config,
            self.deadlines,
            self.agents,
            self.receipts,
            self.inboxes,
            self.requests,
            self.topics,
            self.durables,
            self.rates,
        )
        self.pairs = Pairs(config.direct, first_id >> 22)  # milliseconds, about
        self.sessions: set[Session] = set()

    def join(self, session: Session, verb: Join, now: float) -> None:
        """The session speaks as this agent from now on, and takes its mail if it asked to: now, or in a second Join."""
        if session.joined:
            if verb.name != session.name or not verb.take or session.takes:
                raise BadRequest(f"This session has joined as {session.name} already", "One connection is one session.")
            if self.router.draining:
                raise shutting_down()
            self.agents.check_taker(session.agent, share=verb.share, replace=verb.replace)
            self._begin_to_take(session, verb, now)
            return
        if verb.name is None:
            if verb.take:
                raise BadRequest("An agent without a name has no inbox to take from", "Join under a name.")
            agent = self.agents.create_anonymous(now)
        else:
            if self.router.draining and verb.take:
                raise shutting_down()
            agent = self.agents.get_or_create(verb.name, now)
            if verb.take:
                self.agents.check_taker(agent, share=verb.share, replace=verb.replace)
        session.agent = agent
        if agent.bucket is None:
            agent.bucket = self.rates.bucket(now)
        session.bucket = agent.bucket
        session.tally = agent.tally
        session.name = agent.name
        session.joined = True
        session.can_attach = verb.direct
        self.sessions.add(session)
        agent.sessions.append(session)
        if verb.take:
            self._begin_to_take(session, verb, now)
        agent.seen = now
        self.agents.watch_idle(agent, now)
        self.facts.joined(session, now)

    def _begin_to_take(self, session: Session, verb: Join, now: float) -> None:
        takers = session.agent.takers
        displaced = [t for t in takers if not (t.shares and verb.share)] if verb.replace else []
        session.takes = True
        session.shares = verb.share
        takers.append(session)  # first: the name is never without a taker, so that no request ends
        for taker in displaced:
            self._displace(taker, session, now)

    def _displace(self, taker: Session, by: Session, now: float) -> None:
        """Another session takes over: this one goes on sending, but takes no more."""
        self.inboxes.session_gone(taker, now, f"taken over by pid {by.pid}")
        taker.refuse(
            0,
            NameInUse(
                f"{taker.name}'s mail was taken over by pid {by.pid} ({by.command or 'unknown command'})",
                "What you had not acked went back to the inbox.",
            ),
        )

    def subscribe(self, session: Session, verb: Subscribe, now: float) -> None:
        """Events from now on; the session is told its number before the first of them."""
        self._check_subscribe(verb)
        number = self.topics.next_number(session)
        if verb.name is None:
            self.topics.subscribe(session, verb.pattern, number)
            session.push(Subscribed(verb.cid, number))
            return
        cursor, note = self.durables.subscribe(session, verb, number, now)
        session.push(Subscribed(verb.cid, number, note))
        self.durables.begin(cursor)

    def unsubscribe(self, session: Session, verb: Unsubscribe, now: float) -> int:
        """No more events; with a name, for nobody. How many messages were given up by that."""
        if verb.name is not None:
            return self.durables.end(verb.name, now, session.name)
        cursor = session.cursors.get(verb.subscription)
        if cursor is not None:
            self.durables.detach(cursor, now, "unsubscribed")
        else:
            self.topics.unsubscribe(session, verb.subscription, now)
        return 0

    def _check_subscribe(self, verb: Subscribe) -> None:
        check_pattern(verb.pattern)
        begin_of(verb.start, 0.0)
        if verb.name is not None:
            check_name(verb.name)
            if self.router.draining:
                raise shutting_down()
        elif verb.start != NEW or verb.window:
            raise BadRequest(
                "A start and a window are for durable subscriptions: for who subscribes now, events begin now",
                "Give it a name.",
            )

    def leave(self, session: Session, now: float, why: str) -> None:
        """The session is over, in whatever way: all it held goes back, all it asked ends."""
        notices.session_gone(session)
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        agent = session.agent
        agent.sessions.remove(session)
        self.receipts.session_gone(session)
        self.topics.session_gone(session, now)
        self.durables.session_gone(session, now, why)
        self.requests.session_gone(session, now)
        self.inboxes.session_gone(session, now, why)
        agent.seen = now
        self.facts.left(session, now, why)
        self.agents.watch_idle(agent, now)

    def let_go(self) -> None:
        """The end of a hub in a process that goes on. Entries are invisible to the garbage collector: whoever holds
        one must let it go by name."""
        for agent in {id(entry.agent): entry.agent for entry in self.receipts.entries.values()}.values():
            agent.ended.entries.clear()
            for place in (agent.waiting, agent.delayed, agent.detached, agent.requests, agent.dead):
                place.clear()
        self.receipts.entries.clear()
        for session in self.sessions:
            session.held.clear()
            session.asking.clear()
            for cursor in session.cursors.values():
                cursor.held.clear()

    def statistics(self) -> dict[str, dict[str, int]]:
        """How much there is in each registry, now."""
        return {
            "agents": self.agents.statistics(),
            "inboxes": self.inboxes.statistics(),
            "receipts": self.receipts.statistics(),
            "journal": self.receipts.journal.statistics(),
            "requests": self.requests.statistics(),
            "topics": self.topics.statistics() | self.durables.statistics(),
            "rates": self.rates.statistics(),
            "pairs": self.pairs.statistics(),
            "deadlines": self.deadlines.statistics(),
        }
