"""Everything that is said between a client and the daemon: one struct a verb, one verb a thing.

On the binary face a message is the msgpack array [tag, field, ...]; on the JSON face an object with the same fields by
name (ndjson.py). Fields may be added at the end with a default; tags and the order of fields are never changed or
used again. `cid` is the client's own number for a call: the answer carries it back. 0 means no answer is wanted.
Times are seconds since 1970; `_s` and `timeout` are seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from agentd.wire.bodies import Content

VERSION: Final = 1

#: A message id: a number here, 13 letters wherever people or JSON see it (names.id_text).
Id = Annotated[int, Meta(ge=0, extra={"id": True})]
Cid = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86400)]


class Priority(StrEnum):
    """How soon: it chooses the lane of the same name."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BATCH = "batch"


class State(StrEnum):
    """Where a message stands. It is in exactly one; `unknown` is what nobody can know any more."""

    ACCEPTED = "accepted"
    STORED = "stored"
    DELIVERED = "delivered"
    ACKED = "acked"
    EXPIRED = "expired"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Route(StrEnum):
    """Which way a message went."""

    DIRECT = "direct"
    RELAYED = "relayed"
    SOCKET = "socket"
    JOURNAL = "journal"


class Options(Struct, array_like=True, gc=False):
    """What a sender may ask beyond recipient and body."""

    priority: Priority = Priority.NORMAL
    durable: bool | None = None
    ttl: Seconds | None = None
    wait: State = State.ACCEPTED
    allow_absent: bool = False
    key: Annotated[str, Meta(max_length=255)] | None = None  # idempotency: the same key is accepted once
    headers: dict[str, str] | None = None
    re: Id | None = None  # the message that this one is about
    hops: Annotated[int, Meta(ge=0, le=1 << 16)] = 0  # how often what led to this was passed on already
    route: Route | None = None  # demanded, else lane_unavailable


# Client to daemon. Join and leave.


class Hello(Struct, array_like=True, tag=1):
    """First on every connection: who speaks which version."""

    version: int
    client: str
    capabilities: list[str] = []


class Join(Struct, array_like=True, tag=2):
    """Become a session of agent `name`, or of a fresh anonymous one. Only with `take` is its mail ours."""

    cid: Cid
    name: str | None = None
    take: bool = False
    share: bool = False
    replace: bool = False


class Leave(Struct, array_like=True, tag=3):
    """An orderly end: what this session holds goes back."""

    cid: Cid


# Talk.


class Send(Struct, array_like=True, tag=10, gc=False):
    """One message to one agent. Answered by Accepted, and by Receipt once `options.wait` is reached."""

    cid: Cid
    to: str
    content: Content
    body: bytes
    options: Options | None = None


class Request(Struct, array_like=True, tag=11, gc=False):
    """A message that wants a reply. Answered by Answer, or by Error when none can come any more."""

    cid: Cid
    to: str
    content: Content
    body: bytes
    timeout: Annotated[float, Meta(gt=0, le=366 * 86400)]
    options: Options | None = None


class Reply(Struct, array_like=True, tag=12, gc=False):
    """Answer message `id` and ack it. To a request that still waits, else to the sender's inbox. Answered by Accepted."""

    cid: Cid
    id: Id
    content: Content
    body: bytes
    options: Options | None = None


class Publish(Struct, array_like=True, tag=13, gc=False):
    """An event to whoever subscribes to the topic now. Answered by Receipt with `reached` and `refused`."""

    cid: Cid
    topic: str
    content: Content
    body: bytes
    options: Options | None = None


class Subscribe(Struct, array_like=True, tag=14):
    """Events whose topic matches. `start` other than "new", and `name`, need the journal."""

    cid: Cid
    pattern: str
    start: str = "new"
    name: str | None = None


class Unsubscribe(Struct, array_like=True, tag=15):
    """End a subscription."""

    cid: Cid
    subscription: int


class Receive(Struct, array_like=True, tag=20, gc=False):
    """Send up to `credit` messages more; a negative credit takes that much back, answered by Done."""

    cid: Cid
    credit: Annotated[int, Meta(ge=-(1 << 20), le=1 << 20)]


class Delivered(Struct, array_like=True, tag=21, gc=False):
    """These were taken by the receiving library for its application. Never answered."""

    ids: list[Id]
    subscription: int = 0


class Ack(Struct, array_like=True, tag=22, gc=False):
    """Done with these. Says `delivered` too where that was not said."""

    cid: Cid
    ids: list[Id]


class Nack(Struct, array_like=True, tag=23):
    """Could not do it now: try again, at the earliest in `after_s`."""

    cid: Cid
    id: Id
    reason: str = ""
    after_s: Seconds = 0.0


class Reject(Struct, array_like=True, tag=24):
    """Will never do it: dead letter now."""

    cid: Cid
    id: Id
    reason: str = ""


class GiveBack(Struct, array_like=True, tag=25):
    """Not wanted after all: back to the front of the inbox, no attempt counted."""

    cid: Cid
    ids: list[Id]


class Working(Struct, array_like=True, tag=26):
    """Still at it. With `hold_s` the message stays held that long even when this session ends."""

    cid: Cid
    id: Id
    hold_s: Seconds | None = None


# See and care.


class Find(Struct, array_like=True, tag=30):
    """The one message whose id begins with these letters. Answered by Found."""

    cid: Cid
    prefix: str


class Inbox(Struct, array_like=True, tag=31):
    """Look at an agent's waiting and held messages; takes nothing. Answered by InboxView."""

    cid: Cid
    name: str
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Trace(Struct, array_like=True, tag=32):
    """What happened to a message. Answered by TraceView."""

    cid: Cid
    id: Id


class Agents(Struct, array_like=True, tag=33):
    """Every known agent, those in trouble first. Answered by AgentsView."""

    cid: Cid


class Status(Struct, array_like=True, tag=34):
    """The daemon in brief. Answered by StatusView."""

    cid: Cid


class Stats(Struct, array_like=True, tag=35):
    """Counters since start. Answered by StatsView."""

    cid: Cid


class Dead(Struct, array_like=True, tag=36):
    """Dead letters, of one agent or of all, newest first. Answered by DeadView."""

    cid: Cid
    name: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Requeue(Struct, array_like=True, tag=37):
    """Put dead letters back into their inboxes, attempts counted anew. Answered by Done."""

    cid: Cid
    ids: list[Id]


class Drop(Struct, array_like=True, tag=38):
    """Give dead letters up for good. Answered by Done."""

    cid: Cid
    ids: list[Id]


class Forget(Struct, array_like=True, tag=39):
    """Forget a known name that is not live and has no mail. Answered by Done."""

    cid: Cid
    name: str


class Chunk(Struct, array_like=True, tag=40, gc=False):
    """A piece of a message too large for one frame, either way. The pieces of one `stream`, `size_bytes` in all, are
    the message's own encoding; other messages may travel between them."""

    stream: int
    size_bytes: Annotated[int, Meta(ge=0)]
    data: bytes


# Daemon to client. Answers.


class Welcome(Struct, array_like=True, tag=60):
    """Answer to Hello. `boot` differs after each start of the daemon."""

    version: int
    daemon: str
    capabilities: list[str]
    boot: str
    max_body_bytes: int


class Joined(Struct, array_like=True, tag=61):
    """Answer to Join: the name this session speaks as."""

    cid: Cid
    name: str


class Done(Struct, array_like=True, tag=62):
    """It is done, and there is nothing more to say than how many it touched."""

    cid: Cid
    count: int = 0


class Error(Struct, array_like=True, tag=63):
    """A refusal (wire/errors.py). With cid 0 it concerns the session, not a call."""

    cid: Cid
    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    retry_after: float | None = None


class Accepted(Struct, array_like=True, tag=64, gc=False):
    """`count` calls from `cid` on were accepted under as many ids from `id` on."""

    cid: Cid
    id: Id
    count: int
    at: float
    lane: Priority = Priority.NORMAL
    route: Route = Route.SOCKET
    note: str = ""


class Receipt(Struct, array_like=True, tag=65, gc=False):
    """The state a message has reached, to a sender that waits for it."""

    cid: Cid
    id: Id
    state: State
    at: float
    lane: Priority = Priority.NORMAL
    route: Route = Route.SOCKET
    note: str = ""
    reached: int | None = None  # publish: how many subscriptions have it
    refused: list[str] = []  # publish: agents whose subscription was full


class Subscribed(Struct, array_like=True, tag=66):
    """Answer to Subscribe."""

    cid: Cid
    subscription: int


class Found(Struct, array_like=True, tag=67):
    """Answer to Find."""

    cid: Cid
    id: Id


# Daemon to client. What arrives by itself.


class Details(Struct, array_like=True, gc=False):
    """What most messages do without."""

    topic: str | None = None
    subscription: int = 0
    headers: dict[str, str] | None = None
    re: Id | None = None
    thread: Id | None = None
    hops: int = 0
    reply_by: float | None = None  # a request: the asker waits until then
    expires_at: float | None = None


class Message(Struct, array_like=True, tag=80, gc=False):
    """A message as its receiver gets it."""

    id: Id
    sender: str
    provenance: str  # what the kernel says of the sender: "uid 1000 pid 4711 (aider)"
    content: Content
    body: bytes
    sent_at: float
    attempt: int = 1
    lane: Priority = Priority.NORMAL
    details: Details | None = None


class Answer(Struct, array_like=True, tag=81, gc=False):
    """The reply to a Request."""

    cid: Cid
    message: Message


class LaggedEvent(Struct, array_like=True, tag=82):
    """A subscription has a gap: so many events were not kept for it."""

    subscription: int
    missed: int


class Bye(Struct, array_like=True, tag=83):
    """The daemon ends this connection in an orderly way."""

    reason: str


# Daemon to client. Views, one struct a row.


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


class AgentsView(Struct, array_like=True, tag=90):
    """Answer to Agents."""

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


class InboxView(Struct, array_like=True, tag=91):
    """Answer to Inbox."""

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
    """Answer to Trace."""

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


class LaneView(Struct, array_like=True):
    """One lane: open, or why not."""

    lane: Priority
    open: bool
    reason: str


class StatusView(Struct, array_like=True, tag=93):
    """Answer to Status."""

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
    """Answer to Dead."""

    cid: Cid
    total: int
    letters: list[DeadLetter]


ClientMessage = (
    Hello | Join | Leave
    | Send | Request | Reply | Publish | Subscribe | Unsubscribe
    | Receive | Delivered | Ack | Nack | Reject | GiveBack | Working
    | Find | Inbox | Trace | Agents | Status | Stats | Dead | Requeue | Drop | Forget
    | Chunk
)  # fmt: skip

DaemonMessage = (
    Welcome | Joined | Done | Error | Accepted | Receipt | Subscribed | Found
    | Message | Answer | LaggedEvent | Bye
    | AgentsView | InboxView | TraceView | StatusView | StatsView | DeadView
    | Chunk
)  # fmt: skip
