"""What must be there after a kill of the daemon, and what may not: told by those who talked to it what they heard."""

from __future__ import annotations

from collections.abc import Iterable


class Oracle:
    """Of the messages to one agent, which have numbers in the order in which they were sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.waiting: set[int] = set()  # the sender was told that it is stored
        self.acked = 0  # so many acks were certain
        self._unanswered: set[int] = set()
        self._acking: set[int] = set()  # said by the receiver, and perhaps not written down
        self._gone: dict[int, str] = {}  # why
        self._top = -1  # of all that was called stored

    def next(self) -> int:
        """The number of a message that is sent now."""
        number = self.sent
        self.sent += 1
        self._unanswered.add(number)
        return number

    def stored(self, number: int) -> None:
        """Its sender was told so."""
        self._unanswered.discard(number)
        self._top = max(self._top, number)
        if number not in self._acking and number not in self._gone:
            self.waiting.add(number)

    def refused(self, number: int) -> None:
        """Its sender was told so."""
        self._unanswered.discard(number)
        self._gone[number] = "refused"

    def acks(self, numbers: Iterable[int]) -> None:
        """The receiver says these: from now on each may be gone."""
        numbers = set(numbers)
        self.waiting -= numbers
        self._unanswered -= numbers
        self._acking |= numbers

    def acks_are_stored(self, numbers: Iterable[int]) -> None:
        """Something that came after them is."""
        numbers = set(numbers)
        self.acked += len(numbers)
        self._acking -= numbers
        self._gone |= dict.fromkeys(numbers, "acked")

    def look(self, found: list[int]) -> None:
        """Hold what is there against it; what is not is gone for good."""
        assert found == sorted(set(found)), "in another order, or twice"
        there = set(found)
        again = {number: why for number, why in self._gone.items() if number in there}
        assert not again, f"there again, of {self.sent}: {again}"
        assert self.waiting <= there, "stored, and gone"
        top = max(self._top, max(found, default=-1))
        assert {number for number in self._unanswered if number < top} <= there, "there is a hole"
        self._gone |= dict.fromkeys(self._unanswered - there, "not there after its sender died")
        self._gone |= dict.fromkeys(self._acking - there, "not there after an ack")
        self._unanswered, self._acking, self.waiting = set(), set(), there
