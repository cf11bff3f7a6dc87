"""What a sender knows of its message: Receipt, and Ticket for one that is not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from agentd.wire import messages as wire
from agentd.wire.errors import AgentdError, Undelivered
from agentd.wire.messages import Priority, Route, State
from agentd.wire.names import id_text

T = TypeVar("T")

_ACCEPTED = State.ACCEPTED
#: How far a state is on the way of a message that goes well.
_RANKS = {State.ACCEPTED: 0, State.STORED: 1, State.DELIVERED: 2, State.ACKED: 3}
_ENDS = (State.DEAD, State.EXPIRED, State.UNKNOWN)


class Receipt(Struct, frozen=True):
    """The state that a message has reached. `unknown` is what nobody can tell any more, and then the id may be too."""

    id: str | None
    state: State
    lane: Priority | None = None
    route: Route | None = None
    at: float | None = None
    note: str = ""
    reached: int | None = None  # publish: how many subscriptions have it
    refused: list[str] = []  # publish: agents whose subscription was full


class Call(Struct, eq=False):
    """Something said to the daemon that it will answer. `settled` once there is nothing more to come."""

    cid: int
    answer: Any = None  # the last answer, also one that does not settle it
    error: AgentdError | None = None
    settled: bool = False
    lost: bool = False  # the connection went before the answer came
    waiters: list[Callable[[], None]] | None = None
    at_once: Callable[[], None] | None = None  # how a coroutine that waits goes on without a turn of its loop

    def settle(self) -> None:
        """Wake whoever waits."""
        self.settled = True
        waiters = self.waiters
        if waiters is not None:
            self.waiters = None
            for wake in waiters:
                wake()

    def settle_at_once(self) -> None:
        """As settle(), from a callback of the loop: whoever can goes on before this returns."""
        if self.at_once is None or self.waiters is None or len(self.waiters) > 1:
            self.settle()
        else:
            self.settled = True
            self.waiters = None
            self.at_once()

    def when_settled(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once. Only for a call that is not settled."""
        if self.waiters is None:
            self.waiters = [wake]
        else:
            self.waiters.append(wake)

    def no_longer(self, wake: Callable[[], None]) -> None:
        """Undo `when_settled`."""
        if self.waiters is not None:
            self.waiters.remove(wake)


class Submitted(Call, eq=False):
    """A message on its way. Where the connection is lost, its state is unknown, which is no error."""

    waits_for: State = _ACCEPTED

    def reaches(self, state: State) -> bool:
        """Whether `state` is what the caller waits for, or the end of the message."""
        return state in _ENDS or _RANKS[state] >= _RANKS[self.waits_for]

    def known(self) -> Receipt:
        """The receipt as far as it is known now."""
        answer = self.answer
        if answer is None:
            return Receipt(None, State.UNKNOWN, note="the connection was lost before the answer" if self.lost else "")
        if type(answer) is wire.Accepted:
            id = id_text(answer.id + self.cid - answer.cid)
            state = State.UNKNOWN if self.lost else answer.state
            return Receipt(id, state, answer.lane, answer.route, answer.at, answer.note)
        state = State.UNKNOWN if self.lost and not self.reaches(answer.state) else answer.state
        return Receipt(
            id_text(answer.id), state, answer.lane, answer.route, answer.at, answer.note, answer.reached, answer.refused
        )


class Posted(Submitted, eq=False):
    """A post on its way. Each face adds how one waits for it."""

    to: str = ""
    size_bytes: int = 0
    read: bool = False  # somebody has seen how it ended

    def done(self) -> bool:
        """Whether the outcome is known, or known to be unknowable."""
        return self.settled

    @property
    def receipt(self) -> Receipt | None:
        """The receipt; None while the answer is out, and when there is an error instead."""
        return self.known() if self.settled and self.error is None else None

    def outcome(self) -> Receipt:
        """The receipt; the error, or Undelivered, raised."""
        self.read = True
        if self.error is not None:
            raise self.error.with_traceback(None)
        return ended(self)


def ended(call: Submitted) -> Receipt:
    """The receipt of a message that went as asked, or whose fate is unknown; Undelivered for one that ended badly."""
    receipt = call.known()
    if receipt.state is State.DEAD or receipt.state is State.EXPIRED:
        about = f": {receipt.note}" if receipt.note else ""
        hint = "" if receipt.route is Route.DIRECT else f"`agentctl trace {receipt.id}` says why."
        error = Undelivered(f"Message {receipt.id} is {receipt.state}{about}", hint)
        error.receipt = receipt
        raise error
    return receipt


#: A verb in steps, without I/O. It yields what it waits for and until when (time.monotonic; None: for ever). Whoever
#: drives it goes on when the call is settled or the time is over, and closes it when nobody wants the result any more.
Steps: TypeAlias = Generator[tuple[Call, float | None], None, T]
