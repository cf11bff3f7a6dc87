"""What must be there after a kill of the daemon, and what may not: told by those who talked to it what they heard."""

from __future__ import annotations

from collections.abc import Iterable


class Oracle:
    """Of the messages to one agent, which have numbers in the order in which they were sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.waiting: set[int] = set()  # the sender was told that it is stored
        self.acked = 0  # so many acks were certain
        self._unanswered: dict[int, int] = {}  # its size
        self._acking: set[int] = set()  # said by the receiver, and perhaps not written down
        self._gone: dict[int, str] = {}  # why
        self._top = -1  # of all that was called stored

    def next(self, size_bytes: int) -> int:
        """The number of a message that is sent now."""
        number = self.sent
        self.sent += 1
        self._unanswered[number] = size_bytes
        return number

    def stored(self, number: int) -> None:
        """Its sender was told so."""
        self._unanswered.pop(number, None)
        self._top = max(self._top, number)
        if number not in self._acking and number not in self._gone:
            self.waiting.add(number)

    def refused(self, number: int) -> None:
        """Its sender was told so."""
        self._unanswered.pop(number, None)
        self._gone[number] = "refused"

    def acks(self, numbers: Iterable[int]) -> None:
        """The receiver says these: from now on each may be gone."""
        numbers = set(numbers)
        self.waiting -= numbers
        for number in numbers:
            self._unanswered.pop(number, None)
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
        self._look_for_holes(there)
        self._gone |= dict.fromkeys(self._unanswered.keys() - there, "not there after its sender died")
        self._gone |= dict.fromkeys(self._acking - there, "not there after an ack")
        self._unanswered, self._acking, self.waiting = {}, set(), there

    def _look_for_holes(self, there: set[int]) -> None:
        """Before what was told to be stored nothing is missing, for a refusal would have been told too. In the last
        turn it may not have been: there what is missing found no room, and all that is behind it is smaller."""
        largest = -1  # of what is behind, and there
        for number, size_bytes in sorted(self._unanswered.items(), reverse=True):
            if number in there:
                largest = max(largest, size_bytes)
            else:
                assert number > self._top, "there is a hole"
                assert size_bytes > largest, "there is a hole that is no refusal"
