"""What a client says to the daemon: one struct a verb. See messages.py for the rules."""

from typing import Annotated

from msgspec import Meta, Struct

from agentd.wire.bodies import Content
from agentd.wire.types import Cid, Id, Ids, Kind, Level, Moment, Priority, Route, Seconds, State, Step, Word


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
    delay: Seconds | None = None  # nobody is given it before so long; ttl counts from then
    at: Moment | None = None  # or before that time
    level: Level | None = None  # when it is called stored, else as journal.level says


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
    direct: bool = False  # it can be invited to the direct lanes


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
    """Answer message `id` and ack it: to its asker if it waits, else to its sender's inbox. Answered by Accepted."""

    cid: Cid
    id: Id
    content: Content
    body: bytes
    options: Options | None = None


class Publish(Struct, array_like=True, tag=13, gc=False):
    """An event to whoever subscribes to the topic. Answered by Receipt with `reached` and `refused`; where a durable
    subscription has it, once the journal has."""

    cid: Cid
    topic: str
    content: Content
    body: bytes
    options: Options | None = None


class Subscribe(Struct, array_like=True, tag=14):
    """Events whose topic matches. With `name` the durable subscription of that name is made, or gone on with: its
    events wait for whoever subscribes under it; each goes to one of them, who settles it as mail."""

    cid: Cid
    pattern: str
    start: str = "new"  # of a durable one that is made by this: new, all, an age such as -5m, or the id of an event
    name: str | None = None
    window: Annotated[int, Meta(ge=0, le=1 << 20)] = 0  # of a durable one: so many unsettled; 0: topics.max_events


class Unsubscribe(Struct, array_like=True, tag=15):
    """End a subscription. With `name` the durable one of that name ends for good, with all that waits for it."""

    cid: Cid
    subscription: int
    name: str | None = None


class Receive(Struct, array_like=True, tag=20, gc=False):
    """Send up to `credit` messages more; a negative credit takes that much back, answered by Done."""

    cid: Cid
    credit: Annotated[int, Meta(ge=-(1 << 20), le=1 << 20)]


class Delivered(Struct, array_like=True, tag=21, gc=False):
    """These were taken by the receiving library for its application. Never answered."""

    ids: Ids
    subscription: int = 0


class Ack(Struct, array_like=True, tag=22, gc=False):
    """Done with these. Says `delivered` too where that was not said."""

    cid: Cid
    ids: Ids


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
    ids: Ids


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
    """Counters since start, with a row for each agent if it is asked for. Answered by StatsView."""

    cid: Cid
    agents: bool = False


class Dead(Struct, array_like=True, tag=36):
    """Dead letters, of one agent or of all, newest first. Answered by DeadView."""

    cid: Cid
    name: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Requeue(Struct, array_like=True, tag=37):
    """Put dead letters back into their inboxes, attempts counted anew. Answered by Done."""

    cid: Cid
    ids: Ids


class Drop(Struct, array_like=True, tag=38):
    """Give dead letters up for good. Answered by Done."""

    cid: Cid
    ids: Ids


class Forget(Struct, array_like=True, tag=39):
    """Forget a known name that is not live and has no mail. Answered by Done."""

    cid: Cid
    name: str


class Notice(Struct, array_like=True, tag=45):
    """Announce the mail that waits for agent `name`, each message in one answer only. Answered by NoticeView."""

    cid: Cid
    name: str
    by: float | None = (
        None  # an answer later than that is read by nobody: then nothing is announced, and it is a timeout
    )


class Completion(Struct, array_like=True, tag=46):
    """Words that begin with `prefix` and can stand where a command line has a word of this kind; of messages, those of
    agent `name`. Answered by CompletionView."""

    cid: Cid
    kind: Word
    prefix: Annotated[str, Meta(max_length=255)] = ""
    name: str | None = None


class Choose(Struct, array_like=True, tag=47):
    """Which way a message would take now, and why: nothing is sent. Answered by ChoiceView."""

    cid: Cid
    to: str  # an event's topic
    size_bytes: Annotated[int, Meta(ge=0)]  # of its body
    kind: Kind = Kind.SEND
    options: Options | None = None
    attached: bool = False  # the sender has shared memory, or will have when it sends


# The direct lanes, and the end.


class Attach(Struct, array_like=True, tag=50):
    """A token for the grants socket (wire/grants.py). Answered by Attachment."""

    cid: Cid


class Halt(Struct, array_like=True, tag=51):
    """Stop agent `name`: ask each of its sessions, or signal their processes. Answered by HaltView."""

    cid: Cid
    name: str
    step: Step = Step.ASK
    reason: Annotated[str, Meta(max_length=255)] = ""


class Pause(Struct, array_like=True, tag=52):
    """From now on agent `name` is given nothing, or is again. Answered by Done."""

    cid: Cid
    name: str
    on: bool = True
