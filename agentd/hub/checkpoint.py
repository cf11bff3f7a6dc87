"""What outlives the daemon, as one thing: names, mail, dead letters. A checkpoint is that at one position of the
journal; what comes after it there is applied to it, record by record, and the hub of the next start is filled with it.

A message's own record stays where it is, and a checkpoint says where: bodies are written once.

magic (8 bytes) | crc32c of what follows (4 bytes, little-endian) | msgpack of Checkpoint
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import MsgspecError, Raw, Struct, msgpack

from agentd._native import crc32c
from agentd.hub import delays
from agentd.hub.agents import Agent, Source, UsedKey
from agentd.hub.hub import Hub
from agentd.hub.receipts import ACCEPTED, DEAD, DELIVERED, OVERHEAD_BYTES, STORED, Entry
from agentd.hub.remembered import Remembered
from agentd.wire.errors import BadRequest
from agentd.wire.messages import Transition
from agentd.wire.names import ANONYMOUS, SUBSCRIPTION, check_name
from agentd.wire.stored import Acked, Died, Durable, Ended, Forgotten, Kept, Moved, Named, Passed, Record, Recording

FORMAT: Final = 2
MAGIC: Final = b"agentdK2"
_AT_A_TIME: Final = 1000
_RESTARTED: Final = "agentd was started anew"


class Placed(Struct, array_like=True):
    """A message: where its record is, and what has become of it since."""

    position: int
    attempt: int
    transitions: list[Transition]
    until: float | None = None  # held by its agent, or delayed, until then
    expires_at: float | None = None


class KnownKey(Struct, array_like=True):
    """An idempotency key that was used."""

    key: str
    id: int
    at: float
    to: str
    body_bytes: int
    body_crc: int


class KnownName(Struct, array_like=True):
    """A known name, and when it was last live or got mail. Of a durable subscription it is sub:NAME."""

    name: str
    seen_at: float
    keys: list[KnownKey] = []
    announced: int = 0
    unannounced: list[int] = []
    pattern: str | None = None  # of a durable subscription
    missed: int = 0
    filling: bool = False


class Checkpoint(Struct, array_like=True):
    """All of it, as it was before the record at `position`. Times are seconds since 1970."""

    format: int
    position: int
    next_id: int
    names: list[KnownName]
    mail: list[Placed]
    dead: list[Placed]
    over: list[Raw] = []  # see remembered.py
    offset: float = 0.0  # what makes its times seconds since 1970


def collect(hub: Hub, position: int) -> Checkpoint:
    """Everything worth keeping that the journal has messages of."""
    offset = hub.receipts.wall_offset
    named = [agent for agent in hub.agents.by_name.values() if not agent.unnamed]
    for agent in named:
        if agent.source is not None:
            agent.source.is_noted = False  # it has the number; what is missed from here on makes that wrong

    def placed(entry: Entry) -> Placed:
        until = hub.receipts.until(entry)
        details = entry.message.details
        expires_at = None if details is None else details.expires_at
        return Placed(entry.position, entry.message.attempt, hub.receipts.journal.story(entry), until, expires_at)

    return Checkpoint(
        FORMAT,
        position,
        hub.receipts.next_id,
        [
            KnownName(
                agent.name,
                agent.seen + offset,
                _keys(agent, offset),
                agent.announced,
                sorted(agent.unannounced),
                None if agent.source is None else agent.source.pattern,
                0 if agent.source is None else agent.source.missed,
                agent.source is not None and agent.source.is_filling,
            )
            for agent in named
        ],
        [placed(entry) for agent in named for entry in agent.unfinished() if entry.position],
        [placed(entry) for agent in named for entry in agent.dead.values() if entry.position],
        offset=offset,
    )


def counted(hub: Hub) -> str:
    """How much that is, for people."""
    named = [agent for agent in hub.agents.by_name.values() if not agent.unnamed]
    mail, dead = sum(agent.count for agent in named), sum(len(agent.dead) for agent in named)
    return f"{len(named)} names, {mail} messages, {dead} dead letters"


def _keys(agent: Agent, offset: float) -> list[KnownKey]:
    return [KnownKey(key, use.id, use.at + offset, *use[2:]) for key, use in agent.keys.items()]


def needed(checkpoint: Checkpoint) -> int:
    """The first position that a start with it reads."""
    return min([checkpoint.position, *(placed.position for placed in (*checkpoint.mail, *checkpoint.dead))])


def encode(checkpoint: Checkpoint) -> bytes:
    """As it lies on disk."""
    data = msgpack.encode(checkpoint)
    return MAGIC + crc32c(data).to_bytes(4, "little") + data


def decode(data: bytes) -> Checkpoint:
    """From disk. BadRequest for what no daemon can have written: the hub is to be filled whole or not at all."""
    start = len(MAGIC) + 4
    packed = memoryview(data)[start:]
    if data[: len(MAGIC)] != MAGIC or data[len(MAGIC) : start] != crc32c(packed).to_bytes(4, "little"):
        raise BadRequest("it is cut short, damaged, or something else")
    try:
        found = msgpack.decode(packed, type=Checkpoint)
    except (MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from None
    if found.format != FORMAT:
        raise BadRequest(f"format {found.format}, not {FORMAT}")
    for name in found.names:
        check_name(name.name if name.pattern is None else name.name.removeprefix(SUBSCRIPTION))
    return found


class Mail(Struct):
    """One message that came back."""

    position: int
    kept: Kept
    is_dead: bool = False


class Recovered:
    """A checkpoint, and every record after it, applied."""

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self.next_id = 0
        self.names: dict[str, KnownName] = {}
        self.mail: dict[int, Mail] = {}
        self.missing = 0  # messages whose record is damaged
        self.over = Remembered([], 0.0)
        if checkpoint is not None:
            self.next_id = checkpoint.next_id
            self.names = {name.name: name for name in checkpoint.names}
            self.over = Remembered(checkpoint.over, checkpoint.offset)

    def place(self, placed: Placed, kept: Kept | None, *, is_dead: bool) -> None:
        """A message of the checkpoint, with its record."""
        if kept is None:
            self.missing += 1
            return
        kept.message.attempt = placed.attempt
        kept.transitions = placed.transitions
        kept.until = placed.until
        if kept.message.details is not None:
            kept.message.details.expires_at = placed.expires_at
        self.mail[kept.message.id] = Mail(placed.position, kept, is_dead)

    def apply(self, position: int, record: Record) -> None:
        """One more record."""
        match record:
            case Kept():
                self._kept(position, record)
            case Acked():
                for place, id in enumerate(record.ids):
                    if (mail := self.mail.pop(id, None)) is not None:
                        self.over.acked(mail.kept, record, place)
            case Ended():
                for id in record.ids:
                    if (mail := self.mail.pop(id, None)) is not None:
                        self.over.ended(mail.kept, record)
            case Moved():
                self._changed(record, record.until, is_dead=False)
            case Died():
                self._changed(record, None, is_dead=True)
            case Passed():
                self.next_id = max(self.next_id, record.message.id + 1)
            case Recording():
                pass
            case Named():
                self.names.setdefault(record.name, KnownName(record.name, record.at))
            case Durable():
                known = self.names.setdefault(record.name, KnownName(record.name, record.at))
                known.pattern, known.missed, known.filling = record.pattern, record.missed, record.filling
                if record.filling:  # it begins anew; what an earlier one had that was never whole is void
                    self.mail = {id: mail for id, mail in self.mail.items() if mail.kept.to != record.name}
            case Forgotten():
                self.names.pop(record.name, None)
                self.over.forgotten(record.name)

    def _kept(self, position: int, kept: Kept) -> None:
        message = kept.message
        self.next_id = max(self.next_id, message.id + 1)
        self.over.is_known(kept)
        is_dead = bool(kept.transitions) and kept.transitions[-1].state is DEAD
        self.mail[message.id] = Mail(position, kept, is_dead)
        if kept.key is not None and not message.sender.startswith(ANONYMOUS):
            sender = self.names.setdefault(message.sender, KnownName(message.sender, message.sent_at))
            use = KnownKey(kept.key, message.id, message.sent_at, kept.to, len(message.body), crc32c(message.body))
            sender.keys = [*(known for known in sender.keys if known.key != kept.key), use]

    def _changed(self, record: Moved | Died, until: float | None, *, is_dead: bool) -> None:
        mail = self.mail.get(record.id)
        if mail is None:
            return  # its own record is damaged
        kept = mail.kept
        kept.message.attempt = record.attempt
        kept.until = until
        kept.transitions = record.transitions
        if mail.is_dead and not is_dead and kept.message.details is not None:
            kept.message.details.expires_at = None  # a requeued one has no time any more
        mail.is_dead = is_dead


def recover(
    data: bytes | None,
    read: Callable[[int], Kept | None],
    records: Iterator[tuple[int, Record]],
    expect: Callable[[list[int]], None] = lambda positions: None,
) -> Recovered:
    """From a checkpoint's bytes, where there is one, and what comes after it. `expect` hears which records are read
    next: together they come from the disk many times faster than one after the other."""
    checkpoint = None if data is None else decode(data)
    recovered = Recovered(checkpoint)
    if checkpoint is not None:
        for all_placed, is_dead in ((checkpoint.mail, False), (checkpoint.dead, True)):
            for begin in range(0, len(all_placed), _AT_A_TIME):
                some = all_placed[begin : begin + _AT_A_TIME]
                expect([placed.position for placed in some])
                for placed in some:
                    recovered.place(placed, read(placed.position), is_dead=is_dead)
    for position, record in records:
        recovered.apply(position, record)
    return recovered


def restore(hub: Hub, recovered: Recovered, now: float) -> None:
    """Into a fresh hub, before anybody writes to the journal. Mail that expired meanwhile ends as expired."""
    offset = hub.receipts.wall_offset
    hub.receipts.next_id = max(hub.receipts.next_id, recovered.next_id)
    unmade = {name.name for name in recovered.names.values() if name.filling}
    for name in recovered.names.values():
        if name.filling:
            continue  # its subscriber asks for it anew, and has all of it then
        agent = _known(hub, name, now)
        agent.seen = min(now, name.seen_at - offset)
        hub.agents.watch_idle(agent, agent.seen)
        agent.announced = name.announced
        agent.unannounced.update(name.unannounced)
        for use in name.keys[-hub.config.agents.max_keys :]:
            agent.keys[use.key] = UsedKey(use.id, use.at - offset, use.to, use.body_bytes, use.body_crc)
    recovered.over.restore(hub, now)
    for _, mail in sorted(recovered.mail.items()):
        if mail.kept.to in unmade:
            continue
        entry = _entry(hub, mail, now)
        if mail.is_dead:
            entry.state = DEAD
            entry.agent.dead[entry.message.id] = entry
            entry.agent.dead_bytes += entry.size_bytes
            continue
        until, details = mail.kept.until, mail.kept.message.details
        if until is None:
            hub.inboxes.put(entry)
        else:
            hub.inboxes.charge(entry)
            place = delays.hold if entry.state is DELIVERED else delays.delay
            place(hub.inboxes, entry, until - offset)
        if details is not None and details.expires_at is not None:
            hub.inboxes.expire_at(entry, details.expires_at - offset)


def _known(hub: Hub, name: KnownName, now: float) -> Agent:
    if name.pattern is None:
        return hub.agents.get_or_create(name.name, now, limited=False)
    return hub.agents.create_durable(name.name, Source(name.pattern, name.missed), now, limited=False)


def _owner(hub: Hub, name: str, now: float) -> Agent:
    """In whose inbox a message was."""
    if not name.startswith(SUBSCRIPTION):
        return hub.agents.get_or_create(name, now, limited=False)
    agent = hub.agents.by_name.get(name)  # if its record is damaged, who subscribes next knows its pattern
    return agent or hub.agents.create_durable(name, Source(""), now, limited=False)


def _entry(hub: Hub, mail: Mail, now: float) -> Entry:
    offset = hub.receipts.wall_offset
    kept = mail.kept
    message = kept.message
    trail = tuple((t.state, t.at - offset, t.who, t.note) for t in kept.transitions)
    state = trail[-1][0] if trail else ACCEPTED
    if not mail.is_dead and (state is ACCEPTED or (state is DELIVERED and kept.until is None)):
        state = STORED  # it is; or whoever had it when the daemon went has it no more
        trail = (*trail, (STORED, now, "agentd", _RESTARTED))
    agent = _owner(hub, kept.to, now)
    entry = Entry(message, agent, len(message.body) + OVERHEAD_BYTES, state, trail)
    entry.position = mail.position
    entry.is_stored = True
    if message.details is not None:
        message.details.reply_by = None  # nobody waits any more: a reply goes to the sender's inbox
        if message.details.due_at is not None:
            entry.due = message.details.due_at - offset
    hub.receipts.entries[message.id] = entry
    return entry
