"""What the daemon shows of itself: one struct a view, one a row. See messages.py for the rules."""

from msgspec import Struct

from agentd.wire.bodies import Content
from agentd.wire.types import Cid, Id, Priority, Route, State


class AgentView(Struct, array_like=True):
    """One known agent."""

    name: str
    live: bool
    pid: int | None
    command: str | None
    waiting: int
    held: int
    dead: int
    bytes: int
    oldest_s: float | None
    seen_s: float  # since it was last live, 0 when it is
    trouble: str = ""
    limited: int = 0  # how often it was over its rate, lately
    refused: int = 0  # sends to it that found its inbox full, lately
    requests: int = 0  # its own that wait for a reply
    subscriptions: int = 0


class AgentsView(Struct, array_like=True, tag=90):
    """Answer to Agents: every known agent, those in trouble first."""

    cid: Cid
    agents: list[AgentView]


class MailView(Struct, array_like=True):
    """One message in an inbox, seen without taking it."""

    id: Id
    state: State
    sender: str
    content: Content
    size_bytes: int
    preview: str
    sent_at: float
    attempt: int
    holder: str = ""
    re: Id | None = None
    until: float | None = None  # held by its agent, or given to nobody, until then


class InboxView(Struct, array_like=True, tag=91):
    """Answer to Inbox: what waits or is held, and how much it is in all."""

    cid: Cid
    name: str
    total: int
    messages: list[MailView]


class Transition(Struct, array_like=True):
    """A message reached a state."""

    state: State
    at: float
    who: str
    note: str = ""


class TraceView(Struct, array_like=True, tag=92):
    """Answer to Trace: a message, and every state that it reached."""

    cid: Cid
    id: Id
    state: State
    sender: str
    to: str
    content: Content
    size_bytes: int
    lane: Priority
    route: Route
    attempt: int
    transitions: list[Transition]
    re: Id | None = None
    thread: Id | None = None
    hops: int = 0
    until: float | None = None  # held by its agent, or given to nobody, until then


class Latency(Struct, array_like=True):
    """How long something took, in seconds, of how many; all 0 when it was never measured."""

    count: int = 0
    p50_s: float = 0.0
    p90_s: float = 0.0
    p99_s: float = 0.0
    p999_s: float = 0.0
    longest_s: float = 0.0


class LaneView(Struct, array_like=True):
    """One lane: open, or why not; what it should take, and what it took."""

    lane: Priority
    open: bool
    reason: str
    cores: str = "any"  # where its threads run
    aim_s: float | None = None
    aim_of: str = ""  # which of the two the aim is for: `own_time` or `latency`
    own_time: Latency | None = None  # the daemon's own, a verb
    latency: Latency | None = None  # from acceptance to delivery
    operations: dict[str, int] | None = None  # that senders had io_uring do, by kind, as they said


class FlowView(Struct, array_like=True):
    """What went through a lane, or from and to an agent, since the daemon started; and what is there now."""

    name: str
    sent: int
    delivered: int
    acked: int
    dead: int
    expired: int
    refused: int
    bytes: int
    depth: int  # waiting and held
    oldest_s: float | None  # of those
    latency: Latency


class DiskView(Struct, array_like=True):
    """What the journal takes of the disk, and whose mail holds it: that agent has the oldest of what is kept."""

    bytes: int
    max_bytes: int
    free_bytes: int  # of the file system
    min_free_bytes: int
    full: str = ""  # why mail that has to be kept is refused, where it is
    holder: str | None = None
    holder_messages: int = 0  # that are kept for it


class StatusView(Struct, array_like=True, tag=93):
    """Answer to Status: the daemon in brief."""

    cid: Cid
    daemon: str
    pid: int
    boot: str
    up_s: float
    socket: str
    persistence: str
    agents: int
    live: int
    sessions: int
    waiting: int
    held: int
    dead: int
    draining: bool
    lanes: list[LaneView]
    disk: DiskView | None = None


class StatsView(Struct, array_like=True, tag=94):
    """Answer to Stats: counters since start, gauges now."""

    cid: Cid
    up_s: float
    accepted: int
    delivered: int
    acked: int
    expired: int
    dead: int
    refused: int
    published: int
    events: int
    missed: int
    accepted_bytes: int
    waiting: int
    held: int
    traced: int
    sessions: int
    rss_bytes: int
    cpu_s: float
    fds: int
    limited: int = 0  # how often an agent was over its rate
    turned_away: int = 0  # connections refused or ended because there were too many, or held too much
    lanes: list[FlowView] = []
    agents: list[FlowView] = []  # if they were asked for
    pid: int = 0
    registries: dict[str, dict[str, int]] = {}  # how much there is in each part of the daemon: what leaks grows here


class DeadLetter(Struct, array_like=True):
    """One dead letter."""

    id: Id
    to: str
    sender: str
    reason: str
    attempts: int
    content: Content
    size_bytes: int
    preview: str
    sent_at: float
    died_at: float


class DeadView(Struct, array_like=True, tag=95):
    """Answer to Dead: dead letters, newest first, and how many there are in all."""

    cid: Cid
    total: int
    letters: list[DeadLetter]


class NoticeRow(Struct, array_like=True):
    """Whose mail is announced."""

    sender: str
    count: int
    lane: Priority  # of the most urgent one


class NoticeView(Struct, array_like=True, tag=97):
    """Answer to Notice: how many messages were not announced before, who sent them (the most urgent first, 8 at most),
    and how many wait in all."""

    cid: Cid
    name: str
    fresh: int
    waiting: int
    senders: list[NoticeRow]


class WordView(Struct, array_like=True):
    """A word, and what is to be said of it."""

    word: str
    about: str


class CompletionView(Struct, array_like=True, tag=98):
    """Answer to Completion: 100 words at most. An id is cut to what names one message, but not below 4 letters."""

    cid: Cid
    words: list[WordView]


class HaltRow(Struct, array_like=True):
    """A live session of the agent, and what was done about it."""

    pid: int | None
    command: str
    done: str  # "asked", "SIGTERM", "SIGKILL", or why not


class HaltView(Struct, array_like=True, tag=99):
    """Answer to Halt: the sessions that were there. None: the agent is not live."""

    cid: Cid
    name: str
    sessions: list[HaltRow]


class Refusal(Struct, array_like=True):
    """What would be refused, as `error` would say it."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    retry_after: float | None = None


class ChoiceView(Struct, array_like=True, tag=100):
    """Answer to Choose: the way that a message would take now and why, or its refusal; and which row of the table of
    ways says so, if one does. `unless`: what holds now and may not any more when it is sent."""

    cid: Cid
    lane: Priority
    route: Route | None
    row: str
    reason: str
    unless: list[str] = []
    refusal: Refusal | None = None
