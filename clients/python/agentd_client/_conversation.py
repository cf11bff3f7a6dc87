"""Both faces' side of the protocol, without I/O: bytes in, bytes out, and calls that get settled in between.

A face opens a socket, says `connected()`, writes what `take()` gives and feeds what it reads; on the end it says
`lost()` and may connect again. `wake` is called when there is something to take, once until it was taken; `lazily` when
that may wait for the next write. The verbs in steps are in _verbs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from agentd.wire.bodies import encode_body
from agentd.wire.errors import (
    AgentdError,
    BadName,
    NameInUse,
    NotPermitted,
    TooLarge,
    Unreachable,
    VersionMismatch,
    from_wire,
)
from agentd.wire.frames import FrameReader
from agentd.wire.messages import (
    VERSION,
    Accepted,
    Answer,
    Bye,
    DaemonMessage,
    Error,
    GiveBack,
    Hello,
    Invitation,
    Join,
    Joined,
    LaggedEvent,
    Message,
    Priority,
    Receipt,
    Send,
    State,
    Stop,
    Subscribed,
    Welcome,
)
from agentd_client._attaching import Attaching
from agentd_client._feeds import Feeds
from agentd_client._mail import Mail, Window
from agentd_client._options import checked, make_options, told_later
from agentd_client._outbox import Outbox
from agentd_client._posts import MAX_UNANSWERED, MAX_UNANSWERED_BYTES
from agentd_client.message import Received
from agentd_client.receipt import Call, Posted

if TYPE_CHECKING:
    from typing import Unpack

    from agentd_client._options import PostOptions

CLIENT: Final = "agentd_client 1"
#: The daemon is believed: it says what its own limit is only after the reader was made.
_MAX_READ_BYTES: Final = 1 << 30
_ACCEPTED = State.ACCEPTED
_NORMAL = Priority.NORMAL
#: What an Error without a call says of the connection; any other is about a verb that wanted no answer.
_CONNECTION_CODES: Final = ("busy", "bad_request", "too_large", "internal")
#: A loop that posts or acks without a pause is written out so often, so that the daemon works beside it, not after it.
_GATHER_BYTES: Final = 16 * 1024
#: What a post has beyond its body, and what an ack is reckoned: 128 of them keep the daemon for 0.1 ms.
_POST_BYTES: Final = 64
_ACK_BYTES: Final = 128

R = TypeVar("R", bound=Received)
P = TypeVar("P", bound=Posted)


class Conversation(Attaching, Generic[R, P]):
    """One agent's conversation with the daemon, over as many connections as it takes."""

    def __init__(
        self,
        join: Join,
        face: Any,
        received: type[R],
        posted: Callable[[int], P],
        wake: Callable[[], None],
        lazily: Callable[[], None],
        hurry: Callable[[], None],
    ) -> None:
        super().__init__(hurry)
        self.name = join.name
        self.mail = Mail(self)
        self.feeds = Feeds(self)
        self.out = Outbox(wake)
        self.joining = Call(0)  # this connection's Join
        self.closed: AgentdError | None = None  # why nothing can be said any more
        self.left = False  # and that was our own wish
        self.back = Call(0)  # settled when there is a connection again, or never will be
        self.max_body_bytes = _MAX_READ_BYTES  # until Welcome says so
        self._join = checked(join)
        self._face = face
        self._received = received
        self._posted = posted
        self.lazily = lazily
        self._reader: FrameReader[Any] = FrameReader(DaemonMessage, _MAX_READ_BYTES)
        self._joined = False  # once, on whichever connection
        self._taken_over: AgentdError | None = None
        self._ending = False  # the daemon has said goodbye, or the connection is gone
        self._reason = ""

    # The connection.

    def connected(self) -> None:
        """A socket is open: greet, join, and renew the subscriptions of the last connection."""
        self._reason = ""
        self._ending = False
        join = self._join
        take = self.taking
        self.joining = self.open(Call(self.next_cid()))
        # Who reads a ring alone would not see what came on the socket before it is attached anew.
        direct = take and (join.direct or (self.direct is not None and self.direct.has_reader))
        join = Join(self.joining.cid, join.name, take, take and join.share, take and join.replace, direct)
        self.out.greet([Hello(VERSION, CLIENT), join, *self.feeds.renew()])

    @property
    def taking(self) -> bool:
        """Whether this agent's mail comes here."""
        return self._join.take and self._taken_over is None

    def take(self) -> bytes:
        """What to write next; empty when there is nothing, or no connection."""
        return self.out.take(self.mail if self._join.take and self._taken_over is None else None)

    def lost(self, reason: str = "") -> None:
        """The connection is gone. What was said on it and not answered is unknown from now on."""
        self._reason = self._reason or reason or "the daemon closed the connection"
        self._end_connection()
        self.out.lost()
        if self.closed is not None:
            self.out.close(self.closed)
        self._reader = FrameReader(DaemonMessage, _MAX_READ_BYTES)
        self.feeds.lost()
        self.mail.lost()
        self._settle_all(self.closed or self.unreachable("whether it was done is unknown"))

    def _end_connection(self) -> None:
        self._ending = True
        if self.back.settled and self.closed is None:
            self.back = Call(0)

    def unreachable(self, outcome: str = "") -> Unreachable:
        """Why nothing can be said right now."""
        about = f"; {outcome}" if outcome else ""
        return Unreachable(
            f"agentd is not reachable: {self._reason or 'not connected'}{about}",
            "Start it with `agentctl daemon start`, or see what `agentctl status` says.",
        )

    def close(self, error: AgentdError) -> None:
        """The end: every call from now on raises `error`."""
        if self.closed is None:
            self.closed = error
            if self.direct is not None:
                self.direct.close()
            self.out.close(error)
            self.mail.wake_all()
            self.feeds.close(error)
            self.back.settle()
        self._settle_all(self.closed)

    def leave(self) -> None:
        """The orderly end, from our side."""
        self.left = self.closed is None
        self.close(Unreachable("This client has left", "Connect again."))

    @property
    def ready(self) -> bool:
        """Whether what is said now goes to a daemon that knows us, or is about to."""
        joined = not self._joined or (self.joining.settled and self.joining.error is None)
        return joined and self.out.connected and not self._ending

    def say_grant(self) -> None:
        """Ask for mail, or withdraw, at once: later in the same turn the opposite may be said."""
        if self.out.connected and self.closed is None and self.taking and (grant := self.mail.grant()) is not None:
            self.out.say(grant)

    # What may be said.

    def check(self) -> None:
        """Raise when the conversation is over."""
        if self.closed is not None:
            raise self.closed.with_traceback(None)  # raised often, it must not gather frames

    def check_taking(self) -> None:
        """Raise unless this agent's mail comes here."""
        self.check()
        if self._taken_over is not None:
            raise self._taken_over.with_traceback(None)
        if not self._join.take:
            raise NotPermitted(
                f"This connection does not take the mail of {self.name or 'an anonymous agent'}",
                "Connect under a name, connect('builder'), or with take=True.",
            )

    def check_size(self, size_bytes: int) -> None:
        """TooLarge before the bytes travel, once the daemon has said its limit."""
        if size_bytes > self.max_body_bytes:
            raise TooLarge(
                f"A body of {size_bytes} bytes is over the limit of {self.max_body_bytes}",
                "Send a file's name instead of its bytes, or raise message.max_body_bytes.",
            )

    def post(self, to: str, body: object, **given: Unpack[PostOptions]) -> P:
        """Send without waiting; the ticket has the receipt. Backpressure when too many are unanswered."""
        content, data = encode_body(body)
        posts = self.posts
        size_bytes = len(data)
        unanswered_bytes = posts.unanswered_bytes + size_bytes
        if size_bytes > self.max_body_bytes:
            self.check_size(size_bytes)
        if unanswered_bytes > MAX_UNANSWERED_BYTES or posts.unanswered >= MAX_UNANSWERED:
            posts.refuse()
        if type(to) is not str:
            raise BadName(f"{to!r} is not an agent name")
        cid = self._cid = self._cid + 1
        out = self.out
        try:
            options = make_options(given) if given else None
            if options is not None and options.priority is not _NORMAL and (direct := self.direct) is not None:
                ticket = self._posted(cid)
                ticket.to = to
                if direct.post(ticket, to, content, data, options):
                    return ticket
            out.push(Send(cid, to, content, data, options))
        except UnicodeEncodeError:
            raise BadName(f"{to!a} is not an agent name") from None
        ticket = self._open[cid] = self._posted(cid)
        ticket.to = to
        ticket.size_bytes = size_bytes
        if options is not None:
            ticket.waits_for = told_later(options)
        posts.unanswered += 1
        posts.unanswered_bytes = unanswered_bytes
        out.gathered += size_bytes + _POST_BYTES
        if out.gathered > _GATHER_BYTES:
            self._hurry()
        elif not out.dirty:
            out.touch()
        return ticket

    # What the application does with a message.

    def hand_over(self, message: Any, window: Window | None) -> R:
        """The application gets this one now, so it is delivered now."""
        if type(message) is not Message:  # from a ring, where that is known already
            message.window = window
            if window is not None:
                window.unsettled += 1
            return message  # type: ignore[no-any-return]
        out = self.out
        out.delivered[message.id] = None
        if window is not None:
            window.unsettled += 1
        if not out.dirty:
            out.touch()
        return self._received(message, self._face, window)

    def show(self, event: Message) -> R:
        """The application gets this event, which nobody has to settle."""
        return self._received(event, self._face, None, True)

    def ack_answer(self, id: int) -> None:
        """The asker has its answer. Travels with the next write, or alone when none comes soon."""
        self.out.acks.append(id)
        self.lazily()

    def ack(self, received: Received) -> None:
        """Done with it. Travels with the next write; says `delivered` too where that was not said."""
        if received.settled:
            return
        if self.closed is not None:
            self.check()
        received.settled = True
        out = self.out
        id = received.wire.id
        out.delivered.pop(id, None)
        out.acks.append(id)
        window = received.window
        if window is not None:
            window.unsettled -= 1
        out.gathered += _ACK_BYTES
        if out.gathered > _GATHER_BYTES:
            self._hurry()
        elif not out.dirty:
            out.touch()

    def give_back(self, ids: list[int]) -> None:
        """The application never saw these."""
        if self.out.connected and self.closed is None:
            self.out.say(GiveBack(0, ids))

    # Input.

    def feed(self, data: bytes | memoryview, *, at_once: bool = False) -> None:
        """What the daemon said. BadRequest or TooLarge when it is not the protocol: close the connection then. With
        `at_once`, from a callback of the loop, the one who waited for this goes on before this returns."""
        try:
            self._hear(self._reader.feed(data))
        finally:
            if self._woken:
                self._wake(at_once=at_once)

    def _hear(self, messages: list[Any]) -> None:
        mail = self.mail
        for message in messages:
            kind = type(message)
            if kind is Message:
                details = message.details
                if details is None or not details.subscription:
                    # As arrived() does, and without its cost.
                    if mail.granted and mail.windows and not mail.waiters and message.lane is _NORMAL:
                        mail.granted -= 1
                        mail.buffer.append(message)
                    else:
                        mail.arrived(message)
                else:
                    self.feeds.arrived(details.subscription, message)
            elif kind is Accepted:
                self._accepted(message)
            elif kind is Receipt:
                self._receipt(message)
            elif kind is Error:
                self._error(message)
            elif kind is Answer:
                self._answer(message)
            elif kind is LaggedEvent:
                self.feeds.arrived(message.subscription, message)
            elif kind is Welcome:
                self._welcome(message)
            elif kind is Invitation:
                self.invited()
            elif kind is Stop:
                self.stop(message.by, message.reason)
            elif kind is Bye:
                self._reason = message.reason
                self._end_connection()
            else:
                self._done(message)

    def _answer(self, answer: Answer) -> None:
        call = self._open.pop(answer.cid, None)
        if call is None:  # the asker has given up: let it be mail, if it can
            self.give_back([answer.message.id])
            return
        call.answer = answer
        self._woken.append(call)

    def _done(self, message: Any) -> None:
        call = self._open.pop(message.cid, None)
        if type(message) is Subscribed:
            self.feeds.subscribed(message.cid, message.subscription, message.note)
        elif type(message) is Joined:
            self.name = message.name
            if self._joined and self.direct is not None:
                self.direct.renew()
            self._joined = True
            self.back.settle()
        if call is not None:
            call.answer = message
            call.settle()

    def _error(self, message: Error) -> None:
        error = from_wire(message.code, message.message, message.hint, message.retry_after)
        if not message.cid:
            if isinstance(error, NameInUse):
                self._displaced(error)
            elif isinstance(error, VersionMismatch):
                self.close(error)
            elif message.code in _CONNECTION_CODES:
                self._reason = message.message
            return
        self.feeds.refused(message.cid, error)
        call = self._open.pop(message.cid, None)
        if call is not None:
            call.error = error
            self._end(call)
            if call is self.joining:
                self._join_refused(error)

    def _displaced(self, error: NameInUse) -> None:
        """Another session has our name's mail."""
        self._taken_over = error
        if self.direct is not None:
            self.direct.read_no_more()
        self.mail.lost()  # what came is the other's now
        self.mail.wake_all()

    def _join_refused(self, error: AgentdError) -> None:
        """The first time the caller hears of it. Later, what can still be done is done."""
        if self._joined and isinstance(error, NameInUse):
            self._displaced(error)  # the next connection only sends
        elif not self._joined or not error.retryable:
            for call in self._open.values():
                call.error = error  # what was said behind the Join was not done
            self.close(error)

    def _welcome(self, welcome: Welcome) -> None:
        self.max_body_bytes = welcome.max_body_bytes
        if welcome.version != VERSION:
            self.close(
                VersionMismatch(
                    f"{welcome.daemon} speaks version {welcome.version} of the protocol, this client {VERSION}",
                    "Install the same version of both, then restart the daemon.",
                )
            )
