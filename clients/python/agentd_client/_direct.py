"""A client's part in the direct lanes: its pairs, and everything about them that is not the ring itself.

    the face's thread    sends, reads verdicts, and takes mail unless a receiver has the lane
    a reader's thread    receiver() or on_critical(): takes the mail of its lane
    the watcher's        makes pairs as agentd introduces them, and ends them when their other end is gone

The watcher hands over what the face must do (`_news`, a bell that the face's loop watches).
"""

from __future__ import annotations

import os
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import grants
from agentd.wire import messages as wire
from agentd.wire.errors import (
    Absent,
    LaneBusy,
    LaneUnavailable,
    LimitReached,
    Timeout,
    Unreachable,
)
from agentd.wire.messages import Priority
from agentd_client import _ringing
from agentd_client._introductions import Introductions
from agentd_client._pairs import DirectRecord, Outgoing
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation

_CRITICAL: Final = Priority.CRITICAL
#: Channels that sends have opened and that nobody closes: the one used longest ago makes room.
_MAX_CACHED: Final = 128
#: So long an agent without shared memory is not asked again whether it has some.
_RELAYED_S: Final = 5.0
#: How many critical messages inbox() hands out before it looks for others.
_IN_A_ROW: Final = 16
#: How long a reader's thread may take to come out of the mailbox.
_OUT_S: Final = 5.0


class Direct(Introductions):
    """Made when first needed, by an invitation, a channel or a receiver."""

    def __init__(self, conversation: Conversation[Any, Any], face: Any, record: type[DirectRecord]) -> None:
        super().__init__(conversation, face, record)
        self._record = record
        self._channels: dict[str, Outgoing] = {}  # those that sends use, by agent
        self._relayed: dict[str, float] = {}  # agents without shared memory: until when not to ask
        self.reader: object | None = None  # who has the lane: None is inbox() and receive()
        self._in_a_row = 0
        self.breathe = False  # so many came at once that the rest of the program should have a turn
        conversation.io.soon(self._start)

    def _start(self) -> None:
        """In the face's thread."""
        io = self._conversation.io
        io.watch(self._bell, self._process)
        if self.reader is None:
            io.watch(self.mailbox.fileno(), self._rung)

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

    def _token(self, call: Call) -> None:
        if call.error is not None:
            self._attached(call.error)
        else:
            self.watcher.connect(call.answer.socket, call.answer.token)

    def invited(self) -> None:
        """Somebody wants to send here."""
        if (
            self._closed
            or self._pending
            or (self.attached.settled and self.attached.error is None and self.watcher.say(self._idle()))
        ):
            return
        self.attached = Call(0)
        self.renew()

    def come_back(self, until: float) -> Steps[None]:
        """Until agentd knows us again, but no longer than that."""
        conversation = self._conversation
        while self.away and monotonic() < until:
            yield (self.attached if conversation.ready else conversation.back), until

    # The face's side: channels.

    def channel(self, to: str, until: float | None) -> Steps[Outgoing]:
        """A fresh pair to a live session of that agent."""
        yield from self.attach(until)
        call = Call(self._conversation.next_cid())
        self._opening[call.cid] = call
        try:
            if not self.watcher.say(grants.Open(call.cid, to, grants.CRITICAL)):
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

    def cached(self, to: str, until: float | None, *, demanded: bool) -> Steps[Outgoing | None]:
        """The channel that sends to that agent use; None where they are to be relayed."""
        channel = self._channels.get(to)
        if channel is not None:
            if not channel.gone and channel.state != "closed":
                return channel
            del self._channels[to]
            if not channel.ending:
                self.drop(channel, "it is gone")
        if not demanded and self._relayed.get(to, 0.0) > monotonic():
            return None
        try:
            channel = yield from self.channel(to, until)
        except (LaneUnavailable, LimitReached, Unreachable, Timeout, OSError):
            if demanded:
                raise
            if len(self._relayed) >= _MAX_CACHED:
                self._relayed.clear()
            self._relayed[to] = monotonic() + _RELAYED_S
            return None
        if len(self._channels) >= _MAX_CACHED:
            idle = (agent for agent, other in self._channels.items() if not other.tickets)
            oldest = next(idle, next(iter(self._channels)))
            self.drop(self._channels.pop(oldest), "another channel was needed more")
        self._channels[to] = channel
        return channel

    def open_channel(self, to: str) -> Outgoing | None:
        """The one that is open already; for a post, which can't wait."""
        channel = self._channels.get(to)
        return None if channel is None or channel.gone or channel.state == "closed" else channel

    def post(self, ticket: Any, to: str, content: Any, data: bytes, options: wire.Options) -> bool:
        """Send it if a channel is open; else it is relayed."""
        return _ringing.post(self, ticket, to, content, data, options)

    # The face's side: mail.

    def take(self, conversation: Conversation[Any, Any]) -> DirectRecord | None:
        """The next message for inbox() or receive(), if they have the lane. Now and then one of another lane comes
        first, where there is one."""
        if self.reader is not None or self.mailbox.closed:
            return None
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            self._in_a_row = 0
            self.breathe = True
            if conversation.mail.buffer:
                return None
        taken: DirectRecord | None = self.mailbox.take()
        return taken

    def may_sleep(self) -> bool:
        """Whether there is no mail here, and a doorbell will ring when there is."""
        if self.reader is not None or self.mailbox.closed:
            return True
        if self.mailbox.sampled:
            self.tell_measured()
        return self.mailbox.arm()

    def _rung(self) -> None:
        if self.reader is None:
            self.mailbox.disarm()
            waiters = self._conversation.mail.waiters
            if len(waiters) == 1:
                waiters.popleft().settle_at_once()
            else:
                self._conversation.mail.wake_all()
            if not self._closed:
                self.mailbox.sweep()

    def occupy(self, reader: object) -> None:
        """The lane is read by somebody else than inbox() from now on."""
        if self.reader is not None:
            raise LaneBusy("Another receiver of this client reads the critical lane", "Close that one first.")
        self.reader = reader
        self._conversation.io.soon(self._give_it_away)

    def _give_it_away(self) -> None:
        if self.reader is not None and not self.mailbox.closed:
            self._conversation.io.unwatch(self.mailbox.fileno())

    def vacate(self, reader: object) -> None:
        """inbox() has it again."""
        if self.reader is reader and not self.mailbox.closed:
            self.reader = None
            self.mailbox.spin_ns = 0
            self.mailbox.makes(self._record)
            self._conversation.io.soon(self._have_it_back)

    def _have_it_back(self) -> None:
        if self.reader is None and not self.mailbox.closed:
            self._conversation.io.watch(self.mailbox.fileno(), self._rung)
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
        if self._closed:
            return
        for channel in list(self._outgoing.values()):
            self.drop(channel, "the sender has left")
        self._channels.clear()
        self._closed = True
        self.welcomed.set()
        self.read_no_more()
        io = self._conversation.io
        io.unwatch(self._bell)
        self.watcher.close()
        if not self.mailbox.busy:
            self._leave_all()
        for bell in self._verdict_bells:
            io.unwatch(bell)
            os.close(bell)
        os.close(self._bell)
        absent = Absent("This client has left")
        for call in self._opening.values():
            call.error = absent
            call.settle()

    def read_no_more(self) -> None:
        """Have the reader's thread come out, then leave every pair that leads here."""
        if self.mailbox.closed:
            return
        if self.reader is not None:
            self.reader.stop()  # type: ignore[attr-defined]
        self._conversation.io.unwatch(self.mailbox.fileno())
        self.mailbox.close()
        if leave_alone(self.mailbox):
            self.watcher.soon(self._leave_all)

    def _leave_all(self) -> None:
        """Nobody reads any more. Who sends here is told after he can see that."""
        for number in list(self._incoming):
            self._incoming.pop(number).release()
            self.watcher.say(grants.Closed(number, "the receiver has left"))


def leave_alone(mailbox: Any) -> bool:
    """Have the thread that reads there, if there is one, come out: at once, but for the interpreter's turn. Then nobody
    is in there. False where it is held up in there, as only a debugger could."""
    until = monotonic() + _OUT_S
    while mailbox.busy:
        if monotonic() >= until:
            return False
        mailbox.interrupt()
        sleep(0.0002)
    return True
