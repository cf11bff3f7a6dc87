"""What is always true of a hub, whatever was done to it. `check` walks every registry and holds each against the
others; the state machine calls it after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from fakes import FakeSession

from agentd.hub.agents import Agent
from agentd.hub.deadlines import Deadline
from agentd.hub.hub import Hub
from agentd.hub.receipts import ACCEPTED, DEAD, DELIVERED, ENDED, EXPIRED, STORED, TRANSITIONS, Entry, Retention
from agentd.wire.messages import Answer, Error, Receipt, State
from agentd.wire.names import SUBSCRIPTION

MAX_TRAIL = 64


class Watch(NamedTuple):
    """A call that waits for a state of its message."""

    session: FakeSession
    cid: int
    wanted: State
    entry: Entry
    since: int  # transitions before it


def ended(entry: Entry) -> bool:
    """Whether nothing more will become of it. For an event, `delivered` to its last subscription is the end."""
    return entry.state in ENDED or (entry.is_event and entry.state is DELIVERED)


def all_agents(hub: Hub) -> list[Agent]:
    """Also those that are forgotten, while some message still names them."""
    found = {id(agent): agent for agent in hub.agents.by_name.values()}
    found.update((id(entry.agent), entry.agent) for entry in hub.receipts.entries.values())
    return list(found.values())


def check(hub: Hub, now: float, forgotten_names: int) -> None:
    """Raise AssertionError for the first thing that is not as it must be."""
    agents = all_agents(hub)
    _check_places(hub, agents)
    for entry in hub.receipts.entries.values():
        _check_trail(entry, now)
    for agent in agents:
        _check_agent(hub, agent)
    _check_names(hub)
    _check_sessions(hub)
    _check_requests(hub, agents)
    _check_topics(hub)
    _check_deadlines(hub, agents, forgotten_names)
    assert hub.inboxes.bytes == sum(agent.bytes for agent in agents)


def _retentions(hub: Hub, agents: list[Agent]) -> list[Retention]:
    found = {id(agent.ended): agent.ended for agent in agents}
    found[id(hub.receipts.unnamed)] = hub.receipts.unnamed
    return list(found.values())


def _check_places(hub: Hub, agents: list[Agent]) -> None:
    """Every message is in exactly one place, and its state is one that belongs there."""
    places: Counter[int] = Counter()

    def lies(entry: Entry, right_state: bool) -> None:
        places[entry.message.id] += 1
        assert hub.receipts.entries.get(entry.message.id) is entry, f"{entry} has a place and is not known"
        assert right_state, f"{entry.state} does not belong where {entry} lies"

    for agent in agents:
        for entry in (*agent.waiting.values(), *agent.delayed.values()):
            lies(entry, entry.state in (ACCEPTED, STORED) and entry.holder is None)
        for entry in agent.detached.values():
            lies(entry, entry.state is DELIVERED and entry.holder is None)
        for entry in agent.dead.values():
            lies(entry, entry.state is DEAD)
        if hub.receipts.journal.book is not None and not agent.unnamed and not agent.live:
            left = [*agent.unfinished(), *agent.dead.values()]  # an answer on its way to a session is not left behind
            unkept = [entry for entry in left if not entry.position and entry.holder is None]
            assert not unkept, f"{agent.name} is absent, and the journal has nothing of {unkept}"
    holders = {taker for session in hub.sessions for taker in (session, *session.cursors.values())}
    for holder in holders:
        for entry in holder.held.values():
            lies(entry, entry.state not in ENDED and entry.holder is holder)
    for retention in _retentions(hub, agents):
        for entry in retention.entries:
            lies(entry, ended(entry) and entry.message.body == b"")
    for entry in hub.receipts.entries.values():
        if entry.outstanding:
            lies(entry, entry.is_event and entry.state is ACCEPTED)
        assert places[entry.message.id] == 1, f"{entry} has {places[entry.message.id]} places"
        if entry.holder is not None:
            assert entry.holder.held.get(entry.message.id) is entry and entry.holder in holders


def _check_trail(entry: Entry, now: float) -> None:
    states = [state for state, _, _, _ in entry.trail]
    times = [at for _, at, _, _ in entry.trail]
    assert times == sorted(times) and times[-1] <= now
    assert states[0] is ACCEPTED and len(states) <= MAX_TRAIL + 2
    if entry.is_event:
        assert states in ([ACCEPTED, EXPIRED], [ACCEPTED, *[DELIVERED] * (len(states) - 1)])
        return
    for before, after in pairwise(states):
        assert after in TRANSITIONS[before], f"{before} -> {after}"
    assert states[-1] is entry.state


def _check_agent(hub: Hub, agent: Agent) -> None:
    config = hub.config
    holders = [taker for session in hub.sessions for taker in (session, *session.cursors.values())]
    held = [e for holder in holders for e in holder.held.values() if e.agent is agent]
    mail = [*agent.waiting.values(), *agent.delayed.values(), *agent.detached.values(), *held]
    assert all(entry.agent is agent for entry in mail)
    assert agent.count == len(mail)
    assert agent.bytes == sum(entry.size_bytes for entry in mail)
    assert list(agent.waiting) == sorted(agent.waiting)
    assert agent.held_count == len(agent.detached) + len(held)
    if agent.waiting and agent.held_count < config.inbox.max_held and not agent.paused:
        assert not any(taker.credit > 0 and not taker.stalled for taker in agent.takers), "mail waits for a ready taker"
    for entry in mail:
        assert 1 <= entry.message.attempt <= config.message.max_attempts
        details = entry.message.details
        assert details is None or details.hops <= config.message.max_hops
    for entry in (*agent.delayed.values(), *agent.detached.values()):
        assert entry.timer is not None and entry.timer.action is not None
    assert len(agent.dead) <= config.dead.max_messages
    assert agent.dead_bytes == sum(entry.size_bytes for entry in agent.dead.values())
    assert len(agent.ended.entries) <= config.trace.max_messages
    assert agent.ended.armed or not agent.ended.entries
    assert len(agent.keys) <= config.agents.max_keys
    if agent.source is None:
        assert set(agent.takers) <= set(agent.sessions) <= hub.sessions
    assert len(agent.takers) < 2 or all(taker.shares for taker in agent.takers)


def _check_names(hub: Hub) -> None:
    by_name = hub.agents.by_name
    named = [agent for agent in by_name.values() if not agent.unnamed]
    assert hub.agents.named == len(named) <= hub.config.agents.max_names
    for name, agent in by_name.items():
        assert agent.name == name
        assert agent.sessions or not agent.unnamed, f"{name} is nobody's"
        remains = agent.sessions or agent.source is not None
        assert remains or agent.forgetting is not None, f"nobody will forget {name}"
        assert name.startswith(SUBSCRIPTION) == (agent.source is not None)


def _check_sessions(hub: Hub) -> None:
    assert sum(len(agent.sessions) for agent in hub.agents.by_name.values()) == len(hub.sessions)
    for session in hub.sessions:
        assert session in session.agent.sessions
        assert session.takes == (session in session.agent.takers)
        assert session.credit >= 0
        outstanding = [e for s in session.subscriptions.values() for e in s.outstanding.values()]
        assert session.event_bytes == sum(entry.size_bytes for entry in outstanding)
    for entry in hub.receipts.entries.values():
        for session, cid, _ in entry.watchers or ():
            assert session in hub.sessions and session.watching[cid] == entry.message.id


def _check_requests(hub: Hub, agents: list[Agent]) -> None:
    """An open request is known in three places, or in none."""
    open_requests = [entry for entry in hub.receipts.entries.values() if entry.asker is not None]
    for entry in open_requests:
        assert entry.asker is not None
        session, cid = entry.asker
        assert session in hub.sessions and session.asking.get(cid) is entry
        assert entry.agent.requests.get(entry.message.id) is entry
        assert entry.asking_until is not None and entry.asking_until.action is not None
        assert entry.state not in ENDED
    assert len(open_requests) == sum(len(agent.requests) for agent in agents)
    assert len(open_requests) == sum(len(session.asking) for session in hub.sessions)


def _check_topics(hub: Hub) -> None:
    mine = {number: s for session in hub.sessions for number, s in session.subscriptions.items()}
    assert mine == hub.topics.subscriptions
    outstanding = Counter(number for s in mine.values() for number in s.outstanding)
    for entry in hub.receipts.entries.values():
        assert entry.outstanding == outstanding[entry.message.id]
    assert all(len(s.outstanding) <= hub.config.topics.max_events for s in mine.values())
    _check_cursors(hub)


def _check_cursors(hub: Hub) -> None:
    """Each is known to its session and to its inbox, and has no more unsettled than it may."""
    cursors = {(session, number): c for session in hub.sessions for number, c in session.cursors.items()}
    durable = [agent for agent in hub.agents.by_name.values() if agent.source is not None]
    assert {taker for agent in durable for taker in agent.takers} == set(cursors.values())
    for (session, number), cursor in cursors.items():
        assert (cursor.session, cursor.number) == (session, number)
        assert cursor in cursor.agent.takers and len(cursor.held) <= cursor.window
        assert all(entry.agent is cursor.agent for entry in cursor.held.values())
    for agent in durable:
        assert agent.source is not None and not agent.sessions and not agent.requests
        assert not agent.source.is_filling or agent.paused
        events = [entry.message.details for entry in (*agent.unfinished(), *agent.dead.values())]
        assert all(d is not None and d.event is not None and agent.source.matches(d.topic or "") for d in events)


def _check_deadlines(hub: Hub, agents: list[Agent], forgotten_names: int) -> None:
    """As many as there are things that wait for one; a forgotten name's traces may have left one more each."""
    live: set[Deadline | None] = {agent.forgetting for agent in agents}
    for entry in hub.receipts.entries.values():
        live |= {entry.expiry, entry.timer, entry.asking_until}
    waits = sum(deadline is not None and deadline.action is not None for deadline in live)
    armed = sum(retention.armed for retention in _retentions(hub, agents))
    filling = sum(agent.source is not None and agent.source.is_filling for agent in agents)
    assert len(hub.deadlines) <= waits + armed + forgotten_names + filling
    heap = hub.deadlines._heap
    assert len(hub.deadlines) == sum(deadline.action is not None for deadline in heap)
    assert len(heap) <= 2 * len(hub.deadlines) + 66


def check_requests(asked: Sequence[tuple[FakeSession, int]], hub: Hub) -> None:
    """Each ended at most once; and unless it is still open, once."""
    for session, cid in asked:
        said = [m for m in session.everything() if isinstance(m, Answer | Error) and m.cid == cid]
        assert len(said) <= 1, f"request {cid} ended twice: {said}"
        if session in hub.sessions:
            assert bool(said) != (cid in session.asking), f"request {cid}: {said}"


def check_watches(watches: Sequence[Watch], hub: Hub) -> None:
    """Each was told once when its message had come so far or had ended, and not before."""
    for session, cid, wanted, entry, since in watches:
        if session not in hub.sessions or len(entry.trail) >= MAX_TRAIL - 4:  # it left, or the trail is shortened
            continue
        reached = {state for state, _, _, _ in entry.trail[since:]}
        due = wanted in reached or bool(reached.intersection(ENDED))
        told = [receipt for receipt in session.told(Receipt) if receipt.cid == cid]
        assert len(told) == due, f"{told} of {entry.trail}"
        assert all(receipt.state is wanted or receipt.state in ENDED for receipt in told)
