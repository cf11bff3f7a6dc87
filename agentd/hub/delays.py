"""Mail that waits for a time: for the one that its sender has named, for its next attempt after a nack, or for the end
of a hold. The journal knows until when, so a restart changes nothing about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd.hub.receipts import Entry
from agentd.wire.errors import BadRequest, LimitReached
from agentd.wire.messages import Options

if TYPE_CHECKING:
    from agentd.hub.inbox import Inboxes

#: The first attempt: an entry that is delayed then was never in `waiting`.
_FIRST = 1


def is_asked(options: Options) -> bool:
    """Whether its sender names a time."""
    return options.delay is not None or options.at is not None


def due(options: Options, now: float, wall_offset: float, max_delay_s: float) -> float:
    """The time before which its sender wants nobody to be given it; 0 for at once."""
    delay, at = options.delay, options.at
    if not is_asked(options):
        return 0.0
    if delay is not None and at is not None:
        raise BadRequest("delay and at say the same in two ways", "Give one of them.")
    wait_s = delay if delay is not None else (at or 0.0) - wall_offset - now
    if wait_s > max_delay_s:
        raise LimitReached(
            f"This message would wait {wait_s:.0f} s, longer than {max_delay_s:.0f} s",
            "message.max_delay_s sets the limit; name an earlier time.",
        )
    return now + wait_s if wait_s > 0 else 0.0


def begin(inboxes: Inboxes, entry: Entry) -> None:
    """A fresh entry whose time is to come: it has its place in the inbox, and nobody is given it."""
    inboxes.charge(entry)
    _wait(inboxes, entry, entry.due)


def delay(inboxes: Inboxes, entry: Entry, at: float) -> None:
    """A detached entry waits until then before anybody is sent it."""
    _wait(inboxes, entry, at)
    inboxes.journal.moved(entry)


def hold(inboxes: Inboxes, entry: Entry, at: float) -> None:
    """A detached entry is held by its agent, whatever becomes of its sessions."""
    entry.agent.detached[entry.message.id] = entry
    entry.timer = inboxes.deadlines.add(at, lambda now: _hold_over(inboxes, entry, now))
    inboxes.journal.moved(entry)


def _wait(inboxes: Inboxes, entry: Entry, at: float) -> None:
    entry.agent.delayed[entry.message.id] = entry
    entry.timer = inboxes.deadlines.add(at, lambda now: _delay_over(inboxes, entry))


def _delay_over(inboxes: Inboxes, entry: Entry) -> None:
    agent, message = entry.agent, entry.message
    entry.timer = None
    agent.delayed.pop(message.id, None)
    if message.attempt == _FIRST and message.id <= agent.announced:
        agent.unannounced.add(message.id)  # what came behind it was announced; this is news only now
    inboxes.rejoin(entry)
    inboxes.pump(agent)


def _hold_over(inboxes: Inboxes, entry: Entry, now: float) -> None:
    entry.agent.detached.pop(entry.message.id, None)
    entry.timer = None
    inboxes.come_back(entry, now, entry.agent.name, "the hold is over", failed=True)
    inboxes.pump(entry.agent)
