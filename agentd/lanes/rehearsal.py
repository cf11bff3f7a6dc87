"""What would become of a message now: every check that it would meet, in the same order, and no change.

Where there is no room, or no rate, a sender waits; so these are said and are no refusal.
"""

from __future__ import annotations

from agentd.hub import delays
from agentd.hub.agents import Agent
from agentd.hub.asked import check_direct, check_event, check_not_kept, check_request
from agentd.hub.hub import Hub
from agentd.hub.receipts import OVERHEAD_BYTES
from agentd.hub.router import is_kept, shutting_down
from agentd.hub.session import Session
from agentd.lanes.choice import Lanes
from agentd.lanes.direct import DirectLane
from agentd.lanes.lane import Lane
from agentd.wire import choice, records
from agentd.wire.choice import Case, Recipient, Row, Size
from agentd.wire.errors import AgentdError
from agentd.wire.messages import ChoiceView, Choose, Details, Kind, Options, Priority, Refusal, Route
from agentd.wire.names import check_topic, id_text


def rehearse(lanes: Lanes, hub: Hub, session: Session, verb: Choose, now: float) -> ChoiceView:
    """The way of the message that the verb describes, or the error that it would be answered with."""
    options = verb.options or Options()
    lane = lanes.by_priority[options.priority]
    one = _Rehearsal(lanes, hub, session, verb, options, lane, now)
    try:
        row = one.row()
    except AgentdError as error:
        refusal = Refusal(error.code, error.message, error.hint, error.retryable, error.retry_after)
        return ChoiceView(verb.cid, lane.priority, None, error.row, error.message, [], refusal)
    unless = [row.unless.format(**one.words), *one.waits()]
    return ChoiceView(verb.cid, lane.priority, row.route, row.name, row.reason.format(**one.words), unless)


class _Rehearsal:
    """One message's."""

    def __init__(
        self, lanes: Lanes, hub: Hub, session: Session, verb: Choose, options: Options, lane: Lane, now: float
    ) -> None:
        self._hub = hub
        self._session = session
        self._verb = verb
        self._options = options
        self._lane = lane
        self._now = now
        self._agent = self._find()
        self._repeats: int | None = None  # the message that this key was accepted for before
        self.words = lanes.words(options) | {
            "to": verb.to,
            "sender": session.command or session.name,
            "size_bytes": verb.size_bytes,
        }

    def _find(self) -> Agent | None:
        agent = self._hub.agents.by_name.get(self._verb.to)
        return None if agent is None or not agent.has_address or self._verb.kind is Kind.PUBLISH else agent

    def row(self) -> Row:
        """The row that holds; an error where the message would be refused."""
        verb, options, router = self._verb, self._options, self._hub.router
        direct = options.priority in choice.DIRECT_LANES
        durable = bool(options.durable) or (self._is_delayed and self._normal)
        demanded = Case(verb.kind.value, options.priority, durable, options.route, self._lane.open, verb.attached)
        self._check(demanded)
        if verb.kind is Kind.PUBLISH:
            check_topic(verb.to)
        if router.draining:
            raise shutting_down()
        if direct:
            check_direct(options)
        to_whom = demanded._replace(recipient=self._recipient())
        self._check(to_whom)
        if verb.kind is Kind.REQUEST:
            if not direct:
                router.check_asking(self._session)
            check_request(options)
        elif verb.kind is Kind.PUBLISH:
            check_event(options)
        details = router.details(options, self._now)
        agent = self._agent
        if verb.kind is Kind.SEND and not (direct or agent is None or is_kept(agent, options, details)):
            check_not_kept(options)
        if options.key is not None:  # which only a normal send has got this far with
            used = router.used_key(self._session, verb.to, verb.size_bytes, options.key, self._now)
            self._repeats = None if used is None else used.id
        if to_whom.recipient is Recipient.NEW and self._repeats is None:
            self._hub.agents.check_new(verb.to)
        row = self._check(to_whom._replace(size=self._size(details)))
        assert row is not None  # all has been looked at
        return row

    def _check(self, case: Case) -> Row | None:
        row = choice.decide(case)
        if row is not None and row.code:
            error = self._refusal(row)
            error.row = row.name
            raise error
        return row

    def _refusal(self, row: Row) -> AgentdError:
        """What the hub says itself of those whom it does not know, and of its own limits; else as the row has it."""
        to = self._verb.to
        if row.code == "no_such_agent":
            return self._hub.agents.unknown(to, sending=row.name == "normal_unknown")
        if row.code == "no_responder":
            return self._hub.router.no_responder(to, self._agent)
        if row.name in ("normal_too_large", "socket_too_large"):
            return self._hub.router.too_large(self._verb.size_bytes)
        return choice.refusal(row.name, **self.words)

    def _recipient(self) -> Recipient:
        agent = self._agent
        if agent is None:
            return Recipient.NEW if self._options.allow_absent else Recipient.UNKNOWN
        if not agent.takers:
            return Recipient.ABSENT
        if isinstance(self._lane, DirectLane):
            return self._lane.recipient(agent, relayed=self._relayed)
        return Recipient.SOCKET

    def _size(self, details: Details | None) -> Size:
        """Among the limits of the pair that it would go through: the sender's own, or agentd's."""
        size_bytes, most = self._verb.size_bytes, self._hub.config.message.max_body_bytes
        lane = self._lane
        if not isinstance(lane, DirectLane):
            return choice.size_of(size_bytes, 0, 0, most)
        options, session = self._options, self._session
        if self._relayed:
            beside = records.encode_details(details, session.name, session.provenance)
        elif options.headers or options.re is not None or options.hops:
            hops = options.hops if options.re is None else max(options.hops, 1)
            own = Details(headers=options.headers, re=options.re, thread=options.re, hops=hops)
            beside = records.encode_details(own)
        else:
            beside = b""
        late = options.ttl is not None or self._verb.kind is Kind.REQUEST
        inline_bytes = lane.inline_bytes(relayed=self._relayed) - len(beside) - records.DEADLINE_BYTES * late
        pool_bytes = lane.pool_bytes(relayed=self._relayed)
        self.words["limit_bytes"] = max(inline_bytes, pool_bytes)
        return choice.size_of(size_bytes, inline_bytes, pool_bytes, most)

    def waits(self) -> list[str]:
        """What it would have to wait for now."""
        found = []
        agent, session = self._agent, self._session
        if self._is_delayed:
            found.append("its time is to come; it waits on disk until then, and nobody is given it before")
        if not session.bucket.has_room(self._now):
            found.append(f"{session.name} is over its rate now; this waits until there is room")
        if agent is not None and agent.paused:
            held = "it is given this when it is resumed" if self._normal else "this waits until it is resumed"
            found.append(f"{agent.name} is paused now; {held}")
        if agent is not None and self._normal and not self._has_room(agent):
            found.append(f"{agent.name}'s inbox has no room for this now; send waits for some")
        if self._repeats is not None:
            found.append(f"this key was accepted before; the answer is about message {id_text(self._repeats)}")
        return found

    @property
    def _relayed(self) -> bool:
        """Whether agentd would write it, where it goes into a ring."""
        return not self._verb.attached or self._options.route is Route.RELAYED

    @property
    def _is_delayed(self) -> bool:
        return self._verb.kind is Kind.SEND and delays.is_asked(self._options)

    @property
    def _normal(self) -> bool:
        return self._lane.priority is Priority.NORMAL

    def _has_room(self, agent: Agent) -> bool:
        return self._hub.inboxes.has_room(agent, self._verb.size_bytes + OVERHEAD_BYTES)
