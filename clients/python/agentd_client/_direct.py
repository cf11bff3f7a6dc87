"""A client's part in the direct lanes: its pairs, and everything about them that is not the ring itself.

    the face's thread    sends, reads verdicts, and takes mail unless a receiver has the lane
    a reader's thread    receiver() or on_critical(): takes the mail of its lane
    the watcher's        makes pairs as agentd introduces them, and ends them when their other end is gone

The watcher hands over what the face must do (`_news`, a bell that the face's loop watches).
"""

from __future__ import annotations

import os
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import grants
from agentd.wire import messages as wire
from agentd.wire.errors import (
    Absent,
    LaneUnavailable,
    LimitReached,
    Timeout,
    Unreachable,
)
from agentd.wire.messages import Priority
from agentd_client import _ringing
from agentd_client._introductions import Introductions
from agentd_client._looking import Looking
from agentd_client._pairs import DirectRecord, Outgoing
from agentd_client._reading import Reading
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation

_CRITICAL: Final = Priority.CRITICAL
_HIGH: Final = Priority.HIGH
#: Channels that sends have opened and that nobody closes: the one used longest ago makes room.
_MAX_CACHED: Final = 128
#: So long an agent without shared memory is not asked again whether it has some.
_RELAYED_S: Final = 5.0
#: How many messages from rings inbox() hands out before it looks for others, and how many critical ones before it looks
#: for a high one.
_IN_A_ROW: Final = 16
_CRITICAL_IN_A_ROW: Final = 8


class Direct(Introductions):
    """Made when first needed, by an invitation, a channel or a receiver."""

    def __init__(self, conversation: Conversation[Any, Any], face: Any, record: type[DirectRecord]) -> None:
        super().__init__(conversation, face)
        try:
            self.readings = {lane: Reading(self, lane, record) for lane in grants.LANES}
        except OSError:
            self.watcher.close()
            os.close(self._bell)
            raise
        self._critical, self._high = self.readings[_CRITICAL], self.readings[_HIGH]
        self._channels: dict[tuple[str, Priority], Outgoing] = {}  # those that sends use, by agent and lane
        self._sharing: dict[tuple[str, Priority], Call] = {}  # of them, those that a send is just opening
        self._relayed: dict[str, float] = {}  # agents without shared memory: until when not to ask
        self._in_a_row = self._critical_in_a_row = 0
        self._looking: Looking | None = None  # where there is a loop
        self.breathe = False  # so many came at once that the rest of the program should have a turn
        conversation.io.soon(self._start)

    def _start(self) -> None:
        """In the face's thread."""
        self.io.watch(self._bell, self._process)
        if self.face.in_loop:
            self._looking = Looking(self, self.io.next_turn)
        for reading in self.readings.values():
            reading.start()

    # The face's side: attaching.

    def attach(self, until: float | None) -> Steps[None]:
        """Until this session is known on the grants socket."""
        if self.attached.settled and self.attached.error is not None:
            self.attached = Call(0)  # try again
        if not self.attached.settled and not self._pending:
            self.renew()
        while not self.attached.settled:
            if until is not None and monotonic() >= until:
                raise Timeout("agentd has not attached this client in time")
            yield self.attached, until
        if self.attached.error is not None:
            raise self.attached.error.with_traceback(None)

    def renew(self) -> None:
        """Ask for a token; also after agentd came back, for the pairs that went on."""
        self._pending = True
        self._conversation.ask(wire.Attach, self._token)

    def check_size(self, size_bytes: int) -> None:
        """TooLarge for a body that no message may have, however much the pool takes."""
        self._conversation.check_size(size_bytes)

    def _token(self, call: Call) -> None:
        if call.error is not None:
            self._attached(call.error)
        else:
            self.watcher.connect(call.answer.socket, call.answer.token)

    @property
    def has_reader(self) -> bool:
        """Whether somebody takes a lane's mail alone."""
        return any(reading.reader is not None for reading in self.readings.values())

    def invited(self) -> None:
        """Somebody wants to send here."""
        if (
            self.closed
            or self._pending
            or (self.attached.settled and self.attached.error is None and self._say_what_is_read())
        ):
            return
        self.attached = Call(0)
        self.renew()

    def _say_what_is_read(self) -> bool:
        return all(self.watcher.say(reading.idle()) for reading in self.readings.values())

    def come_back(self, until: float) -> Steps[None]:
        """Until agentd knows us again, but no longer than that."""
        conversation = self._conversation
        while self.away and monotonic() < until:
            yield (self.attached if conversation.ready else conversation.back), until

    # The face's side: channels.

    def channel(self, to: str, lane: Priority, until: float | None) -> Steps[Outgoing]:
        """A fresh pair to a live session of that agent."""
        yield from self.attach(until)
        call = Call(self._conversation.next_cid())
        self._opening[call.cid] = call
        try:
            if lane is Priority.HIGH and self._submission is None:  # answered before the other
                self.watcher.say(grants.Lease(grants.LANES[lane], True))
            if not self.watcher.say(grants.Open(call.cid, to, grants.LANES[lane])):
                self.attached = Call(0)
                raise Unreachable("agentd is not reachable: no channel can be opened", "It may be restarting.")
            while not call.settled:
                if until is not None and monotonic() >= until:
                    raise Timeout(f"No channel to {to} in time")
                yield call, until
        except GeneratorExit:
            if call.answer is not None:  # it came, and nobody is there to have it
                self.drop(call.answer, "nobody waited for it any more")
            raise
        finally:
            self._opening.pop(call.cid, None)
        if call.error is not None:
            raise call.error
        channel: Outgoing = call.answer
        return channel

    def cached(self, to: str, lane: Priority, until: float | None, *, demanded: bool) -> Steps[Outgoing | None]:
        """The channel that sends to that agent use; None where they are to be relayed."""
        key = to, lane
        while (sharing := self._sharing.get(key)) is not None:  # else each of several sends would open one of its own
            if until is not None and monotonic() >= until:
                if demanded:
                    raise Timeout(f"No channel to {to} in time")
                return None
            yield sharing, until
        channel = self._channels.get(key)
        if channel is not None:
            if not channel.gone and channel.state != "closed":
                return channel
            del self._channels[key]
            if not channel.ending:
                self.drop(channel, "it is gone")
        if not demanded and self._relayed.get(to, 0.0) > monotonic():
            return None
        sharing = self._sharing[key] = Call(0)
        try:
            channel = yield from self.channel(to, lane, until)
            self._make_room()
            self._channels[key] = channel
        except (LaneUnavailable, LimitReached, Unreachable, Timeout, OSError):
            if demanded:
                raise
            if len(self._relayed) >= _MAX_CACHED:
                self._relayed.clear()
            self._relayed[to] = monotonic() + _RELAYED_S
            return None
        finally:
            del self._sharing[key]
            sharing.settle()
        return channel

    def _make_room(self) -> None:
        if len(self._channels) >= _MAX_CACHED:
            idle = (key for key, other in self._channels.items() if not other.tickets)
            oldest = next(idle, next(iter(self._channels)))
            self.drop(self._channels.pop(oldest), "another channel was needed more")

    def open_channel(self, to: str, lane: Priority) -> Outgoing | None:
        """The one that is open already; for a post, which can't wait."""
        channel = self._channels.get((to, lane))
        return None if channel is None or channel.gone or channel.state == "closed" else channel

    def post(self, ticket: Any, to: str, content: Any, data: bytes, options: wire.Options) -> bool:
        """Send it if a channel is open; else it is relayed."""
        return _ringing.post(self, ticket, to, content, data, options)

    # The face's side: mail.

    def take(self, conversation: Conversation[Any, Any]) -> DirectRecord | None:
        """The next message for inbox() or receive(), of a lane that they have: critical ones first. Now and then one of
        another lane comes before, where there is one."""
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            self._in_a_row = 0
            self.breathe = True
            if conversation.mail.buffer:
                return None
        if self._critical_in_a_row < _CRITICAL_IN_A_ROW and (record := self._critical.take()) is not None:
            self._critical_in_a_row += 1
            return record
        self._critical_in_a_row = 0
        return self._high.take() or self._critical.take()

    def may_sleep(self) -> bool:
        """Whether there is no mail here, and whoever waits for it will go on when there is."""
        self._critical.take_stock()
        self._high.take_stock()
        return (self._looking is not None and self._looking.begins()) or self.arm()

    def arm(self) -> bool:
        """Whether there is no mail here, and a doorbell will ring when there is."""
        return self._critical.arm() and self._high.arm()

    def has_mail(self) -> bool:
        """Whether there may be some, for inbox() and receive()."""
        return self._critical.has_mail() or self._high.has_mail()

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for mail."""
        return bool(self._conversation.mail.waiters)

    def mail_came(self) -> None:
        """A doorbell rang, or some was found: whoever waits for it goes on at once."""
        waiters = self._conversation.mail.waiters
        if len(waiters) == 1:
            waiters.popleft().settle_at_once()
        else:
            self.look_for_mail()

    def look_for_mail(self) -> None:
        """There may be some, for whoever waits for it."""
        self._conversation.mail.wake_all()

    # News, in the face's thread.

    def _process(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return
        while self._news:
            self._news.popleft()()

    # The end.

    def close(self) -> None:
        """Leave every pair, tell their other ends, and end the watcher."""
        if self.closed:
            return
        for channel in list(self._outgoing.values()):
            self.drop(channel, "the sender has left")
        self._channels.clear()
        self.closed = True
        self.welcomed.set()
        self.read_no_more()
        self.io.unwatch(self._bell)
        self.watcher.close()
        for reading in self.readings.values():
            if not reading.mailbox.busy:
                self._leave_all(reading)
        if self._submission is not None:
            self._submission.close()
        for bell in self._verdict_bells:
            self.io.unwatch(bell)
            os.close(bell)
        os.close(self._bell)
        absent = Absent("This client has left")
        for call in self._opening.values():
            call.error = absent
            call.settle()

    def read_no_more(self) -> None:
        """Have readers' threads come out, then leave every pair that leads here."""
        for reading in self.readings.values():
            if not reading.mailbox.closed and reading.read_no_more():
                self.watcher.soon(partial(self._leave_all, reading))

    def _leave_all(self, reading: Reading) -> None:
        """Nobody reads that lane any more. Who sends here is told after he can see that."""
        for number in [number for number, incoming in self._incoming.items() if incoming.reading is reading]:
            self._incoming.pop(number).release()
            self.watcher.say(grants.Closed(number, "the receiver has left"))
