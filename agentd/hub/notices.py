"""Notices: telling an agent that mail came, each message once.

Ids only go up, so one number an agent says how far it was told. What could not be told then is named one by one: a
message that was on its way to a taker comes back if that taker dies before it saw it, a requeued one is new again, and
whoever asked may have died, or given up waiting, before it showed the answer to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentd.hub.agents import Agent
from agentd.hub.receipts import DELIVERED, Entry
from agentd.hub.session import Session
from agentd.wire.messages import Notice, NoticeRow, NoticeView, Priority

if TYPE_CHECKING:
    from agentd.hub.hub import Hub

_MAX_SENDERS: Final = 8
_URGENCY: Final = {priority: rank for rank, priority in enumerate(Priority)}


def notice(hub: Hub, session: Session, verb: Notice) -> NoticeView:
    """Announce what waits and was not announced before. What the session was told before, it has shown by now."""
    agent = hub.agents.get(verb.name)
    fresh = _fresh(agent)
    _remember(agent)
    session.announced = (agent, {entry.message.id for entry in fresh}) if fresh else None
    rows: dict[str, NoticeRow] = {}
    for entry in fresh:
        lane = entry.message.lane
        row = rows.setdefault(entry.message.sender, NoticeRow(entry.message.sender, 0, lane))
        row.count += 1
        row.lane = min(row.lane, lane, key=_URGENCY.__getitem__)
    senders = sorted(rows.values(), key=lambda row: _URGENCY[row.lane])  # stable: then who waits longest
    return NoticeView(verb.cid, agent.name, len(fresh), len(agent.waiting), senders[:_MAX_SENDERS])


def session_gone(session: Session) -> None:
    """It ended without saying that it had shown what it was told: then nobody was."""
    if session.announced is not None:
        agent, ids = session.announced
        agent.unannounced |= ids
        session.announced = None


def _fresh(agent: Agent) -> list[Entry]:
    """What waits unannounced, oldest first."""
    fresh = []
    for id in reversed(agent.waiting):
        if id <= agent.announced:
            break
        fresh.append(agent.waiting[id])
    late = [id for id in agent.unannounced if id <= agent.announced and id in agent.waiting]
    fresh += [agent.waiting[id] for id in sorted(late, reverse=True)]
    return fresh[::-1]


def _remember(agent: Agent) -> None:
    """All that waits is announced now; what is on its way to a taker is not, unless it was before."""
    on_its_way = {
        id
        for taker in agent.takers
        for id, entry in taker.held.items()
        if entry.state is not DELIVERED and (id > agent.announced or id in agent.unannounced)
    }
    latest = next(reversed(agent.waiting), 0)
    agent.announced = max(agent.announced, latest, *on_its_way)
    agent.unannounced = on_its_way
