"""CRITICAL and HIGH messages to a receiver without shared memory: first on its socket, at most once, for live agents
only. They lie in its inbox before all others."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from agentd.hub.receipts import DELIVERED, Entry
from agentd.hub.session import Session
from agentd.wire.messages import Priority

if TYPE_CHECKING:
    from agentd.hub.agents import Agent
    from agentd.hub.inbox import Inboxes

_RANKS: Final = {Priority.CRITICAL: 0, Priority.HIGH: 1}
_LAST: Final = 2


def is_urgent(entry: Entry) -> bool:
    """Whether it goes first, and only once."""
    return entry.message.lane in _RANKS


def rank(item: tuple[int, Entry]) -> tuple[int, int]:
    """The order in an inbox: by lane, then by id."""
    id, entry = item
    return _RANKS.get(entry.message.lane, _LAST), id


def to_front(agent: Agent, entry: Entry) -> None:
    """A fresh one, last in `waiting`, goes behind those as urgent and before all others."""
    mine = _RANKS.get(entry.message.lane, _LAST)
    before = []
    for id, other in agent.waiting.items():
        if other is entry or _RANKS.get(other.message.lane, _LAST) > mine:
            break
        before.append(id)
    for id in [entry.message.id, *reversed(before)]:
        agent.waiting.move_to_end(id, last=False)


def rejoin(agent: Agent, entry: Entry) -> bool:
    """Put back one into an inbox where ids alone do not make the order; False where they do."""
    waiting = agent.waiting
    if not is_urgent(entry) and not is_urgent(next(iter(waiting.values()))):
        return False
    waiting[entry.message.id] = entry
    agent.waiting = OrderedDict(sorted(waiting.items(), key=rank))
    return True


def session_gone(inboxes: Inboxes, session: Session, now: float, why: str) -> None:
    """What it was given and had shown is unknown, what it had not goes to another taker; without one all is dead."""
    agent = session.agent
    for entry in [entry for entry in session.held.values() if is_urgent(entry)]:
        if entry.state is DELIVERED:
            inboxes.lose(entry, now, session.name, f"{why}; whether it was done is unknown")
        elif agent.takers:
            inboxes.unhand(entry)
        else:
            inboxes.die(entry, now, agent.name, why, store=False)
    if agent.takers:
        return
    while agent.waiting and is_urgent(first := next(iter(agent.waiting.values()))):
        inboxes.die(first, now, agent.name, why, store=False)
