"""A channel without its face's verbs: what both faces' Channel has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentd.wire.errors import NotOnThisLane
from agentd.wire.messages import Priority
from agentd_client._joining import check_lane
from agentd_client.receipt import Steps

if TYPE_CHECKING:
    from agentd_client._pairs import Outgoing
    from agentd_client._submission import Submission


class Opened:
    """The direct pair to one live session of an agent. `send` writes one record and returns its position, no system
    call while the receiver is awake; it raises Backpressure when the ring is full and ReceiverGone when that session is
    gone. `dead` and `unknown` count what was lost with it."""

    def __init__(self, client: Any, to: str, lane: str) -> None:
        self._client = client
        self._to = to
        self._lane = check_lane(lane)
        self._pair: Outgoing | None = None
        self.send: Callable[[object], int] = self._not_open

    def _open(self) -> Steps[None]:
        client = self._client
        direct = client.conversation.go_direct()
        self._pair = pair = yield from direct.channel(self._to, self._lane, monotonic() + client.verbs.answer_s)
        self.send = pair.send

    def _close(self) -> None:
        self._client.conversation.go_direct().drop(self.pair, "the channel was closed")
        self.send = self._not_open

    def _delivered(self, position: int, timeout: float | None) -> Steps[bool]:
        from agentd_client import _ringing

        return _ringing.delivered(self.pair, position, timeout)

    def _not_open(self, body: object) -> int:
        raise _not_open()

    def burst(self) -> AbstractContextManager[None]:
        """For `with`: sleeping receivers of what this client's high channels send in there are woken together: at its
        end, after 64 records, with a record that comes 1 ms after the first, and as soon as this client waits for a
        delivery or lets its loop turn."""
        return self._submitting().burst()

    def loan(self, size: int) -> Loan:
        """Memory for a body of so many bytes, where the receiver will read it: `with channel.loan(n) as buffer:` sends
        it at the end without a copy; an exception gives it back unsent. Backpressure when there is no room."""
        self._submitting()
        return Loan(self.pair, size)

    def _submitting(self) -> Submission:
        if self._lane is not Priority.HIGH:
            raise NotOnThisLane(f"A {self._lane.value} channel has no bursts and no loans", "A high one has.")
        if self.send == self._not_open:  # or closed again
            raise _not_open()
        return self.pair.direct.submission

    @property
    def pair(self) -> Outgoing:
        """Its memory, once it is open."""
        if self._pair is None:
            raise _not_open()
        return self._pair

    @property
    def sent(self) -> int:
        """How many records."""
        return self.pair.sent

    @property
    def dead(self) -> int:
        """How many the receiver had not taken when it went, and never will; 0 while it is there."""
        return self.pair.dead

    @property
    def unknown(self) -> int:
        """Of how many nobody knows: it had taken them and not finished, of those that asked; or had not taken them when
        this end was closed."""
        return self.pair.unknown

    @property
    def state(self) -> str:
        """open, paused or closed."""
        return self.pair.state


class Loan:
    """A place for one body; sent at the end of its `with`."""

    position: int | None = None  # once it was sent
    _over = False

    def __init__(self, pair: Outgoing, size: int) -> None:
        self._pair = pair
        self._block = pair.allocate(size)
        self._buffer = self._block.buffer

    def __enter__(self) -> memoryview:
        if self._over:
            raise ValueError("This loan was sent or given back: take another")
        return self._buffer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        try:
            self._buffer.release()
        except BufferError:  # an array over it is still there, and memory stays under that
            pass
        if kind is not None:
            self._block.abandon()
            return
        try:
            self.position = self._pair.send(self._block)
        except BaseException:
            self._block.abandon()
            raise


def _not_open() -> RuntimeError:
    return RuntimeError("This channel is not open: it is opened where its `with` begins, and closed where that ends")
