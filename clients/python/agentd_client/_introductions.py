"""How pairs come to a client and go: what agentd says on the grants socket, and the ends of processes. The most of it
runs in the watcher's thread, so that it happens also while the client's own is busy."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import grants
from agentd.wire.errors import AgentdError, LaneUnavailable, LimitReached, Unreachable, from_wire
from agentd.wire.messages import Priority
from agentd_client._pairs import DirectRecord, Incoming, Outgoing, encode
from agentd_client._refusals import Refuser
from agentd_client._watcher import Watcher
from agentd_client.receipt import Call

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation
    from agentd_client._reading import Reading
    from agentd_client._submission import Submission

#: How long a receiver that is said to be gone may take to show that it is, and how often that is looked at.
_DOUBT_S: Final = 1.0
_LOOK_S: Final = 0.005


class Introductions:
    """A part of Direct: the pairs there are. What the face must do is handed over as news."""

    readings: dict[Priority, Reading]  # the direct lanes, in the order of their numbers

    def __init__(self, conversation: Conversation[Any, Any], face: Any) -> None:
        self._conversation = conversation
        self.io = conversation.io
        self.face = face
        self._news: deque[Callable[[], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # there is news
        self._verdict_bells: list[int] = []
        self._bells: list[tuple[int, int, int]] = []  # of each attachment whose pairs still ring them, the latest last
        self.attached = Call(0)  # settled when we are, or can't be: then with an error
        self._pending = False  # an attachment is under way
        self.closed = False
        self._opening: dict[int, Call] = {}
        self._submission: Submission | None = None
        self._outgoing: dict[int, Outgoing] = {}
        self._incoming: dict[int, Incoming] = {}
        self.cores: list[int] = []
        self.about_cores = ""
        self.spin_ns = 0  # how long a reader looks before it sleeps, once agentd has said so
        self.welcomed = threading.Event()  # agentd has told what a reader should know
        self.away = False  # agentd was here, and is not now
        self.async_bytes = 0
        self.sqpoll_core: int | None = None  # leased, for a thread of the kernel that takes what we submit
        self.without_io_uring = False  # the configuration has it so
        try:
            self.watcher = Watcher(self)
        except OSError:
            os.close(self._bell)
            raise

    # In the face's thread.

    def _soon(self, action: Callable[[], None]) -> None:
        self._news.append(action)
        if not self.closed:
            os.eventfd_write(self._bell, 1)

    def _attached(self, error: AgentdError | None) -> None:
        self._pending = False
        self.away = self.away and error is not None
        self.attached.error = error
        self.attached.settle()

    @property
    def taking(self) -> bool:
        """Whether this client has its agent's mail."""
        return self._conversation.taking

    @property
    def submission(self) -> Submission:
        """What the high channels submit; made with the first of them."""
        if self._submission is None:
            from agentd_client._submission import Submission

            self._submission = Submission(self)
        return self._submission

    def finish(self, channel: Outgoing) -> None:
        """It submits nothing any more, if it ever did."""
        if channel.lane is Priority.HIGH and self._submission is not None:
            self._submission.finish(channel)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have the face's thread do that after so long, or in its next call after that."""
        self.watcher.soon(lambda: self.watcher.later(seconds, lambda: self._soon(action)))

    def incomings(self, reading: Reading) -> list[Incoming]:
        """The pairs that are read there."""
        return [incoming for incoming in list(self._incoming.values()) if incoming.reading is reading]

    def drop(self, channel: Outgoing, why: str) -> None:
        """This end has left."""
        self._outgoing.pop(channel.number, None)
        if not channel.gone:
            number = channel.number
            channel.over(why)
            self.watcher.say(grants.Closed(number, why))

    def _verdicts(self) -> None:
        for bell in self._verdict_bells:
            try:
                os.eventfd_read(bell)
            except BlockingIOError:
                pass
        for channel in list(self._outgoing.values()):
            channel.look()
            if channel.tickets and channel.left:
                self.drop(channel, "its receiver has left")

    # In the watcher's thread.

    def heard(self, packet: Any, fds: list[int]) -> None:
        """What agentd says."""
        try:
            match packet:
                case grants.Attached():
                    self._welcomed(packet, fds)
                case grants.Granted():
                    self._granted(packet, fds)
                case grants.Offered():
                    self._offered(packet, fds)
                case grants.Refused():
                    error = from_wire(packet.code, packet.message, packet.hint, packet.retry_after)
                    self._soon(lambda: self._opened(packet.cid, None, error))
                case grants.Closed():
                    self._ended(packet.number, packet.reason)
                case grants.Leased(cores=cores):
                    self.sqpoll_core = cores[0] if cores else None
                case grants.Paused():
                    if (incoming := self._incoming.get(packet.number)) is not None:
                        incoming.pause(packet.on)
        finally:
            for fd in fds:
                os.close(fd)

    def _welcomed(self, packet: grants.Attached, fds: list[int]) -> None:
        readings = self.readings.values()
        if len(fds) != len(readings) + 1:  # no descriptor was left for them
            self.watcher.disconnect("this process has too many files open")
            return
        bells = (fds[0], fds[1], fds[2])
        critical_bell, verdict_bell, high_bell = bells
        fds.clear()
        self.cores, self.about_cores = packet.cores, packet.about_cores
        self.spin_ns = int(packet.spin_us * 1000)
        self.async_bytes, self.without_io_uring = packet.async_bytes, packet.without_io_uring
        for reading, bell in zip(readings, (critical_bell, high_bell), strict=True):
            try:
                reading.mailbox.add_doorbell(bell)
            except ValueError:  # nothing is read here any more
                os.close(bell)
            self.watcher.say(reading.idle())
            reading.may_look()
            if reading.pinned is not None:
                self.watcher.say(reading.pinned)
        self.welcomed.set()
        if self._submission is not None and (core := self._submission.core) is not None:  # or it would be another's too
            self.watcher.say(grants.Lease(grants.HIGH, True, has=[core]))
        pairs: list[Outgoing | Incoming] = [*self._outgoing.values(), *self._incoming.values()]
        for pair in pairs:
            self._present(pair)
        rung = {pair.bells for pair in pairs}
        silent = [before for before in self._bells if before not in rung]
        self._bells = [before for before in self._bells if before in rung]
        self._bells.append(bells)
        for before in silent:
            for reading, bell in zip(readings, (before[0], before[2]), strict=True):
                if not reading.mailbox.closed:
                    reading.mailbox.remove_doorbell(bell)

        def welcomed() -> None:
            for _, verdicts, _ in silent:
                self._verdict_bells.remove(verdicts)
                self.io.unwatch(verdicts)
                os.close(verdicts)
            self._verdict_bells.append(verdict_bell)
            self.io.watch(verdict_bell, self._verdicts)
            self._attached(None)

        self._soon(welcomed)

    def _present(self, pair: Outgoing | Incoming) -> None:
        sends = isinstance(pair, Outgoing)
        if isinstance(pair, Incoming) and pair.relays:
            pair.end()  # the daemon that wrote into it is no more
            pair.wake()
            return
        peer = pair.agent if isinstance(pair, Outgoing) else pair.sender
        lane, *sizes = pair.shape
        self.watcher.say(grants.Present(pair.number, lane, sends, peer, *sizes), pair.memory_fd)

    def _granted(self, packet: grants.Granted, fds: list[int]) -> None:
        if len(fds) < 2:
            self._not_opened(packet, "this process has too many files open")
            return
        memory, bell, *process = fds
        lane = grants.PRIORITIES[packet.lane]
        sizes = (packet.ring_bytes, packet.verdict_bytes, packet.pool_bytes)
        try:
            refuser = Refuser(packet.agent, lane, packet.pool_bytes)
            channel = Outgoing(memory, packet.lane, packet.number, *sizes, bell, encode, refuser)
        except OSError as error:
            self._not_opened(packet, str(error.strerror))
            return
        fds.clear()
        process_fd = process[0] if process else -1
        channel.refuser = refuser
        channel.bells = self._bells[-1]
        channel.bell_fd = bell
        channel.shape = (packet.lane, *sizes)
        channel.begin(self, packet.agent, packet.provenance, lane, packet.verdict_bytes, (memory, process_fd))
        with suppress(OSError):  # where the limits allow it
            channel.lock()
        self._outgoing[packet.number] = channel
        self.watcher.watch(process_fd, channel)
        self._soon(lambda: self._opened(packet.cid, channel, None))

    def _not_opened(self, packet: grants.Granted, why: str) -> None:
        failed = LaneUnavailable(f"No channel to {packet.agent}: {why}", "Messages are relayed.")
        self.watcher.say(grants.Closed(packet.number, why))
        self._soon(lambda: self._opened(packet.cid, None, failed))

    def _opened(self, cid: int, channel: Outgoing | None, error: AgentdError | None) -> None:
        call = self._opening.pop(cid, None)
        if call is None:  # nobody waits any more
            if channel is not None:
                self.drop(channel, "it was opened too late")
            return
        if channel is not None and channel.lane is Priority.HIGH:
            try:
                self.submission.serve(channel)
            except OSError as failed:  # also of an import: a module is a file
                self.drop(channel, "its sender has nothing left to ring it by")
                error = LimitReached(
                    f"No channel to {channel.agent}: {failed.strerror}",
                    "Close some of this process's files, or raise its limit (ulimit -n); messages are relayed.",
                )
                channel = None
        call.answer, call.error = channel, error
        call.settle()

    def _offered(self, packet: grants.Offered, fds: list[int]) -> None:
        reading = self.readings[grants.PRIORITIES[packet.lane]]
        if reading.mailbox.closed:
            self.watcher.say(grants.Mapped(packet.number, "it has just left"))
            return
        if len(fds) < 2:
            self.watcher.say(grants.Mapped(packet.number, "it has too many files open"))
            return
        memory, bell, *process = fds
        sizes = (packet.ring_bytes, packet.verdict_bytes, packet.pool_bytes)
        try:
            incoming = Incoming(memory, packet.lane, packet.number, *sizes, bell)
        except OSError as error:
            self.watcher.say(grants.Mapped(packet.number, str(error.strerror)))
            return
        fds.clear()
        incoming.sender = packet.sender
        incoming.provenance = packet.provenance
        incoming.lane = reading.lane
        incoming.relays = packet.relays
        incoming.direct = self
        incoming.reading = reading
        incoming.holds = reading.holds
        incoming.memory_fd = memory
        incoming.process_fd = process[0] if process else -1
        incoming.bells = self._bells[-1]
        incoming.shape = (packet.lane, *sizes)
        with suppress(OSError):
            incoming.lock()
        self._incoming[packet.number] = incoming
        self.watcher.watch(incoming.process_fd, incoming)
        try:
            reading.mailbox.add(incoming)
        except ValueError:  # closed since we looked
            self.watcher.say(grants.Mapped(packet.number, "it has just left"))
            return
        self.watcher.say(grants.Mapped(packet.number))

    def _ended(self, number: int, why: str) -> None:
        outgoing = self._outgoing.get(number)
        if outgoing is not None:
            self._said_gone(outgoing, why, monotonic() + _DOUBT_S)
        incoming = self._incoming.get(number)
        if incoming is not None:
            self._sender_gone(incoming)

    def peer_gone(self, pair: Any) -> None:
        """The process at the other end has ended."""
        if isinstance(pair, Outgoing):
            self._receiver_gone(pair, "its process has ended", ended=True)
        else:
            self._sender_gone(pair)

    def _said_gone(self, channel: Outgoing, why: str, until: float) -> None:
        """Agentd says so. What that means for what was not taken shows in a moment: the receiver closes its end, or its
        process ends. If neither does, it may still read."""
        channel.ending = True
        channel.end()
        if channel.left or monotonic() >= until:
            self._receiver_gone(channel, why)
        elif not channel.gone:
            self.watcher.later(_LOOK_S, lambda: self._said_gone(channel, why, until))

    def _receiver_gone(self, channel: Outgoing, why: str, *, ended: bool = False) -> None:
        channel.ending = True
        channel.end()
        self.watcher.unwatch(channel.process_fd)

        def gone() -> None:
            if self._outgoing.get(channel.number) is channel:
                del self._outgoing[channel.number]
            channel.over(why, ended=ended)

        self._soon(gone)

    def _sender_gone(self, incoming: Incoming) -> None:
        self.watcher.unwatch(incoming.process_fd)
        incoming.end()
        incoming.wake()  # to take what is left, and let go of it

    def detached(self, why: str) -> None:
        """No grants socket any more; the pairs go on."""
        self.away = True
        for reading in self.readings.values():
            if reading.interrupts:
                reading.mailbox.interrupt()

        def told() -> None:
            calls, self._opening = self._opening, {}
            gone = Unreachable(f"agentd is not reachable: {why}")
            for call in calls.values():
                call.error = gone
                call.settle()
            if self.attached.settled:
                self.attached = Call(0)
                self._pending = False
            else:
                self._attached(gone)  # whoever waits for it is told: nobody would ask again for him

        self._soon(told)

    # In the reader's thread.

    def let_go(self, incoming: Incoming) -> None:
        """Its sender is gone and it is empty, or it is no ring any more."""

        def let_go() -> None:
            incoming.release()
            if self._incoming.pop(incoming.number, None) is not None:
                self.watcher.say(grants.Closed(incoming.number, "it was read to its end"))

        self.watcher.soon(let_go)

    def asked_to_stop(self, record: DirectRecord) -> None:
        by, reason = record.sender, record.body.decode("utf-8", "replace")
        if self.face.stops_anywhere:
            self._conversation.stop(by, reason)  # its thread may be anywhere but in a call
        else:
            self._soon(lambda: self._conversation.stop(by, reason))
