"""Credit and what it brought: who wants how many messages, how many the daemon may still send, which have come.

    places   what consumers could take now: one a waiting receive(), the free places of each inbox()
    granted  what the daemon may still send
    buffer   what has come and was handed to nobody

Before each write the grant is made to fit: places = granted + len(buffer). What comes beyond goes straight back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from agentd.wire.errors import BadRequest
from agentd.wire.messages import Message, Receive
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation

MAX_WINDOW = 1 << 16
_MAX_CREDIT = 1 << 20


class Mail:
    """The inbox's side of a conversation."""

    __slots__ = ("_conversation", "buffer", "granted", "late", "places", "waiters")

    def __init__(self, conversation: Conversation[Any, Any]) -> None:
        self._conversation = conversation
        self.buffer: deque[Message] = deque()
        self.places = 0
        self.late = 0  # receive() calls whose time is over and whose credit is being taken back
        self.granted = 0
        self.waiters: deque[Call] = deque()

    def arrived(self, message: Message) -> None:
        """Keep it for whoever wants it, else give it back: nothing is lost, no attempt counted."""
        if self.granted:
            self.granted -= 1
        if len(self.buffer) >= self.places + self.late:
            self._conversation.give_back([message.id])
            return
        self.buffer.append(message)
        if self.waiters:
            self.waiters.popleft().settle()

    def release(self, places: int) -> None:
        """So many consumers' places are gone: withdraw their credit, give back what came for them."""
        self.places -= places
        keep = self.places + self.late
        if len(self.buffer) > keep:
            self._conversation.give_back([self.buffer.pop().id for _ in range(len(self.buffer) - keep)][::-1])
        self._conversation.out.touch()

    def grant(self) -> Receive | None:
        """What makes the grant fit, if anything must be said."""
        change = self.places - self.granted - len(self.buffer)
        if change < -self.granted:
            change = -self.granted
        if not change:
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

    def wait(self, deadline: float | None) -> Steps[None]:
        """Until something came, something changed, or the time is over."""
        call = Call(0)
        self.waiters.append(call)
        try:
            yield call, deadline
        finally:
            if not call.settled:
                self.waiters.remove(call)
            elif self.buffer and self.waiters:  # woken for a message that another took, or that we leave
                self.waiters.popleft().settle()


class Window:
    """What one inbox() may hold. Messages point here, not at the iterator, so that leaving the loop ends it."""

    __slots__ = ("_conversation", "opened", "size", "unsettled")

    def __init__(self, conversation: Conversation[Any, Any], size: int) -> None:
        if not 1 <= size <= MAX_WINDOW:
            raise BadRequest(f"A window of {size} is not between 1 and {MAX_WINDOW}")
        self._conversation = conversation
        self.size = size
        self.unsettled = 0
        self.opened = False

    def open(self) -> None:
        """Begin to ask for mail."""
        self._conversation.check_taking()
        if not self.opened:
            self.opened = True
            self._conversation.mail.places += self.size - self.unsettled
            self._conversation.out.touch()

    def close(self) -> None:
        """Ask for no more, and give back what the application never saw."""
        if self.opened:
            self.opened = False
            self._conversation.mail.release(self.size - self.unsettled)

    def settled(self) -> None:
        """The application is done with one."""
        self.unsettled -= 1
        if self.opened:
            mail = self._conversation.mail
            mail.places += 1
            if mail.buffer and mail.waiters:
                mail.waiters.popleft().settle()

    def unsettled_again(self) -> None:
        """It is not done with that one after all."""
        self.unsettled += 1
        if self.opened:
            self._conversation.mail.release(1)

    def wait(self) -> Steps[None]:
        """Until there may be something to take. A cancelled wait closes the window; the next one opens it again."""
        self.open()
        came = False
        try:
            yield from self._conversation.mail.wait(None)
            came = True
            if not self._conversation.left:
                self._conversation.check_taking()
        finally:
            if not came:
                self.close()
