"""What the daemon says to a client: answers to calls, and what arrives by itself. See messages.py for the rules."""

from typing import Annotated

from msgspec import Meta, Struct

from agentd.wire.bodies import Content
from agentd.wire.types import Cid, Id, Priority, Route, State


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
    """`count` calls from `cid` on were accepted under as many ids from `id` on. `state` is that of all of them then:
    accepted, or stored where the journal has them."""

    cid: Cid
    id: Id
    count: int
    at: float
    lane: Priority = Priority.NORMAL
    route: Route = Route.SOCKET
    note: str = ""
    state: State = State.ACCEPTED


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
    note: str = ""  # what of it was passed over, and why


class Found(Struct, array_like=True, tag=67):
    """Answer to Find."""

    cid: Cid
    id: Id


class Attachment(Struct, array_like=True, tag=68):
    """Answer to Attach: good once, for a few seconds, from this process, as the first packet on that socket."""

    cid: Cid
    token: bytes
    socket: str


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
    due_at: float | None = None  # its sender wanted nobody to be given it before
    event: Id | None = None  # in a durable subscription: the event that this is a copy of


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
    missed: int  # -1: nobody knows how many


class Bye(Struct, array_like=True, tag=83):
    """The daemon ends this connection in an orderly way."""

    reason: str


class Invitation(Struct, array_like=True, tag=84):
    """Somebody wants to reach this session directly: attach, if you can (Join.direct)."""

    lane: Priority


class Stop(Struct, array_like=True, tag=85):
    """Somebody asks this session to end its work."""

    by: str
    reason: str = ""


class Chunk(Struct, array_like=True, tag=40, gc=False):
    """A piece of a message too large for one frame, either way. The pieces of one `stream`, `size_bytes` in all, are
    the message's own encoding; other messages may travel between them."""

    stream: int
    size_bytes: Annotated[int, Meta(ge=0)]
    data: bytes
