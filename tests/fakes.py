"""The domain's tests need no loop and no socket: a session that remembers what it was told, and a hub with a clock
that the test turns."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from agentd.host.config import (
    AgentLimits,
    Config,
    DeadLimits,
    InboxLimits,
    JournalSettings,
    MessageLimits,
    RateLimits,
    TopicLimits,
    TraceLimits,
)
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.hub.session import Session
from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Accepted,
    Answer,
    Error,
    Join,
    Message,
    Options,
    Publish,
    Receipt,
    Reply,
    Request,
    Send,
    State,
    Subscribe,
    Subscribed,
)
from agentd_client._memory_journal import MemoryJournal

T = TypeVar("T", bound=msgspec.Struct)

FIRST_ID = 1 << 32
WALL_OFFSET = 1_700_000_000.0


def config(**limits: float | str) -> Config:
    """Small limits where a test needs them: `max_attempts=2`. A name that two sections have is `inbox__max_bytes`."""
    sections: dict[str, Any] = {
        "message": MessageLimits,
        "inbox": InboxLimits,
        "agents": AgentLimits,
        "rate": RateLimits,
        "trace": TraceLimits,
        "dead": DeadLimits,
        "topics": TopicLimits,
        "journal": JournalSettings,
    }
    chosen: dict[str, dict[str, float | str]] = {section: {} for section in sections}
    for name, value in limits.items():
        section, _, field = name.rpartition("__")
        owners = [section] if section else [s for s, kind in sections.items() if name in kind.__struct_fields__]
        assert len(owners) == 1, f"{name} is a setting of {owners}"
        chosen[owners[0]][field] = value
    return Config(**{section: kind(**chosen[section]) for section, kind in sections.items()})


def copied(message: msgspec.Struct) -> msgspec.Struct:
    """As it is now: the hub goes on changing its structs (attempt, subscription, body)."""
    if isinstance(message, Answer):
        return msgspec.structs.replace(message, message=copied(message.message))
    if isinstance(message, Message) and message.details is not None:
        return msgspec.structs.replace(message, details=msgspec.structs.replace(message.details))
    return msgspec.structs.replace(message)


class FakeSession(Session):
    """Remembers what it was told."""

    def __init__(self, pid: int = 0) -> None:
        super().__init__()
        self.pid = pid
        self.command = f"agent{pid}"
        self.provenance = f"uid 1000 pid {pid}"
        self._told: list[msgspec.Struct] = []
        self._cid = 0

    def write(self, message: msgspec.Struct) -> None:
        """Keep a copy."""
        self._told.append(copied(message))

    def next_cid(self) -> int:
        """A number for a call."""
        self._cid += 1
        return self._cid

    def told(self, kind: type[T]) -> list[T]:
        """Everything of one kind that it was told so far."""
        self.end_run()
        return [message for message in self._told if type(message) is kind]

    def everything(self) -> list[msgspec.Struct]:
        """All that it was told, in order."""
        self.end_run()
        return list(self._told)

    def clear(self) -> None:
        """Forget what it was told so far."""
        self.end_run()
        self._told.clear()

    def mail(self) -> list[tuple[bytes, int]]:
        """Body and attempt of every message that it was sent."""
        return [(message.body, message.attempt) for message in self.told(Message)]

    def bodies(self) -> list[bytes]:
        """The body of every message that it was sent."""
        return [body for body, _ in self.mail()]

    def error(self, cid: int) -> Error:
        """The one refusal of a call."""
        (error,) = [error for error in self.told(Error) if error.cid == cid]
        return error

    def answer(self, cid: int) -> Answer:
        """The one answer to a request."""
        (answer,) = [answer for answer in self.told(Answer) if answer.cid == cid]
        return answer

    def states(self, cid: int) -> list[State]:
        """The states that the receipts of a call named."""
        return [receipt.state for receipt in self.told(Receipt) if receipt.cid == cid]


class World:
    """A hub, and the time it is told."""

    def __init__(self, **limits: float | str) -> None:
        journal = limits.pop("journal", False)  # whether anything outlives this hub
        self.config = config(**limits)
        self.now = 1000.0
        self.hub = self._fresh_hub(FIRST_ID)
        self.journal = MemoryJournal() if journal else None
        if self.journal is not None:
            self.journal.restore(self.hub, self.now)
        self._pid = 100

    def _fresh_hub(self, first_id: int) -> Hub:
        hub = Hub(self.config, first_id)
        hub.receipts.wall_offset = WALL_OFFSET
        return hub

    def join(
        self, name: str | None = None, *, take: bool = True, share: bool = False, replace: bool = False, credit: int = 0
    ) -> FakeSession:
        """A new session of that agent, with that much credit."""
        self._pid += 1
        session = FakeSession(self._pid)
        self.hub.join(session, Join(session.next_cid(), name, take and name is not None, share, replace), self.now)
        if credit:
            self.hub.inboxes.receive(session, credit)
        return session

    def leave(self, session: FakeSession, why: str = "gone") -> None:
        """Its end, whether it said so or was killed."""
        self.hub.leave(session, self.now, why)

    def after(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.hub.deadlines.run(self.now)

    def send(self, session: FakeSession, to: str, body: bytes = b"", **options: Any) -> int:
        """The id of the message that was accepted."""
        cid, chosen = session.next_cid(), Options(**options) if options else None
        self.hub.router.send(session, Send(cid, to, Content.BYTES, body, chosen), self.now)
        self.end_turn()
        return self.accepted(session, cid)

    def accepted(self, session: FakeSession, cid: int) -> int:
        """The id that a call was accepted under."""
        (run,) = [run for run in session.told(Accepted) if run.cid <= cid < run.cid + run.count]
        return run.id + cid - run.cid

    def request(self, session: FakeSession, to: str, body: bytes = b"", timeout: float = 5.0, **options: Any) -> int:
        """The cid of the request."""
        cid, chosen = session.next_cid(), Options(**options) if options else None
        self.hub.router.request(session, Request(cid, to, Content.BYTES, body, timeout, chosen), self.now)
        return cid

    def reply(self, session: FakeSession, id: int, body: bytes = b"", **options: Any) -> int:
        """The id of the reply."""
        cid, chosen = session.next_cid(), Options(**options) if options else None
        self.hub.router.reply(session, Reply(cid, id, Content.BYTES, body, chosen), self.now)
        self.end_turn()
        return self.accepted(session, cid)

    def publish(self, session: FakeSession, topic: str, body: bytes = b"", **options: Any) -> Receipt:
        """What the publisher was told."""
        cid, chosen = session.next_cid(), Options(**options) if options else None
        self.hub.router.publish(session, Publish(cid, topic, Content.BYTES, body, chosen), self.now)
        self.end_turn()
        (receipt,) = [receipt for receipt in session.told(Receipt) if receipt.cid == cid]
        return receipt

    def subscribe(
        self, session: FakeSession, pattern: str, name: str | None = None, window: int = 0, start: str = "new"
    ) -> int:
        """The number of the subscription."""
        cid = session.next_cid()
        self.hub.subscribe(session, Subscribe(cid, pattern, start, name, window), self.now)
        self.end_turn()
        (subscribed,) = [subscribed for subscribed in session.told(Subscribed) if subscribed.cid == cid]
        return subscribed.subscription

    def delivered(self, session: FakeSession, *ids: int) -> None:
        """The library handed these to its application."""
        self.hub.durables.delivered(session, list(ids), self.now)

    def ack(self, session: FakeSession, *ids: int) -> int:
        """Done with these."""
        return self.hub.durables.ack(session, list(ids), self.now)

    def nack(self, session: FakeSession, id: int, reason: str = "", after_s: float = 0.0) -> None:
        """Not now."""
        self.hub.inboxes.nack(self.hub.durables.taker(session, id), id, reason, after_s, self.now)

    def reject(self, session: FakeSession, id: int, reason: str = "") -> None:
        """Never."""
        self.hub.inboxes.reject(self.hub.durables.taker(session, id), id, reason, self.now)

    def give_back(self, session: FakeSession, *ids: int) -> None:
        """Not wanted after all."""
        self.hub.durables.give_back(session, list(ids), self.now)

    def hold(self, session: FakeSession, id: int, hold_s: float | None) -> None:
        """Still at it."""
        self.hub.inboxes.working(self.hub.durables.taker(session, id), id, hold_s, self.now)

    def entry(self, id: int) -> Entry:
        """Where a message stands."""
        return self.hub.receipts.get(id)

    def state(self, id: int) -> State:
        """The state it is in."""
        return self.entry(id).state

    def story(self, id: int) -> list[State]:
        """The states it went through."""
        return [state for state, _, _, _ in self.entry(id).trail]

    def restart(self) -> None:
        """An orderly stop and the next start: what is kept goes through the bytes of its files."""
        for session in list(self.hub.sessions):
            self.hub.leave(session, self.now, "agentd is stopping")
        assert self.journal is not None
        self.journal.close(self.hub, self.now)
        self.crash()

    def crash(self) -> None:
        """The next start after a SIGKILL."""
        assert self.journal is not None
        self.hub.let_go()
        self.hub = self._fresh_hub(FIRST_ID)  # as if the clock had been set back
        self.journal.restore(self.hub, self.now)

    def end_turn(self) -> None:
        """What the journal has is told of, as at the end of each turn."""
        if self.journal is not None:
            self.journal.end_turn(self.now)
