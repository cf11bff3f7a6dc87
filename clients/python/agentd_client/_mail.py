"""Credit and what it brought: who wants how many messages, how many the daemon may still send, which have come.

    places   what consumers could take now: one a waiting receive(), and the free places of each inbox()
    granted  what the daemon may still send
    buffer   what has come and was handed to nobody

Before each write the grant is made to fit: places = granted + len(buffer). What comes beyond goes straight back. While
the daemon may still send most of what there is room for, it is not told of each place that becomes free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any

from agentd.wire.choice import DIRECT_LANES
from agentd.wire.errors import BadRequest
from agentd.wire.messages import GiveBack, Message, Nack, Receive, Reject
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation
    from agentd_client.message import Received

MAX_WINDOW = 1 << 16
_MAX_CREDIT = 1 << 20
#: Of the places such a part may be free without the daemon's knowing: with the default window one verb for 16 messages.
_UNTOLD_PART = 4


def _call() -> Call:
    return Call(0)


class Mail:
    """The inbox's side of a conversation."""

    __slots__ = ("_conversation", "buffer", "granted", "late", "receiving", "waiter", "waiters", "windows")

    def __init__(self, conversation: Conversation[Any, Any]) -> None:
        self._conversation = conversation
        self.buffer: deque[Message] = deque()
        self.windows: list[Window] = []  # the open ones
        self.receiving = 0  # receive() calls that wait
        self.late = 0  # those whose time is over and whose credit is being taken back
        self.granted = 0
        self.waiters: deque[Any] = deque()  # Calls, or what the face has for them
        self.waiter: Callable[[], Any] = _call  # makes one

    def _places(self) -> int:
        places = self.receiving
        for window in self.windows:
            places += window.limit - window.unsettled
        return places

    def arrived(self, message: Message) -> None:
        """Keep it for whoever wants it, else give it back: nothing is lost, no attempt counted."""
        if self.granted:
            self.granted -= 1
            if not self.windows and not self.receiving and not self.late:  # its credit was about to be withdrawn
                self._conversation.give_back([message.id])
                return
        elif len(self.buffer) >= self._places() + self.late:
            self._conversation.give_back([message.id])
            return
        if message.lane not in DIRECT_LANES:
            self.buffer.append(message)
        else:
            self.buffer.insert(sum(other.lane in DIRECT_LANES for other in self.buffer), message)
        if self.waiters:
            self._conversation.wake_later(self.waiters.popleft())

    def next(self) -> Any:
        """What to hand over next. What expired on its way here goes back, and the daemon ends it."""
        direct = self._conversation.direct
        if direct is not None and (record := direct.take(self._conversation)) is not None:
            return record
        while self.buffer:
            message = self.buffer.popleft()
            details = message.details
            if details is None or details.expires_at is None or details.expires_at > time():
                return message
            self._conversation.give_back([message.id])
        return None

    def shrunk(self) -> None:
        """A consumer's places are gone: withdraw their credit, give back what came for them."""
        excess = len(self.buffer) - self._places() - self.late
        if excess > 0:
            self._conversation.give_back([self.buffer.pop().id for _ in range(excess)][::-1])
        self._conversation.say_grant()

    def served(self) -> None:
        """A place is gone with what it was for. Its credit, if that came another way, is withdrawn with the next write:
        the next receive() may want it."""
        if self.buffer:
            self.shrunk()
        elif self.granted:
            self._conversation.lazily()

    def grant(self) -> Receive | None:
        """What makes the grant fit, if anything must be said."""
        if self.buffer and self.waiters:  # a place became free for what is here
            self.waiters.popleft().settle()
        places = self._places()
        change = places - self.granted - len(self.buffer)
        if change < -self.granted:
            change = -self.granted
        if 0 <= change <= places // _UNTOLD_PART:
            return None
        change = max(-_MAX_CREDIT, min(change, _MAX_CREDIT))
        self.granted += change
        return Receive(0, change)

    def lost(self) -> None:
        """The connection is gone, and with it our hold on what was never handed over: the daemon sends it again."""
        self.buffer.clear()
        self.granted = 0

    def wake_all(self) -> None:
        """Have every consumer look again: the mail is no longer ours, or the conversation is over."""
        while self.waiters:
            self.waiters.popleft().settle()

    def wait(self, deadline: float | None, *, full: bool = False) -> Steps[None]:
        """Until something came, something changed, or the time is over. Who is `full` could take nothing."""
        call = self.enlist(full)
        if call is not None:
            try:
                yield call, deadline
            finally:
                self.waited(call)

    def enlist(self, full: bool) -> Any:
        """What to wait for, and then to say waited() of; None when there is something to take already."""
        direct = self._conversation.direct
        if direct is not None and not full and not direct.may_sleep():
            return None
        call = self.waiter()
        self.waiters.append(call)
        return call

    def waited(self, call: Any) -> None:
        """The wait for it is over."""
        if not call.settled:
            self.waiters.remove(call)
        elif self.buffer and self.waiters:  # woken for a message that another took, or that we leave
            self.waiters.popleft().settle()

    # How the application is done with one, other than by an ack.

    def settle(self, received: Received, verb: Nack | Reject | GiveBack) -> None:
        """Say something else than ack, once, and wait for no answer."""
        if not received.settled:
            self.settled(received, seen=type(verb) is not GiveBack)
            self._conversation.out.say(verb)

    def settled(self, received: Received, seen: bool) -> bool:
        """What is said next settles it; whether nothing had before. `seen`: it does not say `delivered` by itself."""
        if received.settled:
            return False
        received.settled = True
        if not seen:
            self._conversation.out.delivered.pop(received.wire.id, None)
        if received.window is not None:
            received.window.unsettled -= 1
        return True

    def unsettled(self, received: Received) -> None:
        """What should have settled it was refused: it is still ours."""
        received.settled = False
        if received.window is not None:
            received.window.unsettled += 1
            self.shrunk()


class Window:
    """What one inbox() may hold. Messages point here, not at the iterator, so that leaving the loop ends it."""

    __slots__ = ("_conversation", "_size", "limit", "unsettled")

    def __init__(self, conversation: Conversation[Any, Any], size: int) -> None:
        if not 1 <= size <= MAX_WINDOW:
            raise BadRequest(f"A window of {size} is not between 1 and {MAX_WINDOW}")
        self._conversation = conversation
        self._size = size
        self.unsettled = 0  # handed over, and the application is not done with them
        self.limit = 0  # `size` while open

    def open(self) -> None:
        """Begin to ask for mail."""
        self._conversation.check_taking()
        if not self.limit:
            self.limit = self._size
            self._conversation.mail.windows.append(self)
            self._conversation.out.touch()

    def freed(self) -> None:
        """One that came through shared memory is settled: there is a place for the next."""
        self.unsettled -= 1
        waiters = self._conversation.mail.waiters
        if waiters:
            waiters.popleft().settle()

    def close(self) -> None:
        """Ask for no more, and give back what the application never saw."""
        if self.limit:
            self.limit = 0
            self._conversation.mail.windows.remove(self)
            self._conversation.mail.shrunk()

    def wait(self) -> Steps[None]:
        """Until there may be something to take. A cancelled wait closes the window; the next one opens it again."""
        call = self.enlist()
        if call is None:
            return
        came = False
        try:
            yield call, None
            came = True
        finally:
            self._conversation.mail.waited(call)
            if not came:
                self.close()
        self.check()

    def enlist(self) -> Any:
        """As Mail.enlist(). Who is full waits for a place."""
        self.open()
        mail = self._conversation.mail
        full = self.unsettled >= self.limit
        return None if mail.buffer and not full else mail.enlist(full)

    def check(self) -> None:
        """After a wait that brought nothing: raise when nothing will come any more, unless that is our own wish."""
        if not self._conversation.left:
            self._conversation.check_taking()
