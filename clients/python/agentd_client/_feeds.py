"""Subscriptions: what each asked for, and the events that came and were not handed over yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from agentd.wire.errors import AgentdError, BadRequest, Lagged, ShuttingDown
from agentd.wire.messages import GiveBack, LaggedEvent, Message, Nack, Subscribe, Unsubscribe
from agentd.wire.names import check_pattern
from agentd_client._mail import MAX_WINDOW
from agentd_client._options import checked
from agentd_client.message import Received, failure
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation

#: In LaggedEvent.missed: nobody knows how many.
UNCOUNTED = -1


class Feed:
    """A subscription's side of a conversation. It outlives connections."""

    __slots__ = (
        "_buffer",
        "_conversation",
        "_interrupted",
        "_last",
        "_waiters",
        "delivered",
        "error",
        "name",
        "note",
        "number",
        "opened",
        "pattern",
        "start",
        "window",
    )

    def __init__(
        self, conversation: Conversation[Any, Any], pattern: str, start: str, name: str | None, window: int = 1
    ) -> None:
        if not 1 <= window <= MAX_WINDOW:
            raise BadRequest(f"A window of {window} is not between 1 and {MAX_WINDOW}")
        self._conversation = conversation
        self.pattern = check_pattern(pattern)
        self.start = start
        self.name = name  # of a durable one, whose events are settled like mail
        self.window = 0 if name is None else window
        self.note: str | None = None  # None: the daemon has not answered yet
        self._last: Received | None = None  # of a durable one: what the application is at
        self.opened = False
        self.number = 0  # the daemon's, 0 while there is none
        self.error: AgentdError | None = None
        self.delivered: list[int] = []
        self._interrupted = False
        self._buffer: deque[Message | LaggedEvent] = deque()
        self._waiters: deque[Call] = deque()
        checked(self.subscribe(0))

    def subscribe(self, cid: int) -> Subscribe:
        """What asks for it."""
        return Subscribe(cid, self.pattern, self.start, self.name, self.window)

    def arrived(self, event: Message | LaggedEvent) -> None:
        """Keep an event, or the place of a gap, for the application."""
        self._buffer.append(event)
        self._wake()

    def lost(self) -> None:
        """The connection is gone: what is published from now until we are subscribed again passes us by. For a durable
        one it waits, and what was never handed over is sent again."""
        self.number = 0
        self.delivered.clear()
        if self.name is None:
            self._interrupted = True
        else:
            self._buffer = deque(event for event in self._buffer if isinstance(event, LaggedEvent))

    def subscribed(self, number: int, note: str) -> None:
        """The daemon has it. Only now is the gap over that an application is told of."""
        self.number = number
        if self.note is None:  # a later connection goes on with it anyway
            self.note = note
        if self._interrupted:
            self._interrupted = False
            self.arrived(LaggedEvent(number, UNCOUNTED))

    def failed(self, error: AgentdError) -> None:
        """There will be no more events, for this reason."""
        self.error = error
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            self._waiters.popleft().settle()

    def take(self) -> Message | None:
        """The next event; Lagged at the place of a gap; None when there is nothing yet."""
        if not self._buffer:
            if self.error is not None and not self._conversation.left:
                raise self.error.with_traceback(None)
            return None
        event = self._buffer.popleft()
        if isinstance(event, LaggedEvent):
            if event.missed == UNCOUNTED:
                why = "the connection was lost" if self.name is None else "the daemon was killed while it had no room"
                raise Lagged(
                    f"The subscription to {self.pattern} was interrupted: {why}",
                    "Events in between were not kept for it, nobody knows how many. It goes on from here.",
                )
            why = "It was read too slowly" if self.name is None else "There was no room for them"
            raise Lagged(
                f"The subscription to {self.pattern} missed {event.missed} events",
                f"{why}. It goes on from here.",
                missed=event.missed,
            )
        if self.name is None and event.details is not None and event.details.subscription == self.number:
            self.delivered.append(event.id)
            if len(self.delivered) == 1:
                self._conversation.out.delivering.append(self)
            self._conversation.out.touch()
        return event

    def hand_over(self, event: Message) -> Any:
        """The application gets this one now."""
        if self.name is None:
            return self._conversation.show(event)
        self._last = self._conversation.hand_over(event, None)
        return self._last

    def settle_last(self, kind: type[BaseException] | None = None, error: BaseException | None = None) -> None:
        """The application is done with what it was handed last, unless it settled that by itself; or it left with an
        error, and it comes again."""
        last, self._last = self._last, None
        if last is None or last.settled or self._conversation.closed is not None:
            return
        if kind is None:
            self._conversation.ack(last)
            return
        id = last.wire.id
        failed = issubclass(kind, Exception)
        self._conversation.mail.settle(last, Nack(0, id, failure(error)) if failed else GiveBack(0, [id]))

    def wait(self) -> Steps[None]:
        """Until there may be something to take."""
        self._conversation.check()
        if self._buffer:
            return  # it came since the caller looked
        call = Call(0)
        self._waiters.append(call)
        try:
            yield call, None
        finally:
            if not call.settled:
                self._waiters.remove(call)

    def close(self) -> None:
        """End it. What is on its way is ignored."""
        if self.opened:
            self.opened = False
            self._conversation.feeds.end(self)


class Feeds:
    """All subscriptions of a conversation."""

    __slots__ = ("_asked", "_conversation", "_numbered", "_renewing")

    def __init__(self, conversation: Conversation[Any, Any]) -> None:
        self._conversation = conversation
        self._numbered: dict[int, Feed] = {}
        self._asked: dict[int, Feed] = {}  # by the cid of its Subscribe
        self._renewing: list[Feed] = []  # when there is a connection again

    def subscribe(self, feed: Feed) -> Call:
        """Ask for it."""
        call = self._ask(feed)
        feed.opened = True
        self._conversation.out.say(feed.subscribe(call.cid))
        return call

    def renew(self) -> list[Subscribe]:
        """What asks for all of the last connection again."""
        renewing, self._renewing = self._renewing, []
        return [feed.subscribe(self._ask(feed).cid) for feed in renewing]

    def _ask(self, feed: Feed) -> Call:
        call = self._conversation.open(Call(self._conversation.next_cid()))
        self._asked[call.cid] = feed
        return call

    def subscribed(self, cid: int, number: int, note: str) -> None:
        """The daemon has one, under its own number."""
        feed = self._asked.pop(cid, None)
        if feed is not None:
            feed.subscribed(number, note)
            self._numbered[number] = feed
            if not feed.opened:  # ended meanwhile
                self.end(feed)

    def refused(self, cid: int, error: AgentdError) -> None:
        """A call was refused; perhaps it asked for a subscription. One that was there before is asked for again by the
        next connection, where a daemon that stops ends this one."""
        if (feed := self._asked.pop(cid, None)) is None:
            return
        if isinstance(error, ShuttingDown) and feed.note is not None and feed.opened:
            self._renewing.append(feed)
        else:
            feed.failed(error)

    def arrived(self, number: int, event: Message | LaggedEvent) -> None:
        """An event, or a gap, of the subscription of that number."""
        if (feed := self._numbered.get(number)) is not None:
            feed.arrived(event)

    def end(self, feed: Feed) -> None:
        """It is wanted no more. One that is only asked for yet is ended when it is there."""
        if feed in self._renewing:
            self._renewing.remove(feed)
        elif self._numbered.pop(feed.number, None) is not None and self._conversation.closed is None:
            self._conversation.out.say(Unsubscribe(0, feed.number))

    def lost(self) -> None:
        """The connection is gone."""
        for feed in (*self._numbered.values(), *self._asked.values()):
            if feed.opened:
                feed.lost()
                self._renewing.append(feed)
        self._numbered.clear()
        self._asked.clear()

    def close(self, error: AgentdError) -> None:
        """There will be no more connections."""
        for feed in (*self._numbered.values(), *self._asked.values(), *self._renewing):
            feed.failed(error)
