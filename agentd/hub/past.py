"""What a new durable subscription begins with: the events on record from its start on. They are gathered record by
record, in whatever thread reads the journal, and then put into its inbox some at a time, before all that come since."""

from __future__ import annotations

import re
from typing import Final

from agentd.hub.receipts import OVERHEAD_BYTES
from agentd.wire.errors import BadRequest, NoSuchMessage
from agentd.wire.messages import Message
from agentd.wire.names import Pattern, id_value
from agentd.wire.stored import Kept, Passed, Record

NEW: Final = "new"
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGE: Final = re.compile(r"-(\d+(?:\.\d+)?)([smhd])")


def begin_of(start: str, wall: float) -> tuple[float, int]:
    """From which time, and from which id on; `wall` is the time now. BadRequest for what is no start."""
    if start == NEW:
        return wall, 0
    if start == "all":
        return 0.0, 0
    if age := _AGE.fullmatch(start):
        return wall - float(age[1]) * _UNITS[age[2]], 0
    try:
        return 0.0, id_value(start)
    except NoSuchMessage:
        raise BadRequest(f"start {start!r} is not new, all, an age such as -5m, or a message id") from None


class Past:
    """The events of one pattern from a start on, no more than have room: the oldest of them."""

    def __init__(
        self, pattern: str, begin: tuple[float, int], before_id: int, max_messages: int, max_bytes: int
    ) -> None:
        self._expression = Pattern(pattern)
        self._from_time, self._from_id = begin
        self._before_id = before_id  # what came since is in the inbox by itself
        self._max_messages = max_messages
        self._room = max_bytes
        self._found: dict[int, Message] = {}  # by the id that the publisher knows: each subscription has a copy
        self._latest = 0
        self._is_full = False
        self.missed = 0  # behind those that had room

    def add(self, record: Record) -> None:
        """One more, in the order of the journal: there a message that was appended once more comes late."""
        if not isinstance(record, Kept | Passed):
            return
        message = record.message
        details = message.details
        if details is None or details.topic is None:
            return
        id = details.event or message.id
        if not self._from_id <= id < self._before_id or message.sent_at < self._from_time:
            return
        if id in self._found or not self._expression.matches(details.topic):
            return
        is_latest = id > self._latest
        self._latest = max(self._latest, id)
        size_bytes = len(message.body) + OVERHEAD_BYTES
        self._is_full = self._is_full or len(self._found) >= self._max_messages or size_bytes > self._room
        if not self._is_full:
            self._room -= size_bytes
            self._found[id] = message
        elif is_latest:
            self.missed += 1

    def in_order(self) -> list[Message]:
        """What was found."""
        return [message for _, message in sorted(self._found.items())]
