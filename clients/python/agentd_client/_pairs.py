"""The two ends of a pair as the client keeps them, and the messages that come out of one."""

from __future__ import annotations

import errno
import os
from time import time
from typing import TYPE_CHECKING, Any

from agentd import _native
from agentd.wire import messages as wire
from agentd.wire import records
from agentd.wire.bodies import Content, decode_body, encode_body
from agentd.wire.errors import (
    Absent,
    Backpressure,
    NotOnThisLane,
    TooLarge,
)
from agentd.wire.messages import Priority, Route, State
from agentd.wire.names import id_text
from agentd_client._asked import Question, Sent
from agentd_client._refusals import RETRY_S, Refuser
from agentd_client.receipt import Submitted

if TYPE_CHECKING:
    from agentd_client._introductions import Introductions
    from agentd_client._reading import Reading
    from agentd_client._saving import File, Saving


def encode(body: Any) -> tuple[int, bytes]:
    """What a channel sends of a body that is neither bytes nor str."""
    content, data = encode_body(body)
    return records.CODES[content], data


class Outgoing(_native.Channel):
    """The sender's end. `send` is the native one: nothing stands between the caller and the ring."""

    agent: str
    provenance: str
    lane: Priority
    memory_fd: int
    process_fd: int
    bell_fd: int  # the receiver's; the native part owns it
    direct: Introductions
    bells: tuple[int, int, int]  # ours, which the other end rings: of the attachment that it came with
    shape: tuple[int, int, int, int]  # lane, and the sizes of both rings and the pool
    refuser: Refuser
    tickets: dict[int, Submitted]
    max_asked: int
    gone: str  # why, once it is over
    ending: bool  # its receiver is said to be gone, and the watcher looks whether that is so
    dead: int  # of those that were sent, how many the receiver had not taken when it went
    unknown: int  # of how many nobody knows: taken and not acked, or not taken by one who may still read them

    def begin(
        self,
        direct: Introductions,
        agent: str,
        provenance: str,
        lane: Priority,
        verdict_bytes: int,
        fds: tuple[int, int],
    ) -> None:
        """What the native part does not know."""
        self.direct = direct
        self.agent = agent
        self.provenance = provenance
        self.lane = lane
        self.memory_fd, self.process_fd = fds
        self.tickets = {}
        self.max_asked = verdict_bytes // (2 * records.VERDICT_BYTES)
        self.gone = ""
        self.ending = False
        self.dead = self.unknown = 0

    def ticket(
        self, call: Submitted, data: bytes, content: Content, flags: int, details: bytes, deadline_ns: int
    ) -> int:
        """Write one record that asks for a verdict."""
        if len(self.tickets) >= self.max_asked:
            self.look()
        if len(self.tickets) >= self.max_asked:
            raise Backpressure(
                f"{len(self.tickets)} messages wait for {self.agent} to finish them, as many as may",
                "channel.send() asks for no verdict and has no such limit.",
                retry_after=RETRY_S,
            )
        position = self.ask(data, records.CODES[content], flags | records.ASKED, details, deadline_ns)
        self.tickets[position] = call
        self.tell(call, position, State.ACCEPTED)
        return position

    def tell(self, call: Submitted, position: int, state: State, note: str = "") -> None:
        """Where the message stands now."""
        id = _native.message_id(self.number, position)
        call.answer = wire.Receipt(call.cid, id, state, time(), self.lane, Route.DIRECT, note)

    def flush(self) -> None:
        """Somebody is about to wait for what becomes of a record: a burst does not hold it back."""
        if self.lane is Priority.HIGH:
            self.direct.submission.flush()

    def look(self) -> None:
        """Hear what became of what was asked about."""
        if not self.tickets:
            return
        self._hear()
        if self.tickets:
            self.arm()
            self._hear()

    def _hear(self) -> None:
        for position, code, content, payload in self.verdicts():
            call = self.tickets.get(position)
            if isinstance(call, Sent) and call.heard(code, payload):
                continue
            state = records.STATES.get(code)
            if call is None or state is None:
                continue
            if code == records.REPLIED and isinstance(call, Question):
                call.reply = (records.CONTENTS.get(content, Content.BYTES), payload)
            note = "" if code in (records.ACKED, records.REPLIED) else records.verdict_text(payload)
            if code == records.EXPIRED:
                note = note or "it came too late"
            self.tell(call, position, state, note)
            del self.tickets[position]
            call.settle()

    def over(self, why: str, *, ended: bool = False) -> None:
        """It is over: say of each message what can be known. What was not taken is dead only if the receiver reads no
        more: its process has ended, or it has closed its end. Else it may still be read."""
        if self.gone:
            return
        self.gone = self.refuser.gone = why or "it is gone"
        never = self.left or ended
        self._hear()
        untaken = max(0, self.sent - self.taken)
        if never:
            self.dead = untaken
        else:
            self.unknown = untaken
        tickets, self.tickets = self.tickets, {}
        for position, call in tickets.items():
            if self.is_delivered(position) and call.waits_for is State.DELIVERED:
                self.tell(call, position, State.DELIVERED)
            elif self.is_delivered(position):
                self.unknown += 1
                self.tell(call, position, State.UNKNOWN, f"{self.agent}: {self.gone}; whether it was done is unknown")
            elif never:
                self.tell(call, position, State.DEAD, f"{self.agent}: {self.gone}, and it had not taken it")
            else:
                self.tell(call, position, State.UNKNOWN, f"{self.agent}: {self.gone}; whether it is read is unknown")
            call.settle()
        self.release()

    def release(self) -> None:
        """Nothing more comes of it. In the face's thread."""
        self.direct.finish(self)
        self.close()
        if self.memory_fd >= 0:
            os.close(self.memory_fd)
            self.direct.watcher.forget(self.process_fd)
        self.memory_fd = self.process_fd = -1


class Incoming(_native.Incoming):
    """The receiver's end: who sends here."""

    sender: str
    provenance: str
    lane: Priority
    relays: bool
    bells: tuple[int, int, int]  # ours, which the other end rings: of the attachment that it came with
    shape: tuple[int, int, int, int]
    reading: Reading
    is_kept: bool = False  # agentd was told that we keep blocks of it for long
    memory_fd: int
    process_fd: int
    direct: Introductions
    file: File | None = None  # that was offered last
    saving: Saving | None = None  # who reads it instead of the lane's mailbox
    is_released: bool = False

    def wake(self) -> None:
        """Have who reads it look again."""
        if self.saving is not None:
            self.saving.wake()
        self.reading.mailbox.wake()

    def release(self) -> None:
        """Nothing more comes of it. In the watcher's thread, or when that has ended."""
        self.is_released = True
        if self.saving is not None:
            self.saving.stop()
        self.close()
        self.direct.watcher.unwatch(self.process_fd)
        for fd in (self.memory_fd, self.process_fd):
            if fd >= 0:
                os.close(fd)
        self.memory_fd = self.process_fd = -1


class DirectRecord(_native.Record):
    """A message that came through shared memory. It is ours alone: copied before we see it, delivered at most once."""

    __slots__ = ()
    source: Incoming

    @property
    def _more(self) -> records.RecordDetails:
        return records.decode_details(self.details_bytes)

    @property
    def _details(self) -> wire.Details | None:
        return self._more.details

    @property
    def client(self) -> Any:
        """The face that answers it."""
        return self.source.direct.face

    @property
    def id(self) -> str:
        """Its 13 letters."""
        return id_text(self.number)

    @property
    def sender(self) -> str:
        """The agent that sent it."""
        source = self.source
        return source.sender if not source.relays else self._more.sender or source.sender

    @property
    def provenance(self) -> str:
        """What the kernel says of the sender."""
        return self.source.provenance if not self.source.relays else self._more.provenance

    @property
    def content(self) -> Content:
        """What the bytes are."""
        return records.CONTENTS[self.content_code]

    @property
    def value(self) -> Any:
        """The body as it was sent: bytes, str or what JSON holds. BadBody if the sender lied about it."""
        try:
            return self.decoded
        except AttributeError:
            value = self.decoded = decode_body(self.content, self.body)
            return value

    @property
    def priority(self) -> Priority:
        """How soon the sender wanted it here."""
        return self.source.lane

    @property
    def lane(self) -> Priority:
        """How it travelled."""
        return self.source.lane

    @property
    def attempt(self) -> int:
        """Always the first: there is no other."""
        return 1

    @property
    def sent_at(self) -> float:
        """When it was written, in seconds since 1970."""
        return self.sent_ns / 1e9

    @property
    def topic(self) -> str | None:
        """Events do not travel this way."""
        return None

    @property
    def file(self) -> File | None:
        """The file that is offered with it, to be saved."""
        if self.details_bytes is None or (offer := records.decode_file(self.details_bytes).offer) is None:
            return None
        file = self.source.file
        if file is None or file.position != self.position:
            from agentd_client._saving import File

            self.source.file = file = File(offer, self.position)
        return file

    @property
    def headers(self) -> dict[str, str]:
        """The sender's own."""
        details = self._details
        return (details.headers or {}) if details is not None else {}

    @property
    def event(self) -> str | None:
        """None: what a durable subscription gets does not come through shared memory."""
        return None

    @property
    def re(self) -> str | None:
        """The id of the message that this one is about."""
        details = self._details
        return None if details is None or details.re is None else id_text(details.re)

    @property
    def thread(self) -> str | None:
        """The id of the first message of the exchange."""
        details = self._details
        return None if details is None or details.thread is None else id_text(details.thread)

    @property
    def hops(self) -> int:
        """How often what led to this was passed on."""
        details = self._details
        return 0 if details is None else details.hops

    @property
    def wants_reply(self) -> bool:
        """Whether somebody waits for a reply right now."""
        return bool(self.flags & records.REQUEST)

    @property
    def expires_at(self) -> float | None:
        """When it is of no more use, in seconds since 1970."""
        if not self.deadline_ns:
            return None
        return time() + (self.deadline_ns - _native.boottime_ns()) / 1e9

    def view(self) -> _native.View:
        """The body where it lies, to read without a copy: `with message.view() as data:`. A large one is memory that is
        shared with its sender, who may send no more of them while it is kept."""
        return super().view()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} from {self.sender}: {self.size} bytes {self.content}>"

    # What all faces' verbs do.

    def finish(self, state: int, reason: str = "") -> None:
        """Say how it ended, once; nobody hears it who did not ask."""
        if self.settled:
            return
        self.settled = True
        if self.window is not None:
            self.window.freed()
        if self.flags & records.ASKED:
            try:
                self.source.settle(self.position, state, 0, records.reason_bytes(reason))
            except OSError:
                pass  # it is gone, or does not read what it asked for

    def refuse_delay(self, after: float) -> None:
        """There is no second time here."""
        if after:
            raise NotOnThisLane(
                f"A {self.lane.value} message is delivered once: it can't come back after {after:g} s",
                "nack() without after ends it as dead, and its sender hears why.",
            )

    def answer(self, body: object) -> None:
        """The reply to a request, which acks it."""
        content, data = encode_body(body)
        try:
            self.source.settle(self.position, records.REPLIED, records.CODES[content], data)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise TooLarge(
                    f"A reply of {len(data)} bytes is over what a verdict takes",
                    "Send it as a message of its own; direct.verdict_bytes sets the size, of which it is an eighth.",
                ) from None
            if error.errno == errno.EAGAIN:
                raise Backpressure(f"{self.sender} does not read its replies", retry_after=RETRY_S) from None
            raise Absent(f"{self.sender} is gone, and nobody waits for this reply") from None
        if not self.settled:
            self.settled = True
            if self.window is not None:
                self.window.freed()

    def receipt_of_answer(self) -> Any:
        """What a reply that went back with its verdict is: the sender's library has it, or will."""
        from agentd_client.receipt import Receipt

        return Receipt(self.id, State.ACCEPTED, self.lane, Route.DIRECT, time(), "the reply went with the verdict")
