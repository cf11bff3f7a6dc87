"""What the records of the journal come to, for people: which messages there were, and what each came to last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from agentd.wire.messages import Message, State, Transition
from agentd.wire.stored import Acked, Died, Ended, Kept, Moved, Passed, Record, Recording

#: Whether a message, to that agent or on that topic, is asked for.
Wanted = Callable[[str, Message], bool]

#: A record of an earlier version says that it is over, and not how.
_OVER: Final = Transition(State.UNKNOWN, 0.0, "")


class Came(Struct, gc=False):
    """One message: where its latest record with a body is, and the state it reached last."""

    position: int
    last: Transition


class Story:
    """Told record by record, in their order. What it takes is a little for each message that is asked for."""

    def __init__(self, wanted: Wanted) -> None:
        self.messages: dict[int, Came] = {}
        self.since: float | None = None  # the first message that there is a record of was accepted then
        self.all_since: float | None = None  # from then on those are here too that were not kept
        self.missed = 0  # records for which there was no room
        self._wanted = wanted

    def add(self, position: int, record: Record) -> None:
        """One more."""
        match record:
            case Kept():
                self._note_time(record.message.sent_at)
                last = record.transitions[-1] if record.transitions else _OVER
                if last.state is State.ACCEPTED:
                    last = Transition(State.STORED, last.at, "agentd")  # by this very record
                self._come(position, record.to, record.message, last)
            case Passed():
                self._note_time(record.message.sent_at)
                if self.all_since is None:
                    self.all_since = record.message.sent_at
                self._come(position, record.to, record.message, record.transitions[-1])
            case Moved() | Died():
                if (came := self.messages.get(record.id)) is not None and record.transitions:
                    came.last = record.transitions[-1]
            case Acked():
                self._end(record.ids, Transition(State.ACKED, record.at, ""))
            case Ended():
                self._end(record.ids, record.transition or _OVER)
            case Recording():
                self.missed += record.missed
                if self.all_since is None:
                    self.all_since = record.at
            case _:
                pass

    def _note_time(self, at: float) -> None:
        if self.since is None:
            self.since = at

    def _come(self, position: int, to: str, message: Message, last: Transition) -> None:
        if (came := self.messages.get(message.id)) is not None:
            came.position, came.last = position, last
        elif self._wanted(to, message):
            self.messages[message.id] = Came(position, last)

    def _end(self, ids: list[int], transition: Transition) -> None:
        for id in ids:
            if (came := self.messages.get(id)) is not None:
                came.last = transition

    def newest(self, count: int) -> None:
        """Forget all but the newest: ids only go up."""
        for id in sorted(self.messages)[: max(0, len(self.messages) - count)]:
            del self.messages[id]
