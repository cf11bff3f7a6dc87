"""What outlives an orderly stop: names, undelivered mail, dead letters. The stop-gap until there is a journal.

magic (8 bytes) | crc32c of what follows (4 bytes, little-endian) | msgpack of Kept
"""

from __future__ import annotations

from typing import Final

from msgspec import MsgspecError, Struct, msgpack

from agentd._native import crc32c
from agentd.hub.agents import Agent, UsedKey
from agentd.hub.hub import Hub
from agentd.hub.receipts import ACCEPTED, DEAD, DELIVERED, OVERHEAD_BYTES, Entry
from agentd.wire.errors import BadRequest
from agentd.wire.messages import Message, Transition
from agentd.wire.names import check_name

FORMAT: Final = 1
MAGIC: Final = b"agentdK1"


class KeptMessage(Struct, array_like=True):
    """A message and its transitions."""

    to: str
    message: Message
    transitions: list[Transition]
    until: float | None = None  # held by its agent, or delayed, until then


class KeptKey(Struct, array_like=True):
    """An idempotency key that was used."""

    key: str
    id: int
    at: float
    to: str
    body_bytes: int
    body_crc: int


class KeptName(Struct, array_like=True):
    """A known name, and when it was last live or got mail."""

    name: str
    seen_at: float
    keys: list[KeptKey] = []
    announced: int = 0
    unannounced: list[int] = []


class Kept(Struct, array_like=True):
    """All of it. Times are seconds since 1970."""

    format: int
    next_id: int
    names: list[KeptName]
    mail: list[KeptMessage]
    dead: list[KeptMessage]


def collect(hub: Hub, now: float) -> Kept:
    """Everything worth keeping. The sessions must have left before, so that all mail lies in inboxes."""
    offset = hub.receipts.wall_offset
    named = [agent for agent in hub.agents.by_name.values() if not agent.unnamed]

    def kept(entry: Entry) -> KeptMessage:
        trail = [Transition(state, at + offset, who, note) for state, at, who, note in entry.trail]
        return KeptMessage(entry.to, entry.message, trail, entry.timer.at + offset if entry.timer else None)

    return Kept(
        FORMAT,
        hub.receipts.next_id,
        [
            KeptName(agent.name, agent.seen + offset, _keys(agent, offset), agent.announced, sorted(agent.unannounced))
            for agent in named
        ],
        [
            kept(entry)
            for agent in named
            for entry in (*agent.waiting.values(), *agent.delayed.values(), *agent.detached.values())
        ],
        [kept(entry) for agent in named for entry in agent.dead.values()],
    )


def _keys(agent: Agent, offset: float) -> list[KeptKey]:
    return [KeptKey(key, use.id, use.at + offset, *use[2:]) for key, use in agent.keys.items()]


def encode(kept: Kept) -> bytes:
    """As it lies on disk."""
    data = msgpack.encode(kept)
    return MAGIC + crc32c(data).to_bytes(4, "little") + data


def decode(data: bytes) -> Kept:
    """From disk. BadRequest for what no daemon can have kept: the hub is to be filled whole or not at all."""
    start = len(MAGIC) + 4
    packed = memoryview(data)[start:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != crc32c(packed).to_bytes(4, "little"):
        raise BadRequest("it is cut short, damaged, or something else")
    try:
        kept = msgpack.decode(packed, type=Kept)
    except (MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from None
    if kept.format != FORMAT:
        raise BadRequest(f"format {kept.format}, not {FORMAT}")
    for name in {*(name.name for name in kept.names), *(item.to for item in (*kept.mail, *kept.dead))}:
        check_name(name)
    return kept


def restore(hub: Hub, kept: Kept, now: float) -> None:
    """Into a fresh hub. Mail that expired meanwhile ends as expired."""
    offset = hub.receipts.wall_offset
    hub.receipts.next_id = max(hub.receipts.next_id, kept.next_id)
    for name in kept.names:
        agent = hub.agents.get_or_create(name.name, now, limited=False)
        agent.seen = min(now, name.seen_at - offset)
        hub.agents.watch_idle(agent, agent.seen)
        agent.announced = name.announced
        agent.unannounced.update(name.unannounced)
        for use in name.keys:
            agent.keys[use.key] = UsedKey(use.id, use.at - offset, use.to, use.body_bytes, use.body_crc)
    for item in sorted(kept.mail, key=lambda item: item.message.id):
        entry = _entry(hub, item, now)
        if item.until is None:
            hub.inboxes.put(entry)
        else:
            hub.inboxes.charge(entry)
            place = hub.inboxes.hold_until if entry.state is DELIVERED else hub.inboxes.delay_until
            place(entry, item.until - offset)
        if item.message.details is not None and item.message.details.expires_at is not None:
            hub.inboxes.expire_at(entry, item.message.details.expires_at - offset)
    for item in kept.dead:
        entry = _entry(hub, item, now)
        entry.state = DEAD
        entry.agent.dead[entry.message.id] = entry
        entry.agent.dead_bytes += entry.size_bytes


def _entry(hub: Hub, item: KeptMessage, now: float) -> Entry:
    offset = hub.receipts.wall_offset
    message = item.message
    size = len(message.body)
    trail = [(t.state, t.at - offset, t.who, t.note) for t in item.transitions]
    agent = hub.agents.get_or_create(item.to, now, limited=False)
    state = trail[-1][0] if trail else ACCEPTED
    entry = Entry(message, agent, size + OVERHEAD_BYTES, state, trail)
    if message.details is not None:
        message.details.reply_by = None  # nobody waits any more: a reply goes to the sender's inbox
    hub.receipts.entries[message.id] = entry
    return entry
