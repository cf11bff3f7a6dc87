"""One direct lane as this client reads it: its mailbox, and who has it, inbox() or a reader of its own."""

from __future__ import annotations

from time import monotonic, monotonic_ns, sleep
from typing import TYPE_CHECKING, Any, Final

from agentd import _native
from agentd.wire import grants
from agentd.wire.errors import LaneBusy
from agentd.wire.messages import Priority

if TYPE_CHECKING:
    from agentd_client._direct import Direct
    from agentd_client._pairs import DirectRecord, Incoming

#: How long a reader's thread may take to come out of the mailbox.
_OUT_S: Final = 5.0
#: How often agentd is told what was taken, while something is.
_MEASURED_S: Final = 1.0
#: A body that is read where it lies for longer than this is shown by `agentctl doctor`.
_KEPT_S: Final = 10.0


class Reading:
    """Made with the client's part in the direct lanes, one a lane."""

    def __init__(self, direct: Direct, lane: Priority, record: type[DirectRecord]) -> None:
        self.direct = direct
        self.lane = lane
        self.number = grants.LANES[lane]
        self._io = direct.io
        self._record = record
        self.mailbox = _native.Mailbox(record, self._finished, direct.asked_to_stop, 0)
        self.reader: Any = None  # who has the lane: None is inbox() and receive()
        self.pinned: grants.Pinned | None = None
        self.interrupts = False  # who waits here is to look for agentd when that has gone
        self._told_at = 0.0  # when agentd was last told what the mailbox took
        self._told_taken = 0
        self._watches = False  # what is kept for long

    def start(self) -> None:
        """In the face's thread."""
        if self.reader is None:
            self._io.watch(self.mailbox.fileno(), self._rung)

    def idle(self) -> grants.Idle:
        """Whether this lane is read here."""
        return grants.Idle(self.number, self.direct.taking)

    # inbox() and receive(), if they have it.

    def take(self) -> DirectRecord | None:
        """The next message, if there is one."""
        if self.reader is not None or self.mailbox.closed:
            return None
        taken: DirectRecord | None = self.mailbox.take()
        return taken

    def take_stock(self) -> None:
        """There is nothing to take. Now and then: tell agentd what was taken, and let go of what is over, as who finds
        mail by looking would else do only when it is quiet."""
        if self.reader is None and self.mailbox.sampled and not self.mailbox.closed and self.tell_measured():
            self.mailbox.sweep()

    def has_mail(self) -> bool:
        """Whether there may be some here."""
        return self.reader is None and not self.mailbox.closed and self.mailbox.has_mail()

    def arm(self) -> bool:
        """Whether there is no mail here, and a doorbell will ring when there is."""
        return self.reader is not None or bool(self.mailbox.closed) or self.mailbox.arm()

    def _rung(self) -> None:
        if self.reader is None:
            self.mailbox.disarm()
            self.direct.mail_came()
            if not self.direct.closed:
                self.mailbox.sweep()

    # A reader of its own.

    def occupy(self, reader: Any) -> None:
        """It is read by somebody else than inbox() from now on."""
        if self.reader is not None:
            raise LaneBusy(f"Another receiver of this client reads the {self.lane.value} lane", "Close that one first.")
        self.reader = reader
        self._io.soon(self._give_it_away)

    def _give_it_away(self) -> None:
        if self.reader is not None and not self.mailbox.closed:
            self._io.unwatch(self.mailbox.fileno())

    def may_look(self) -> None:
        """Its reader, as long as agentd says that it pays."""
        if self.reader is not None:
            self.mailbox.spin_ns = self.direct.spin_ns

    def vacate(self, reader: Any) -> None:
        """inbox() has it again."""
        if self.reader is reader and not self.mailbox.closed:
            self.reader = None
            self.mailbox.spin_ns = 0
            self.mailbox.makes(self._record)
            self._io.soon(self._have_it_back)

    def _have_it_back(self) -> None:
        if self.reader is None and not self.mailbox.closed:
            self._io.watch(self.mailbox.fileno(), self._rung)
            self.direct.look_for_mail()

    # Both.

    def _finished(self, incoming: Incoming) -> None:
        """Its sender is gone and it is empty, or it is no ring any more."""
        self.direct.let_go(incoming)

    def tell_measured(self) -> bool:
        """How long messages took, once a second at most; called where something was taken. Whether it was told."""
        now = monotonic()
        if now - self._told_at < _MEASURED_S:
            return False
        self._told_at = now
        taken = self.mailbox.n_taken
        self.direct.watcher.say(grants.Measured(self.number, taken - self._told_taken, self.mailbox.samples()))
        self._told_taken = taken
        return True

    def holds(self) -> None:
        """A large body is read where it lies, or waits for that: agentd is told of it if that lasts."""
        if not self._watches:
            self._watches = True
            watcher = self.direct.watcher
            watcher.soon(lambda: watcher.later(_KEPT_S, self._look_for_kept))

    def _look_for_kept(self) -> None:
        """In the watcher's thread: who keeps one may be at something else for long."""
        self._watches = False
        keeps = False
        for incoming in self.direct.incomings(self):
            blocks, since_ns = incoming.held, incoming.held_since_ns
            age_s = (monotonic_ns() - since_ns) / 1e9 if blocks else 0.0
            if blocks and age_s >= _KEPT_S:
                incoming.is_kept = self.direct.watcher.say(grants.Kept(incoming.number, blocks, age_s))
            elif incoming.is_kept:
                incoming.is_kept = not self.direct.watcher.say(grants.Kept(incoming.number, 0, 0.0))
            keeps = keeps or blocks > 0 or incoming.is_kept
        if keeps and not self.mailbox.closed:
            self.holds()

    def read_no_more(self) -> bool:
        """Have the reader's thread come out. Whether nobody is in the mailbox any more."""
        if self.mailbox.closed:
            return not self.mailbox.busy
        if self.reader is not None:
            self.reader.stop()
        self._io.unwatch(self.mailbox.fileno())
        self.mailbox.close()
        return self.leave_alone()

    def leave_alone(self) -> bool:
        """Have the thread that reads there, if there is one, come out: at once, but for the interpreter's turn. Then
        nobody is in there. False where it is held up in there, as only a debugger could."""
        until = monotonic() + _OUT_S
        while self.mailbox.busy:
            if monotonic() >= until:
                return False
            self.mailbox.interrupt()
            sleep(0.0002)
        return True
