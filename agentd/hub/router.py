"""The router: what a sender asks for becomes an entry in the right inbox, or a named refusal. Nothing is half done:
every check comes before the first change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentd._native import crc32c
from agentd.host.config import Config
from agentd.hub import delays
from agentd.hub.agents import Agent, Agents, UsedKey
from agentd.hub.asked import check_direct, check_event, check_not_kept, check_request, told_later
from agentd.hub.deadlines import Deadlines
from agentd.hub.durable import Durables
from agentd.hub.inbox import Inboxes
from agentd.hub.plain import Plain
from agentd.hub.rates import Rates
from agentd.hub.receipts import ACCEPTED, ACKED, DELIVERED, ENDED, OVERHEAD_BYTES, STORED, Entry, Receipts
from agentd.hub.requests import Requests
from agentd.hub.session import Session
from agentd.hub.topics import Topics
from agentd.wire import choice
from agentd.wire.bodies import Content
from agentd.wire.errors import (
    Absent,
    AgentdError,
    BadRequest,
    LimitReached,
    NoResponder,
    NoSuchAgent,
    ShuttingDown,
    TooLarge,
    TooManyHops,
)
from agentd.wire.messages import (
    Accepted,
    Details,
    Message,
    Options,
    Priority,
    Publish,
    Receipt,
    Reply,
    Request,
    Route,
    Send,
    State,
)
from agentd.wire.names import check_topic, id_text

UNKNOWN = State.UNKNOWN
LOW = Priority.LOW
_WAITABLE = (ACCEPTED, STORED, DELIVERED, ACKED)
_DEFAULTS = Options()
_MAX_WATCHERS = 64


class Router:
    """From verbs to entries."""

    def __init__(
        self,
        config: Config,
        deadlines: Deadlines,
        agents: Agents,
        receipts: Receipts,
        inboxes: Inboxes,
        requests: Requests,
        topics: Topics,
        durables: Durables,
        rates: Rates,
    ) -> None:
        self._limits = config.message
        self._agent_limits = config.agents
        self._max_size_bytes = config.message.max_body_bytes + OVERHEAD_BYTES
        self._deadlines = deadlines
        self._agents = agents
        self._by_name = agents.by_name
        self._receipts = receipts
        self._inboxes = inboxes
        self._requests = requests
        self._topics = topics
        self._durables = durables
        self._rates = rates
        self.plain = Plain(agents.by_name, receipts, inboxes, self._max_size_bytes)
        self.draining = False

    def send(self, session: Session, verb: Send, now: float) -> None:
        """Accept a message for one agent's inbox."""
        if not self.draining and self.plain.send(session, (verb,), 0, 1, now):
            return
        self._send_with_options(session, verb, verb.options or _DEFAULTS, now)

    def send_some(self, session: Session, verbs: Sequence[Any], first: int, most: int, now: float) -> int:
        """Accept what is plain of the verbs from `first`, a Send, on, and no more than `most`: how many. None is
        refused here."""
        return 0 if self.draining else self.plain.send(session, verbs, first, most, now)

    def _send_with_options(self, session: Session, verb: Send, options: Options, now: float) -> None:
        self._rates.take(session, now)
        if self.draining:
            raise shutting_down()
        agent = self._by_name.get(verb.to)
        if agent is None or not agent.has_address:
            if not options.allow_absent:
                raise self._agents.unknown(verb.to)
            agent = None
        wait = told_later(options)
        if wait is not ACCEPTED and verb.cid in session.watching:
            raise BadRequest(f"Call {verb.cid} waits for its message already", "Number calls upwards from 1.")
        details = self.details(options, now)
        if options.key is not None and self._repeated(session, verb, options, options.key, now):
            return
        kept = agent is None or is_kept(agent, options, details)
        if not kept:
            check_not_kept(options)
        known = agent is not None
        agent = agent or self._agents.get_or_create(verb.to, now)
        try:
            entry = self._entry(session, agent, verb.content, verb.body, details, now)
            entry.message.lane = options.priority
            self._inboxes.check_room(agent, entry.size_bytes, now)
            if kept:
                self._receipts.journal.keep(entry, options.key, fresh=True)
            else:
                self._receipts.journal.passed(entry)
        except AgentdError:
            if not known:
                self._agents.forget(verb.to)
            raise
        if not known:
            self._agents.watch_idle(agent, now)
        self._admit(session, entry)
        if options.key is not None:
            self._remember(session.agent, options.key, entry, now)
        if options.ttl is not None:
            self._inboxes.expire_at(entry, (entry.due or now) + options.ttl)
        self._accepted(session, verb.cid, entry, options)
        if wait is not ACCEPTED and verb.cid:
            self._receipts.watch(entry, session, verb.cid, wait, now)
        if entry.due:
            delays.begin(self._inboxes, entry)
        else:
            self._inboxes.put(entry)

    def request(self, session: Session, verb: Request, now: float) -> None:
        """Accept a message whose sender waits for the reply."""
        self._rates.take(session, now)
        if self.draining:
            raise shutting_down()
        agent = self._by_name.get(verb.to)
        if agent is None or not (agent.has_address and agent.takers):
            raise self.no_responder(verb.to, agent)
        self.check_asking(session)
        if verb.cid in session.asking:
            raise BadRequest(f"Call {verb.cid} is a request under way already", "Number calls upwards from 1.")
        options = verb.options or _DEFAULTS
        check_request(options)
        details = (None if options is _DEFAULTS else self.details(options, now)) or Details()
        details.reply_by = now + self._receipts.wall_offset + verb.timeout
        entry = self._entry(session, agent, verb.content, verb.body, details, now)
        self._inboxes.check_room(agent, entry.size_bytes, now)
        self._admit(session, entry)
        self._receipts.journal.passed(entry)
        self._requests.open(entry, session, verb.cid, now + verb.timeout)
        if options.ttl is not None:
            self._inboxes.expire_at(entry, now + options.ttl)
        self._inboxes.put(entry)

    def check_asking(self, session: Session) -> None:
        """LimitReached when its agent asks as much as it may already."""
        under_way = session.agent.requests_under_way()
        if under_way >= self._agent_limits.max_requests:
            raise LimitReached(
                f"{session.name} has {under_way} requests under way, the most there may be",
                "agents.max_requests sets the limit.",
            )

    def no_responder(self, name: str, agent: Agent | None) -> AgentdError:
        """The refusal of a request that nobody would answer."""
        if agent is None or not agent.has_address:
            unknown = self._agents.unknown(name)
            return NoResponder(unknown.message, unknown.hint)
        return choice.refusal("request_to_nobody", to=name)

    def reply(self, session: Session, verb: Reply, now: float) -> None:
        """Answer a message and ack it: to the asker that waits, else to the sender's inbox."""
        self._rates.take(session, now)
        parent = self._receipts.get(verb.id)
        if parent.topic is not None:
            raise BadRequest(f"Message {id_text(verb.id)} is an event on {parent.topic}", "Events take no reply.")
        if parent.agent is not session.agent:
            raise BadRequest(f"Message {id_text(verb.id)} was addressed to {parent.to}, not to {session.name}")
        options = verb.options or Options()
        if options.key is not None:
            raise BadRequest("A reply takes no key", "A key is for sending the same message again.")
        if delays.is_asked(options):
            raise BadRequest("A reply takes no delay", "Send it later, or send a message about this one: re names it.")
        options.re = verb.id
        details = self.details(options, now)
        asked = parent.asker
        if asked is None and self.draining:
            raise shutting_down()
        agent = asked[0].agent if asked is not None else self._reachable(parent.message.sender)
        entry = self._entry(session, agent, verb.content, verb.body, details, now)
        entry.message.lane = options.priority
        if asked is None:
            self._inboxes.check_room(agent, entry.size_bytes, now)
        else:
            self._inboxes.check_room_for_answer(agent, entry.size_bytes, now)
        kept = options.durable or options.priority is LOW or (asked is None and not agent.takers)
        if kept and not agent.unnamed:  # who waits for it has it at once; what is left behind is kept then
            self._receipts.journal.keep(entry)
        else:
            check_not_kept(options)
            self._receipts.journal.passed(entry)
        self._admit(session, entry)
        if options.ttl is not None:
            self._inboxes.expire_at(entry, now + options.ttl)
        self._accepted(session, verb.cid, entry, options)
        if (wait := told_later(options)) is not ACCEPTED and verb.cid:
            self._receipts.watch(entry, session, verb.cid, wait, now)
        if asked is None:
            self._inboxes.put(entry)
        else:
            self._inboxes.charge(entry)
            self._requests.answer(parent, entry)
        if parent.state not in ENDED:
            self._inboxes.finish(parent, now, session.name)
            self._inboxes.pump(session.agent)

    def _reachable(self, sender: str) -> Agent:
        try:
            return self._agents.get(sender)
        except NoSuchAgent as error:
            raise Absent(f"{sender} does not wait for a reply any more, and takes no mail", error.hint) from None

    def publish(self, session: Session, verb: Publish, now: float) -> None:
        """Send an event to whoever subscribes."""
        topic = check_topic(verb.topic)
        self._rates.take_for_event(session, topic, now)
        if self.draining:
            raise shutting_down()
        options = verb.options or _DEFAULTS
        check_event(options)
        details = self.details(options, now) or Details()
        details.topic = topic
        entry = self._entry(session, session.agent, verb.content, verb.body, details, now)
        kept, full = self._durables.publish(entry, now)
        self._receipts.entries[entry.message.id] = entry
        self._count(session, entry)
        self._receipts.journal.passed(entry)
        reached, refused = self._topics.publish(entry, now, kept)
        at, reached = entry.message.sent_at, reached + len(kept)
        receipt = Receipt(verb.cid, entry.message.id, ACCEPTED, at, reached=reached, refused=refused + full)
        if kept and kept[-1].position:
            self._receipts.journal.answer(kept, session if verb.cid else None, receipt)
        elif verb.cid:
            session.push(receipt)

    # On a direct lane: checked here, carried by whoever has the way.

    def prepare(self, session: Session, verb: Send, options: Options, now: float) -> Entry:
        """An entry for a live agent, not yet accepted; or the refusal of what a direct lane can't do."""
        self._rates.take(session, now)
        if self.draining:
            raise shutting_down()
        check_direct(options)
        if options.wait is not ACCEPTED and verb.cid in session.watching:
            raise BadRequest(f"Call {verb.cid} waits for its message already", "Number calls upwards from 1.")
        agent = self._by_name.get(verb.to)
        if agent is None or not agent.has_address:
            raise self._agents.unknown(verb.to, sending=False)
        if not agent.takers:
            raise choice.refusal("direct_absent", to=agent.name, lane=options.priority.value)
        details = self.details(options, now)
        entry = self._entry(session, agent, verb.content, verb.body, details, now)
        entry.message.lane = options.priority
        return entry

    def admit(self, session: Session, cid: int, entry: Entry, options: Options, now: float) -> None:
        """It is on its way, under the id it has."""
        receipts = self._receipts
        message = entry.message
        receipts.entries[message.id] = entry
        if message.id == receipts.next_id:
            receipts.next_id += 1
        self._count(session, entry)
        if cid:
            session.push(Accepted(cid, message.id, 1, message.sent_at, message.lane, Route.RELAYED))
            if options.wait is not ACCEPTED:
                receipts.watch(entry, session, cid, options.wait, now)

    # Parts of them.

    def details(self, options: Options, now: float) -> Details | None:
        """What the options mean for the message, or the refusal of what can't be had."""
        if options.wait not in _WAITABLE:
            raise BadRequest(
                f"wait={options.wait.value!r}: nobody can wait for that",
                "Wait for accepted, stored, delivered or acked.",
            )
        hops, thread = options.hops, None
        if options.re is not None:
            parent = self._receipts.entries.get(options.re)
            thread = options.re
            if parent is not None:
                above = parent.message.details
                hops = max(hops, 1 + (above.hops if above else 0))
                thread = (above.thread if above else None) or options.re
            else:
                hops = max(hops, 1)
        if hops > self._limits.max_hops:
            raise TooManyHops(
                f"This message was passed on {hops} times, more than {self._limits.max_hops}",
                "Agents are answering each other in a loop: break it, or begin a new thread without re.",
            )
        headers = options.headers
        if headers:
            size = sum(len(name) + len(value) for name, value in headers.items())
            if size > self._limits.max_headers_bytes:
                raise TooLarge(
                    f"The headers have {size} characters, more than {self._limits.max_headers_bytes}",
                    "Put large things into the body.",
                )
        offset = self._receipts.wall_offset
        due = delays.due(options, now, offset, self._limits.max_delay_s)
        if not (headers or hops or options.re is not None or options.ttl is not None or due):
            return None
        expires = None if options.ttl is None else (due or now) + offset + options.ttl
        due_at = due + offset if due else None
        return Details(headers=headers, re=options.re, thread=thread, hops=hops, expires_at=expires, due_at=due_at)

    def _entry(
        self, session: Session, agent: Agent, content: Content, body: bytes, details: Details | None, now: float
    ) -> Entry:
        receipts = self._receipts
        size = len(body) + OVERHEAD_BYTES
        if size > self._max_size_bytes:
            raise self.too_large(len(body))
        name, at = session.name, now + receipts.wall_offset
        message = Message(receipts.next_id, name, session.provenance, content, body, at, details=details)
        due = 0.0 if details is None or details.due_at is None else details.due_at - receipts.wall_offset
        return Entry(message, agent, size, ACCEPTED, ((ACCEPTED, now, name, ""),), due=due)

    def too_large(self, size_bytes: int) -> TooLarge:
        """The refusal of a body of that size."""
        return TooLarge(
            f"The body has {size_bytes} bytes, more than {self._limits.max_body_bytes}",
            "message.max_body_bytes sets the limit; put larger things into a file and send its path.",
        )

    def _admit(self, session: Session, entry: Entry) -> None:
        """From here on the message exists."""
        receipts = self._receipts
        id = entry.message.id
        receipts.next_id = id + 1
        receipts.entries[id] = entry
        self._count(session, entry)

    def _count(self, session: Session, entry: Entry) -> None:
        counts, tally = self._receipts.counts, session.tally
        body_bytes = entry.size_bytes - OVERHEAD_BYTES
        counts.accepted += 1
        counts.accepted_bytes += body_bytes
        tally.sent += 1
        tally.bytes += body_bytes

    def _accepted(self, session: Session, cid: int, entry: Entry, options: Options) -> None:
        """Its sender is told at once; of one that is kept, unless it waits for more, when the journal has it."""
        if entry.position:
            waits = told_later(options) is ACCEPTED
            self._receipts.journal.answer([entry], session if waits else None, cid, options.level)
            if waits:
                return
        if cid:
            session.accept(cid, entry.message.id, entry.message.sent_at, lane=entry.message.lane)

    def _repeated(self, session: Session, verb: Send, options: Options, key: str, now: float) -> bool:
        """Whether this sender's key was accepted before; then the answer is about that message."""
        used = self.used_key(session, verb.to, len(verb.body), key, now)
        if used is None:
            return False
        if used.body_crc != crc32c(verb.body):
            raise _other_message(key, used)
        entry = self._receipts.entries.get(used.id)
        state = UNKNOWN if entry is None else entry.state
        at = used.at + self._receipts.wall_offset
        if not verb.cid:
            return True
        wait = told_later(options)
        if entry is not None and not (entry.position or entry.is_stored):
            check_not_kept(options)
        if wait is not ACCEPTED and entry is not None and len(entry.watchers or ()) >= _MAX_WATCHERS:
            raise LimitReached(
                f"{_MAX_WATCHERS} calls wait for message {id_text(used.id)} already", "Don't wait again."
            )
        stored = entry is not None and self._receipts.journal.has(entry, options.level)
        if entry is not None and options.wait is STORED and not stored:
            self._receipts.journal.answer([entry], session, verb.cid, options.level)  # with the one before it
            return True
        note = f"repeated: this key was accepted before; that message is {state.value}"
        session.accept(verb.cid, used.id, at, note, state=STORED if stored else ACCEPTED)
        if wait is not ACCEPTED:
            if entry is None:
                session.push(Receipt(verb.cid, used.id, UNKNOWN, at, note="it ended, and how is forgotten"))
            else:
                self._receipts.watch(entry, session, verb.cid, wait, now)
        return True

    def used_key(self, session: Session, to: str, size_bytes: int, key: str, now: float) -> UsedKey | None:
        """What this sender's key was accepted for before; BadRequest if that is another message."""
        used = session.agent.keys.get(key)
        if used is None or used.at + self._agent_limits.keep_keys_s <= now:
            return None
        if (used.to, used.body_bytes) != (to, size_bytes):
            raise _other_message(key, used)
        return used

    def _remember(self, sender: Agent, key: str, entry: Entry, now: float) -> None:
        keys = sender.keys
        keys.pop(key, None)
        keys[key] = UsedKey(entry.message.id, now, entry.to, entry.body_bytes, crc32c(entry.message.body))
        oldest = now - self._agent_limits.keep_keys_s
        while len(keys) > self._agent_limits.max_keys or (keys and next(iter(keys.values())).at <= oldest):
            keys.popitem(last=False)


def _other_message(key: str, used: UsedKey) -> BadRequest:
    return BadRequest(
        f"The key {key!r} belongs to message {id_text(used.id)} to {used.to}", "Use a fresh key for each message."
    )


def is_kept(agent: Agent, options: Options, details: Details | None) -> bool:
    """Whether the journal has it first: where its sender asks for that, where it is for later, and where nobody is
    there to take it."""
    if options.durable or options.priority is LOW or not agent.takers:
        return True
    return details is not None and details.due_at is not None


def shutting_down() -> ShuttingDown:
    """The refusal of new work while the daemon stops."""
    return ShuttingDown("The daemon is stopping and takes no new work", "Try again in a moment.", retry_after=1.0)
