"""What became of messages that the journal had, over a restart: `trace` and a key that is said again go on answering,
for as long as they would have without one.

A checkpoint has those that had ended by then. Who ended after it is known by the records behind it: how a message
ended is a part of the record of its end. Bodies are gone, as they are without a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from msgspec import MsgspecError, Raw, Struct, msgpack

from agentd.hub.receipts import OVERHEAD_BYTES, Entry
from agentd.wire.errors import BadRequest
from agentd.wire.messages import Message, State, Transition
from agentd.wire.stored import Acked, Ended, Kept

if TYPE_CHECKING:
    from agentd.hub.hub import Hub

#: What is encoded in one go: so long does the loop wait for the thread that does it.
_AT_A_TIME: Final = 500


#: One takes about so much, and seldom more.
_ABOUT_BYTES: Final = 256


class Over(Struct, array_like=True, gc=False):
    """A message that has ended, without its body."""

    to: str
    message: Message
    body_bytes: int
    trail: list[Transition]


_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder(list[Over]).decode


def collect(hub: Hub, room_bytes: int) -> list[Entry]:
    """Those that are worth keeping, the latest where all would take more than that. Nothing of them changes any more:
    another thread may encode them."""
    found = [
        entry
        for agent in hub.agents.by_name.values()
        if not agent.unnamed
        for entry in agent.ended.entries
        if entry.position or entry.is_stored
    ]
    most = room_bytes // _ABOUT_BYTES
    if len(found) > most:
        found.sort(key=lambda entry: entry.trail[-1][1], reverse=True)
        del found[most:]
        found.reverse()
    return found


def encode(entries: list[Entry]) -> Iterator[Raw]:
    """As they lie in a checkpoint, some at a time. Times are those of this run's clock: the checkpoint has the rest."""
    for begin in range(0, len(entries), _AT_A_TIME):
        # An entry's transitions are written as Transition is, without being made into one.
        some = [(e.agent.name, e.message, e.body_bytes, e.trail) for e in entries[begin : begin + _AT_A_TIME]]
        yield Raw(_encode(some))


class Remembered:
    """Those of a checkpoint, and of the records behind it."""

    def __init__(self, chunks: list[Raw], offset: float) -> None:
        self._over: dict[str, dict[int, Over]] = {}  # by agent: who is forgotten takes them along
        for chunk in chunks:
            try:
                some = _decode(chunk)
            except MsgspecError as error:
                raise BadRequest(str(error)) from None
            for over in some:
                for transition in over.trail:
                    transition.at += offset
                self._add(over)

    def _add(self, over: Over) -> None:
        self._over.setdefault(over.to, {})[over.message.id] = over

    def acked(self, kept: Kept, record: Acked, place: int) -> None:
        """The message at that place of the record was acked, as most are."""
        if not record.delivered:
            return  # an earlier version wrote it
        trail = kept.transitions
        state = trail[-1].state if trail else None
        if record.stored[place] and state is State.ACCEPTED:
            trail.append(Transition(State.STORED, record.stored[place], "agentd"))
        if state is not State.DELIVERED:  # else it was held, and known to be delivered
            trail.append(Transition(State.DELIVERED, record.delivered[place], record.who))
        trail.append(Transition(State.ACKED, record.at, record.who))
        self._end(kept, trail)

    def ended(self, kept: Kept, record: Ended) -> None:
        """It ended in some other way."""
        if record.story:
            self._end(kept, record.story)

    def _end(self, kept: Kept, trail: list[Transition]) -> None:
        size_bytes = len(kept.message.body)
        kept.message.body = b""
        self._add(Over(kept.to, kept.message, size_bytes, trail))

    def is_known(self, kept: Kept) -> None:
        """A message under that id came after what had it in a run that nobody remembers."""
        over = self._over.get(kept.to)
        if over is not None:
            over.pop(kept.message.id, None)

    def forgotten(self, name: str) -> None:
        """Nobody of that name is known any more."""
        self._over.pop(name, None)

    def restore(self, hub: Hub, now: float) -> None:
        """Into a hub that knows all names: what a running one would still have."""
        offset = hub.receipts.wall_offset
        for name, some in self._over.items():
            agent = hub.agents.by_name.get(name)
            if agent is None:
                continue
            entries = []
            for over in sorted(some.values(), key=lambda over: over.trail[-1].at):
                trail = tuple((step.state, min(now, step.at - offset), step.who, step.note) for step in over.trail)
                entry = Entry(over.message, agent, over.body_bytes + OVERHEAD_BYTES, trail[-1][0], trail)
                entry.is_stored = True
                entries.append(entry)
            hub.receipts.restore(agent.ended, entries, now)
