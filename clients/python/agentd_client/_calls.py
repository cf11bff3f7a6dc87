"""What was said to the daemon and waits for its answer, by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from agentd_client.receipt import Call

C = TypeVar("C", bound=Call)


class Calls:
    """A part of Conversation."""

    def __init__(self, hurry: Callable[[], None]) -> None:
        self._hurry = hurry
        self._cid = 0
        self._open: dict[int, Call] = {}

    def next_cid(self) -> int:
        """The client's own number for its next call."""
        self._cid += 1
        return self._cid

    def open(self, call: C) -> C:
        """The answer to this one's cid will settle it. One that is alone need not wait for others to travel with."""
        self._open[call.cid] = call
        if len(self._open) == 1:
            self._hurry()
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this one any more; its answer will be ignored."""
        self._open.pop(call.cid, None)
