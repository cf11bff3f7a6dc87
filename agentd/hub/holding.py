"""Whose messages hold the disk: a segment of the journal goes when nothing before its end is needed any more, so one
old message keeps all that came after it. What is worth it is appended once more, and the segments before go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from agentd.hub.agents import Agent
from agentd.hub.hub import Hub
from agentd.hub.receipts import ENDED, Entry

_SEGMENT_SHIFT: Final = 32


class Holder(NamedTuple):
    """The agent whose oldest message is the oldest of all."""

    name: str
    position: int
    messages: int  # that the journal has for it
    is_dead: bool  # whether the oldest is a dead letter


def oldest(hub: Hub) -> Holder | None:
    """Who holds the disk; None where nothing is kept."""
    holder: tuple[Agent, Entry] | None = None
    for agent in hub.agents.by_name.values():
        for entry in _kept(agent):
            if holder is None or entry.position < holder[1].position:
                holder = (agent, entry)
    if holder is None:
        return None
    agent, entry = holder
    is_dead = entry.message.id in agent.dead
    return Holder(agent.name, entry.position, sum(1 for _ in _kept(agent)), is_dead)


def is_kept(entry: Entry) -> bool:
    """Whether the next start would need its record."""
    return bool(entry.position) and (entry.state not in ENDED or entry.message.id in entry.agent.dead)


def worth_copying(hub: Hub, last: int, segment_bytes: int, part: int) -> list[Entry]:
    """The messages to append once more so that the segments that they lie in can go, oldest first: where they take at
    most one `part`th of these. Of those before segment `last`, and half a segment of them at most."""
    live: dict[int, int] = {}
    for agent in hub.agents.by_name.values():
        for entry in _kept(agent):
            segment = entry.position >> _SEGMENT_SHIFT
            live[segment] = live.get(segment, 0) + entry.size_bytes
    segments = sorted(segment for segment in live if segment < last)
    if not segments:
        return []
    total, upto = 0, 0
    for number, segment in enumerate(segments):
        total += live[segment]
        after = segments[number + 1] if number + 1 < len(segments) else last
        if total * part <= (after - segments[0]) * segment_bytes:
            upto = segment
    found = [
        entry
        for agent in hub.agents.by_name.values()
        for entry in _kept(agent)
        if entry.position >> _SEGMENT_SHIFT <= upto
    ]
    found.sort(key=lambda entry: entry.position)
    room = segment_bytes // 2
    for number, entry in enumerate(found):
        room -= entry.size_bytes
        if room < 0 and number:
            return found[:number]
    return found


def _kept(agent: Agent) -> Iterator[Entry]:
    if agent.unnamed:
        return
    for entry in agent.unfinished():
        if entry.position:
            yield entry
    for entry in agent.dead.values():
        if entry.position:
            yield entry
