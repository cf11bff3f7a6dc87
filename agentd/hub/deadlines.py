"""What must happen at a time: a heap of deadlines that the server sleeps on, so that an idle daemon never wakes."""

from __future__ import annotations

import heapq
from collections.abc import Callable

#: Below this many, cancelled deadlines simply wait for their time.
_COMPACT_AT = 64


class Deadline(list[float]):
    """One thing to do at `at`; cancelled when it need not be done any more.

    A list of the time and a number that no other has, because that is what the heap orders it by: a list's own order
    costs no call.
    """

    __slots__ = ("action", "at", "deadlines")
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, at: float, number: int, action: Callable[[float], None], deadlines: Deadlines) -> None:
        self += (at, number)
        self.at = at
        self.action: Callable[[float], None] | None = action
        self.deadlines = deadlines

    def cancel(self) -> None:
        """Don't do it. Harmless when it was done."""
        if self.action is not None:
            self.action = None
            self.deadlines.note_cancelled()


class Deadlines:
    """All deadlines, soonest first; those for the same time in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._cancelled = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"waiting": len(self), "cancelled": self._cancelled}

    def add(self, at: float, action: Callable[[float], None]) -> Deadline:
        """Call `action(now)` once `now` has reached `at`."""
        self._number += 1
        deadline = Deadline(at, self._number, action, self)
        heapq.heappush(self._heap, deadline)
        return deadline

    def note_cancelled(self) -> None:
        """Called by Deadline.cancel. Most deadlines are cancelled: keep the heap as long as what is left of it."""
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [deadline for deadline in self._heap if deadline.action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the soonest is due."""
        while self._heap and self._heap[0].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0].at if self._heap else None

    def run(self, now: float) -> None:
        """Do all that is due."""
        while (at := self.next()) is not None and at <= now:
            deadline = heapq.heappop(self._heap)
            action, deadline.action = deadline.action, None
            assert action is not None
            action(now)
