"""Plain messages, several at a time: what the daemon does most.

A message is plain when its agent is known and it has no options, or none but that it be kept. A sender that does not
wait for each answer says hundreds in one breath, mostly to one agent: what they have in common is looked at once, and
what is left of each is a message, an entry and its places in the registries; of one that is kept, a record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from agentd.hub.receipts import ACCEPTED, OVERHEAD_BYTES, Entry, Receipts
from agentd.wire.errors import AgentdError
from agentd.wire.messages import Level, Message, Options, Priority, Send, Transition

if TYPE_CHECKING:
    from agentd.hub.agents import Agent
    from agentd.hub.inbox import Inboxes
    from agentd.hub.session import Session

#: As much as is told to a taker at once, charged with what is reckoned beside the bodies: less than a frame.
_MAX_BYTES: Final = 48 * 1024
#: The options of plain messages that are kept, those first that most have.
_KEPT: Final = tuple(
    Options(priority, durable, level=level)
    for level in (None, *Level)
    for priority, durable in ((Priority.LOW, None), (Priority.LOW, True), (Priority.NORMAL, True))
)


class Plain:
    """From sends to entries in one inbox."""

    def __init__(self, by_name: dict[str, Agent], receipts: Receipts, inboxes: Inboxes, max_size_bytes: int) -> None:
        self._by_name = by_name
        self._receipts = receipts
        self._inboxes = inboxes
        self._max_size_bytes = max_size_bytes
        self._journal = receipts.journal

    def send(self, session: Session, verbs: Sequence[Any], first: int, most: int, now: float) -> int:
        """Accept as many as are plain messages to one agent and have room, of the verbs from `first`, a Send, on: how
        many. It refuses nothing: what it does not take, also the first, is for Router.send to look at."""
        verb: Send = verbs[first]
        to, cid = verb.to, verb.cid
        agent = self._by_name.get(to)
        if agent is None or not agent.has_address:
            return 0
        mark = session.mark
        bucket = session.bucket
        name = session.name
        if mark[0][1] != now:  # what came in one turn shares its first transition, and the filling of the bucket
            mark = session.mark = ((ACCEPTED, now, name, ""),)
            bucket.fill(now)
        inboxes = self._inboxes
        if bucket.room < most:
            most = int(bucket.room)
        if most > inboxes.max_messages - agent.count:
            most = inboxes.max_messages - agent.count
        size = len(verb.body) + OVERHEAD_BYTES
        room = min(inboxes.max_bytes - agent.bytes, inboxes.max_total_bytes - inboxes.bytes, max(size, _MAX_BYTES))
        max_size_bytes = self._max_size_bytes
        options = verb.options
        if most < 1 or size > room or size > max_size_bytes or (options is not None and options not in _KEPT):
            return 0
        lane = Priority.NORMAL if options is None else options.priority
        kept = options is not None or not agent.takers
        taker = inboxes.taker_of_fresh(agent)
        if taker is None:
            places: dict[int, Entry] = agent.waiting
        else:
            places = taker.held
            most = min(most, inboxes.may_take(taker))

        receipts = self._receipts
        entries = receipts.entries
        provenance, at = session.provenance, now + receipts.wall_offset
        id = first_id = receipts.next_id
        first_cid, step = cid, 1 if cid else 0  # one answer for all: their numbers must be in a row
        is_passed = not kept and self._journal.is_all_recorded
        used = 0
        messages: list[Message] = []
        kept_ones: list[Entry] = []
        story = [Transition(ACCEPTED, at, name)]
        for verb in verbs[first : first + most]:
            if type(verb) is not Send or verb.cid != cid or verb.to != to or verb.options != options:
                break
            body = verb.body
            size = len(body) + OVERHEAD_BYTES
            if used + size > room or size > max_size_bytes:
                break
            message = Message(id, name, provenance, verb.content, body, at, 1, lane)
            entry = Entry(message, agent, size, ACCEPTED, mark, taker)
            if kept and not self._keep(entry, story, kept_ones):
                break
            if is_passed:
                self._journal.passed(entry, story)
            used += size
            entries[id] = places[id] = entry
            messages.append(message)
            id += 1
            cid += step

        count = id - first_id
        if not count:
            return 0
        receipts.next_id = id
        bucket.room -= count
        agent.count += count
        agent.bytes += used
        inboxes.bytes += used
        body_bytes = used - count * OVERHEAD_BYTES
        receipts.counts.accepted += count
        receipts.counts.accepted_bytes += body_bytes
        session.tally.sent += count
        session.tally.bytes += body_bytes
        if kept_ones:
            self._journal.answer(kept_ones, session, first_cid, None if options is None else options.level)
        elif first_cid:
            session.accept(first_cid, first_id, at, count=count)
        if taker is not None:
            taker.credit -= count
            taker.push_all(messages)
        return count

    def _keep(self, entry: Entry, story: list[Transition], kept: list[Entry]) -> bool:
        """Whether it could be written down; if not, the router says why."""
        if self._journal.book is not None:
            try:
                self._journal.keep_fresh(entry, story)
            except AgentdError:
                return False
            kept.append(entry)
        return True


def hand_over(waiting: OrderedDict[int, Entry], taker: Session, most: int) -> None:
    """The first of what waits to the only one who takes it: as many as fit a frame at a time, at half the cost. Others
    have their turn before it is handed more than it may have at once."""
    held = taker.held
    most = 0 if taker.stalled else min(most, taker.credit)
    messages: list[Message] = []
    size_bytes, at_once_bytes = 0, taker.at_once_bytes
    while waiting and most > 0:
        if at_once_bytes <= 0:
            taker.more_waits()
            break
        id, entry = waiting.popitem(last=False)
        entry.holder = taker
        held[id] = entry
        taker.credit -= 1
        most -= 1
        size_bytes += entry.size_bytes
        at_once_bytes -= entry.size_bytes
        if size_bytes > _MAX_BYTES and messages:
            taker.push_all(messages)
            messages, size_bytes = [], entry.size_bytes
        messages.append(entry.message)
    if messages:
        taker.push_all(messages)
