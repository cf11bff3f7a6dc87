"""What people see of the hub: lists with what is in trouble first. Reads everything, changes nothing."""

from __future__ import annotations

import heapq
from typing import Final

from agentd.host.config import InboxLimits
from agentd.hub.agents import Agent
from agentd.hub.histogram import Histogram
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.wire.bodies import Content
from agentd.wire.messages import AgentsView, AgentView, DeadLetter, DeadView, FlowView, InboxView, Latency, MailView

_PREVIEW_CHARACTERS: Final = 80
_STUCK_S: Final = 60.0


def preview(entry: Entry) -> str:
    """The beginning of a body on one line."""
    body = entry.message.body
    if entry.message.content is Content.BYTES:
        return f"{len(body)} bytes"
    text = " ".join(body[: 4 * _PREVIEW_CHARACTERS].decode(errors="replace").split())
    return text if len(text) <= _PREVIEW_CHARACTERS else text[: _PREVIEW_CHARACTERS - 1] + "…"


def agent_view(agent: Agent, now: float, limits: InboxLimits) -> AgentView:
    """One agent's row."""
    held = agent.held()
    oldest_s = _oldest_s(agent, now)
    first = agent.takers[0] if agent.takers else (agent.sessions[0] if agent.sessions else None)
    return AgentView(
        name=agent.name,
        live=agent.live,
        pid=first.pid if first else None,
        command=first.command if first else None,
        waiting=len(agent.waiting) + len(agent.delayed),
        held=len(held),
        dead=len(agent.dead),
        bytes=agent.bytes,
        oldest_s=oldest_s,
        seen_s=0.0 if agent.sessions or agent.takers else max(0.0, now - agent.seen),
        trouble=_trouble(agent, now, oldest_s, limits),
        limited=agent.limited.seen(now),
        refused=agent.refused.seen(now),
        requests=agent.requests_under_way(),
        subscriptions=agent.subscriptions(),
    )


def _trouble(agent: Agent, now: float, oldest_s: float | None, limits: InboxLimits) -> str:
    """What somebody should look at, or nothing. What was refused is shown for a minute, the rest while it lasts."""
    found = ["paused"] if agent.paused else []
    if agent.limited.seen(now):
        found.append(f"over its rate {now - agent.limited.at:.0f} s ago")
    if agent.count >= limits.max_messages:
        found.append("inbox full")
    if agent.held_count >= limits.max_held:
        found.append(f"holds {_count(agent.held_count, 'message')}, gets no more until it settles some")
    for pair in [pair for session in agent.sessions for pair in session.reads_from.values() if pair.kept]:
        kept_s = now - pair.kept_since
        bodies = "1 large body" if pair.kept == 1 else f"{pair.kept} large bodies"
        found.append(f"keeps {bodies} that {pair.sender_name} sent, for {kept_s:.0f} s")
    if refused := agent.refused.seen(now):
        found.append(f"{_count(refused, 'send', 'refused')}, the last {now - agent.refused.at:.0f} s ago")
    if agent.dead:
        found.append(_count(len(agent.dead), "dead letter"))
    if agent.dead_dropped:
        found.append(_count(agent.dead_dropped, "older dead letter", "dropped"))
    if any(taker.stalled for taker in agent.takers):
        found.append("does not read its socket")
    elif agent.live and oldest_s is not None and oldest_s > _STUCK_S:
        found.append(f"takes nothing: oldest waits {oldest_s:.0f} s")
    return ", ".join(found)


def _count(number: int, noun: str, more: str = "") -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}{' ' if more else ''}{more}"


def agents(hub: Hub, cid: int, now: float) -> AgentsView:
    """All agents: those over their rate first, then others in trouble, then live ones, then by name."""
    rows = [
        agent_view(agent, now, hub.config.inbox)
        for agent in hub.agents.by_name.values()
        # A connection without a name is an agent only while something is due to it, or to be said of it.
        if not agent.unnamed or agent.count or agent.limited.seen(now)
    ]
    rows.sort(key=lambda row: (not row.limited, not row.trouble, not row.live, row.name))
    return AgentsView(cid, rows)


def inbox(hub: Hub, cid: int, name: str, limit: int) -> InboxView:
    """An agent's mail: those tried before first, then what is held, then what waits."""
    agent = hub.agents.get(name)
    entries = [*agent.held(), *agent.delayed.values(), *agent.waiting.values()]
    entries.sort(key=lambda entry: (entry.message.attempt == 1, entry.message.id))
    rows = [_mail_view(entry, hub.receipts.until(entry)) for entry in entries[:limit]]
    return InboxView(cid, name, len(entries), rows)


def _mail_view(entry: Entry, until: float | None) -> MailView:
    message = entry.message
    holder = f"pid {entry.holder.pid}" if entry.holder else "held" if entry.message.id in entry.agent.detached else ""
    details = message.details
    return MailView(
        message.id,
        entry.state,
        message.sender,
        message.content,
        entry.body_bytes,
        preview(entry),
        message.sent_at,
        message.attempt,
        holder,
        details.re if details else None,
        until,
    )


def dead(hub: Hub, cid: int, name: str | None, limit: int) -> DeadView:
    """Dead letters, newest first."""
    chosen = [hub.agents.get(name)] if name is not None else list(hub.agents.by_name.values())
    entries = hub.dead.listed(chosen)
    offset = hub.receipts.wall_offset
    letters = [
        DeadLetter(
            entry.message.id,
            entry.to,
            entry.message.sender,
            hub.dead.reason(entry),
            entry.message.attempt,
            entry.message.content,
            entry.body_bytes,
            preview(entry),
            entry.message.sent_at,
            entry.trail[-1][1] + offset,
        )
        for entry in entries[:limit]
    ]
    return DeadView(cid, len(entries), letters)


def latency(histogram: Histogram | None) -> Latency:
    """What was measured, as it is shown."""
    if histogram is None or not histogram.count:
        return Latency()
    p50, p90, p99, p999 = (found / 1e9 for found in histogram.quantiles(0.5, 0.9, 0.99, 0.999))
    return Latency(histogram.count, p50, p90, p99, p999, histogram.longest_ns / 1e9)


def lane_flow(hub: Hub, now: float, name: str) -> FlowView:
    """The row of the lane whose messages lie in the hub's inboxes."""
    counts = hub.receipts.counts
    waiting, held, _ = totals(hub)
    ages = [age for agent in hub.agents.by_name.values() if (age := _oldest_s(agent, now)) is not None]
    return FlowView(
        name,
        counts.accepted,
        counts.delivered,
        counts.acked,
        counts.dead,
        counts.expired,
        counts.refused,
        counts.accepted_bytes,
        waiting + held,
        max(ages, default=None),
        latency(counts.latency),
    )


def flows(hub: Hub, now: float, limit: int) -> list[FlowView]:
    """The rows of so many agents, the busiest first."""
    agents = list(hub.agents.by_name.values())
    if len(agents) > limit:
        agents = heapq.nlargest(limit, agents, key=_business)
    else:
        agents.sort(key=_business, reverse=True)
    return [_flow(agent, now) for agent in agents]


def _business(agent: Agent) -> int:
    return agent.tally.sent + agent.tally.delivered + agent.count


def _flow(agent: Agent, now: float) -> FlowView:
    tally = agent.tally
    return FlowView(
        agent.name,
        tally.sent,
        tally.delivered,
        tally.acked,
        tally.dead,
        tally.expired,
        tally.refused,
        tally.bytes,
        agent.count,
        _oldest_s(agent, now),
        latency(tally.latency),
    )


def _oldest_s(agent: Agent, now: float) -> float | None:
    oldest = next(iter(agent.waiting.values()), None)
    return None if oldest is None else max(0.0, now - oldest.began)


def totals(hub: Hub) -> tuple[int, int, int]:
    """Waiting, held and dead over all agents."""
    waiting = held = dead = 0
    for agent in hub.agents.by_name.values():
        here = len(agent.waiting) + len(agent.delayed)
        waiting += here
        held += agent.count - here
        dead += len(agent.dead)
    return waiting, held, dead
