"""Pairs: who sends to whom through memory of their own. The registry that introduces them, bounds them, and ends them;
no byte of theirs passes here."""

from __future__ import annotations

from typing import Final

from agentd.host.config import DirectLimits
from agentd.hub.session import Session
from agentd.wire.errors import LimitReached
from agentd.wire.messages import Priority

#: A number is part of the ids of the pair's messages, which have this much room for it (native/record.h).
_NUMBERS: Final = 1 << 23
#: One millisecond's start is so far from the next one's, the golden section of them all: a daemon that follows another
#: one soon, be it within a second, does not give numbers that pairs of that one still have.
_STRIDE: Final = 5_184_443


class Pair:
    """One direction between two live sessions, on one lane. Without a sender it is the daemon's own, that relays."""

    __slots__ = ("kept", "kept_since", "lane", "number", "pool_bytes", "receiver", "sender", "size_bytes")

    def __init__(
        self, number: int, lane: Priority, sender: Session | None, receiver: Session, size_bytes: int, pool_bytes: int
    ) -> None:
        self.number = number
        self.lane = lane
        self.sender = sender
        self.receiver = receiver
        self.size_bytes = size_bytes  # what it takes from the start
        self.kept = 0  # blocks of its pool that the receiver keeps for long, as it says, and since when
        self.kept_since = 0.0
        self.pool_bytes = pool_bytes  # what it may take for large bodies

    @property
    def sender_name(self) -> str:
        """Who writes into it."""
        return "agentd" if self.sender is None else self.sender.name


class Pairs:
    """All of them, by number."""

    def __init__(self, limits: DirectLimits, first: int) -> None:
        self._limits = limits
        self._next = first * _STRIDE % _NUMBERS
        self.by_number: dict[int, Pair] = {}
        self.bytes = 0
        self.pool_bytes = 0

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"pairs": len(self.by_number), "bytes": self.bytes, "pool_bytes": self.pool_bytes}

    def open(
        self,
        lane: Priority,
        sender: Session | None,
        receiver: Session,
        size_bytes: int,
        pool_bytes: int = 0,
        number: int | None = None,
    ) -> Pair:
        """A pair between these two, under a number that no other has: one of ours, or the one it had before agentd
        came back."""
        self._check(sender, receiver, size_bytes)
        if number is None:
            number = self._fresh()
        pair = self.by_number[number] = Pair(number, lane, sender, receiver, size_bytes, pool_bytes)
        self.bytes += size_bytes
        self.pool_bytes += pool_bytes
        if sender is not None:
            sender.sends_into[number] = pair
        receiver.reads_from[number] = pair
        return pair

    def _fresh(self) -> int:
        while self._next in self.by_number:
            self._next = (self._next + 1) % _NUMBERS
        number = self._next
        self._next = (number + 1) % _NUMBERS
        return number

    def _check(self, sender: Session | None, receiver: Session, size_bytes: int) -> None:
        limits = self._limits
        if len(self.by_number) >= limits.max_pairs:
            raise _over(f"There are {len(self.by_number)} pairs", "direct.max_pairs")
        if self.bytes + size_bytes > limits.max_bytes:
            raise _over(f"All pairs together have {self.bytes} bytes", "direct.max_bytes")
        if sender is not None and len(sender.sends_into) >= limits.max_pairs_a_session:
            raise _over(f"{sender.name} has {len(sender.sends_into)} channels open", "direct.max_pairs_a_session")
        if len(receiver.reads_from) >= limits.max_pairs_a_session:
            raise _over(f"{receiver.name} is sent to by {len(receiver.reads_from)}", "direct.max_pairs_a_session")

    def close(self, number: int) -> Pair | None:
        """It is over; None when it was already."""
        pair = self.by_number.pop(number, None)
        if pair is not None:
            self.bytes -= pair.size_bytes
            self.pool_bytes -= pair.pool_bytes
            pair.receiver.reads_from.pop(number, None)
            if pair.sender is not None:
                pair.sender.sends_into.pop(number, None)
        return pair

    def of(self, session: Session) -> list[Pair]:
        """Those that it is an end of."""
        return [*session.sends_into.values(), *session.reads_from.values()]


def _over(what: str, setting: str) -> LimitReached:
    return LimitReached(f"{what}, the most there may be", f"{setting} sets the limit; messages are relayed meanwhile.")
