"""Agents: the named participants, who outlive their sessions."""

from __future__ import annotations

import difflib
import itertools
from collections import OrderedDict
from typing import Final, NamedTuple

from agentd.host.config import AgentLimits
from agentd.hub.deadlines import Deadline, Deadlines
from agentd.hub.rates import Bucket, Lately, TopicBuckets
from agentd.hub.receipts import Entry, Receipts, Retention
from agentd.hub.session import Session
from agentd.hub.tally import Tally
from agentd.wire.errors import LimitReached, NameInUse, NoSuchAgent, NotPermitted
from agentd.wire.names import ANONYMOUS, SUBSCRIPTION, Pattern, check_name, id_text

_MAX_SIMILAR: Final = 64
_TYPING_ERRORS: Final = 2


class UsedKey(NamedTuple):
    """An idempotency key, and the message that was accepted under it."""

    id: int
    at: float
    to: str
    body_bytes: int
    body_crc: int


class Source:
    """What fills the inbox of a durable subscription: the events of one pattern. The gap of those that found no room is
    one number, told no later than at the place of the first of them."""

    __slots__ = ("expression", "is_filling", "is_noted", "missed", "missed_after", "pattern", "stays_paused")

    def __init__(self, pattern: str, missed: int = 0, *, is_filling: bool = False) -> None:
        self.is_filling = is_filling  # it is given what is on record, before anybody takes from it
        self.stays_paused = False  # somebody paused it meanwhile
        self.pattern = pattern  # empty: the record of it is damaged, and who subscribes next knows it
        self.expression = Pattern(pattern) if pattern else None
        self.missed = missed  # -1: nobody knows how many
        self.missed_after = 0  # the last message before the first of these
        self.is_noted = False  # the journal says, behind the latest checkpoint, that nobody knows how many

    def matches(self, topic: str) -> bool:
        """Whether an event on this topic is for it. The daemon's own facts never are."""
        return self.expression is not None and self.expression.matches(topic)


class Agent:
    """A named participant and its inbox; or a durable subscription, whose inbox its `source` fills and whose takers are
    subscribers' cursors (durable.py). Live while a session takes its mail.

    Invariants: `count` and `bytes` are those of `waiting`, `delayed` and everything held; `waiting` is in order of ids.
    """

    __slots__ = (
        "announced",
        "bucket",
        "bytes",
        "count",
        "dead",
        "dead_bytes",
        "dead_dropped",
        "delayed",
        "detached",
        "ended",
        "forgetting",
        "has_address",
        "keys",
        "limited",
        "name",
        "paused",
        "refused",
        "requests",
        "seen",
        "sessions",
        "source",
        "takers",
        "tally",
        "topic_buckets",
        "unannounced",
        "unnamed",
        "waiting",
    )

    def __init__(
        self, name: str, now: float, ended: Retention, *, unnamed: bool = False, source: Source | None = None
    ) -> None:
        self.name = name
        self.unnamed = unnamed
        self.source = source
        self.has_address = not unnamed and source is None  # others can send to it by its name
        self.paused = False  # it is given nothing until somebody resumes it
        self.seen = now  # when it was last live, or last had mail
        self.sessions: list[Session] = []
        self.takers: list[Session] = []  # the sessions that take its mail; several only if all share
        self.waiting: OrderedDict[int, Entry] = OrderedDict()
        self.delayed: dict[int, Entry] = {}  # nacked with a delay that has not passed
        self.detached: dict[int, Entry] = {}  # held for the agent, by no session (`--hold`)
        self.count = 0
        self.bytes = 0
        self.requests: dict[int, Entry] = {}  # addressed to it, their askers still waiting
        self.dead: OrderedDict[int, Entry] = OrderedDict()
        self.dead_bytes = 0
        self.dead_dropped = 0
        self.refused = Lately()  # sends to it, because its inbox was full
        self.limited = Lately()  # its own calls, because it was over its rate
        self.bucket: Bucket | None = None  # from its first session on
        self.topic_buckets: TopicBuckets | None = None  # from its first event on
        self.keys: OrderedDict[str, UsedKey] = OrderedDict()  # idempotency keys it used, as a sender
        self.announced = 0  # the highest id that `agentctl inbox --notice` has passed
        self.unannounced: set[int] = set()  # those below it that it has still to announce
        self.tally = Tally()
        self.ended = ended
        self.forgetting: Deadline | None = None  # when somebody looks whether it can be forgotten

    @property
    def live(self) -> bool:
        """Whether somebody takes its mail now."""
        return bool(self.takers)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not (self.sessions or self.takers or self.count or self.dead)

    @property
    def held_count(self) -> int:
        """How much was handed out and not settled."""
        return self.count - len(self.waiting) - len(self.delayed)

    def requests_under_way(self) -> int:
        """How many of its own still wait for a reply."""
        if len(self.sessions) == 1:  # the common case
            return len(self.sessions[0].asking)
        return sum(len(session.asking) for session in self.sessions)

    def subscriptions(self) -> int:
        """How many its sessions have."""
        return sum(len(session.subscriptions) + len(session.cursors) for session in self.sessions)

    def unfinished(self) -> list[Entry]:
        """All that is waiting, delayed or held, in no order."""
        return [*self.waiting.values(), *self.delayed.values(), *self.held()]

    def held(self) -> list[Entry]:
        """What was handed out and not finished."""
        sessions = self.sessions if self.source is None else self.takers  # who takes no mail may hold an answer
        return [entry for session in sessions for entry in session.held.values()] + list(self.detached.values())


class Agents:
    """The registry of names."""

    def __init__(self, limits: AgentLimits, deadlines: Deadlines, receipts: Receipts) -> None:
        self._limits = limits
        self._deadlines = deadlines
        self._receipts = receipts
        self.by_name: dict[str, Agent] = {}
        self.named = 0  # how many of them have a name of their own
        self._anonymous = 0

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {
            "known": len(self.by_name),
            "named": self.named,
            "live": sum(agent.live for agent in self.by_name.values()),
        }

    def get(self, name: str) -> Agent:
        """The agent of that name, or NoSuchAgent with the nearest one."""
        agent = self.by_name.get(name)
        if agent is None or agent.unnamed:
            raise self.unknown(name, sending=False)
        return agent

    def unknown(self, name: str, *, sending: bool = True) -> NoSuchAgent:
        """The error for a name that nobody bears."""
        if name.startswith(ANONYMOUS):
            return NoSuchAgent(
                f"{name} has no name of its own, so no mail can reach it",
                "It can only be answered while it waits for a reply.",
            )
        check_name(name)
        near = difflib.get_close_matches(name, self._similar(name), 1)
        did_you_mean = f"Did you mean {near[0]}? " if near else ""
        keep = "; --allow-absent keeps mail for a new one" if sending else ""
        return NoSuchAgent(f"No agent {name} is known", f"{did_you_mean}`agentctl agents` lists them{keep}.")

    def _similar(self, name: str) -> list[str]:
        """A few names worth comparing: comparing all of thousands would hold up everybody for a typing error."""
        first, length = name[:1], len(name)
        similar = (
            known
            for known, agent in self.by_name.items()
            if not agent.unnamed and abs(len(known) - length) <= _TYPING_ERRORS and known[:1] == first
        )
        return list(itertools.islice(similar, _MAX_SIMILAR))

    def get_or_create(self, name: str, now: float, *, limited: bool = True) -> Agent:
        """The agent of that name, known from now on. What was kept is not `limited`: a lower limit loses no mail."""
        agent = self.by_name.get(name)
        if agent is not None and agent.has_address:
            return agent
        self.check_new(name, limited=limited)
        agent = self.by_name[name] = Agent(name, now, Retention())
        self.named += 1
        self._receipts.journal.named(name, now)
        return agent

    def create_durable(self, name: str, source: Source, now: float, *, limited: bool = True) -> Agent:
        """A durable subscription, known until somebody ends it. Its name is sub:NAME."""
        check_name(name.removeprefix(SUBSCRIPTION))
        self._check_room(limited=limited)
        agent = self.by_name[name] = Agent(name, now, Retention(), source=source)
        self.named += 1
        self._receipts.journal.durable(agent)
        return agent

    def check_new(self, name: str, *, limited: bool = True) -> None:
        """Whether a name that is not known may be from now on."""
        check_name(name)  # also refuses the name of an agent that has none of its own
        self._check_room(limited=limited)

    def _check_room(self, *, limited: bool) -> None:
        if limited and self.named >= self._limits.max_names:
            raise LimitReached(
                f"{self.named} names are known, the most there may be",
                "`agentctl agents forget NAME` makes room; agents.max_names sets the limit.",
            )

    def create_anonymous(self, now: float) -> Agent:
        """A fresh agent without a name of its own, forgotten when its session ends."""
        self._anonymous += 1
        name = ANONYMOUS + id_text(self._anonymous).rstrip("a")
        agent = self.by_name[name] = Agent(name, now, self._receipts.unnamed, unnamed=True)
        return agent

    def check_taker(self, agent: Agent, *, share: bool, replace: bool) -> None:
        """Whether one more session may take this agent's mail, else NameInUse."""
        if not agent.takers or replace or (share and all(taker.shares for taker in agent.takers)):
            return
        taker = agent.takers[0]
        raise NameInUse(
            f"{agent.name}'s mail is taken by pid {taker.pid} ({taker.command or 'unknown command'})",
            "--replace takes over; several can share a name only if all of them join with share.",
        )

    def watch_idle(self, agent: Agent, now: float) -> None:
        """Forget the agent in due time: at once without a name, else when long unused and without mail; a durable
        subscription never."""
        if agent.unnamed:
            if not agent.sessions:
                self.remove(agent)
        elif agent.forgetting is None and agent.source is None:
            self._look_at(agent, now + self._limits.forget_after_s)

    def _look_at(self, agent: Agent, at: float) -> None:
        agent.forgetting = self._deadlines.add(at, lambda now: self._look(agent, now))

    def _look(self, agent: Agent, now: float) -> None:
        agent.forgetting = None
        if agent.sessions:
            return  # its last one will see to it when it leaves
        due = agent.seen + self._limits.forget_after_s
        if due <= now and agent.idle:
            self.remove(agent)
        else:
            self._look_at(agent, due if due > now else now + self._limits.forget_after_s)

    def forget(self, name: str) -> None:
        """Forget a name at its user's wish."""
        agent = self.get(name)
        if agent.source is not None:
            raise NotPermitted(
                f"{name} is a durable subscription",
                f"`agentctl unsubscribe {name.removeprefix(SUBSCRIPTION)}` ends it.",
            )
        if not agent.idle:
            what = "is live" if agent.sessions else f"has {agent.count} messages and {len(agent.dead)} dead letters"
            raise NotPermitted(f"{name} {what}", "Only a name that is neither live nor has mail can be forgotten.")
        self.remove(agent)

    def remove(self, agent: Agent) -> None:
        """Nothing of it is left."""
        del self.by_name[agent.name]
        if not agent.unnamed:
            self.named -= 1
            self._receipts.forget(agent.ended)
            self._receipts.journal.forgotten(agent.name)
            if agent.forgetting is not None:
                agent.forgetting.cancel()
