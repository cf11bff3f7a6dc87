"""What the journal is told of messages, so that those it has come back after any crash; and what senders are told once
it has them.

The domain's side of it: which transitions are records, in which order, and who is answered when. Who writes and syncs
is the server's journal, through `Book`. A message that is `kept` has a record of its own, and from then on every record
that changes what would come back: its end, another attempt, a wait. Its order in the inbox is that of its id.

A message may be given to its receiver before the disk has it: nobody was told `stored` yet, and should the power fail,
both its record and its ack are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from agentd.wire.errors import AgentdError
from agentd.wire.messages import Level, Receipt, State, Transition
from agentd.wire.stored import Acked, Died, Durable, Ended, Forgotten, Kept, Moved, Named, Passed, Record, encode_record

if TYPE_CHECKING:
    from agentd.hub.agents import Agent
    from agentd.hub.receipts import Entry, Receipts, Trail
    from agentd.hub.session import Session


_STORED: Final = State.STORED
_DELIVERED: Final = State.DELIVERED
#: Accepted, stored, delivered, acked.
_WHOLE: Final = 4

#: Messages that one answer is for, who is told, and the first of its calls, or of an event the answer itself.
_Pending = deque[tuple[list["Entry"], "Session | None", "int | Receipt"]]


class Book(Protocol):
    """Where records go. Times in them are seconds since 1970."""

    def append(self, body: bytes, *, wait: bool = False) -> int:
        """The position of this record; the refusal of it for whoever wanted it kept. With `wait` the daemon rather
        waits for the disk than refuse it."""

    def note(self, body: bytes) -> None:
        """The same for what nobody can be refused: where it can't be written, that is said in the log."""

    def move(self, body: bytes) -> int:
        """The position of a record that is there already, elsewhere: it has less room than acks have."""

    def record(self, body: bytes) -> None:
        """For history alone: where there is no room for it, it is missing there, and that is counted."""

    def look_back(self, take: Callable[[Record], None], then: Callable[[str], None]) -> None:
        """Have every record that there is by now shown to `take`, perhaps in another thread; then say why not all could
        be, or nothing."""

    def left_out(self, count: int, why: AgentdError) -> None:
        """So many messages that should outlive this process are in memory alone."""


class Stored:
    """Which messages the journal has, and whom to tell."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts
        self.book: Book | None = None  # None: nothing outlives this process
        self.level = Level.SYNCED  # where nobody asks for another
        self._pending: dict[Level, _Pending] = {level: deque() for level in Level}  # in the order of their records
        self._reached = dict.fromkeys(Level, 0)  # up to where the journal has everything that surely
        self._failure: AgentdError | None = None
        self.is_all_recorded = False  # also what is not kept, for history
        self._acked: dict[str, Acked] = {}  # by who acked them
        self._passed: dict[State, list[int]] = {}  # how those ended of which nothing is kept
        self._ended_at = 0.0

    def statistics(self) -> dict[str, int]:
        """How much there is of what, now."""
        return {"unsynced": sum(map(len, self._pending.values()))}

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits to be told that something is stored."""
        return any(self._pending.values())

    # A message and what becomes of it.

    def keep(self, entry: Entry, key: str | None = None, *, fresh: bool = False, wait: bool = False) -> None:
        """Have it written down as it stands; a `fresh` one is to wait for its time. What `book.append` refuses is not
        kept, and nothing has changed."""
        if self.book is None:
            return
        waits = fresh and entry.due
        until = entry.due + self._receipts.wall_offset if waits else self._receipts.until(entry)
        record = Kept(entry.agent.name, entry.message, self.story(entry), until, key)
        entry.position = self.book.append(encode_record(record), wait=wait)

    def keep_fresh(self, entry: Entry, story: list[Transition]) -> None:
        """The same for one that has just been accepted, with what is told of it."""
        if self.book is not None:
            entry.position = self.book.append(encode_record(Kept(entry.agent.name, entry.message, story)))

    def copy(self, entry: Entry) -> int:
        """Append it once more, as it stands, so that where it lies now can go. The size; what `book.move` refuses
        changes nothing."""
        if self.book is None:
            return 0
        record = encode_record(Kept(entry.agent.name, entry.message, self.story(entry), self._receipts.until(entry)))
        entry.position = self.book.move(record)
        return len(record)

    def answer(
        self, entries: list[Entry], session: Session | None, answer: int | Receipt, level: Level | None = None
    ) -> None:
        """Once the journal has these, as surely as `level` says, that is their state, and their sender is told: calls
        in a row, from the cid `answer` on, of messages with ids in a row; or, of an event's copies, by that receipt.
        Where nobody asked (0), nobody is told."""
        if self._failure is not None:  # of one that is said again
            self._refuse(entries, session, answer, self._failure)
            return
        self._pending[level or self.level].append((entries, session, answer))

    def has(self, entry: Entry, level: Level | None) -> bool:
        """Whether the journal has it as surely as `level` says, or as surely as where nobody says."""
        return entry.is_stored and entry.position < self._reached[level or self.level]

    def keep_all(self, entries: Iterable[Entry]) -> None:
        """Their agent is absent from now on, and they have to outlive this process too. Those for which there is no
        room stay in memory alone, which the log says."""
        left_out, why = 0, None
        for entry in entries:
            if not entry.position and self.book is not None:
                try:
                    self.keep(entry, wait=True)
                except AgentdError as error:
                    left_out, why = left_out + 1, error
                else:
                    self.answer([entry], None, 0)
        if why is not None and self.book is not None:
            self.book.left_out(left_out, why)

    def acked(self, entries: list[Entry], now: float) -> None:
        """These are done. Many are in one turn: they share a record."""
        offset = self._receipts.wall_offset
        passed = []
        self._ended_at = now
        for entry in entries:
            if not entry.position:
                passed.append(entry.message.id)
                continue
            trail = entry.trail
            if not _is_plain(trail):
                self.ended(entry)
                continue
            who = trail[-1][2]
            record = self._acked.get(who)
            if record is None:
                record = self._acked[who] = Acked([], 0.0, who, [], [])
            record.ids.append(entry.message.id)
            record.stored.append(trail[1][1] + offset if len(trail) == _WHOLE else 0.0)
            record.delivered.append(trail[-2][1] + offset)
        if passed:
            self.passed_end(passed, State.ACKED, now)

    def ended(self, entry: Entry) -> None:
        """It is over, without an ack."""
        if entry.position:
            story = self.story(entry)
            self._note(Ended([entry.message.id], story[-1], story))
        elif self.is_all_recorded and self.book is not None:
            self.book.record(encode_record(Ended([entry.message.id], self.story(entry)[-1])))

    # What is not kept: for history, where all is recorded.

    def passed(self, entry: Entry, story: list[Transition] | None = None) -> None:
        """It was accepted; `story` is what is told of it, where the caller knows."""
        if self.is_all_recorded and self.book is not None:
            self.book.record(encode_record(Passed(entry.to, entry.message, story or self.story(entry))))

    def passed_end(self, ids: list[int], state: State, now: float) -> None:
        """That is how these ended, in one turn."""
        if self.is_all_recorded:
            self._passed.setdefault(state, []).extend(ids)
            self._ended_at = now

    def moved(self, entry: Entry) -> None:
        """It waits, or is held, as its entry says now: the journal has to know where it has the message."""
        if entry.position:
            self._note(Moved(entry.message.id, entry.message.attempt, self.story(entry), self._receipts.until(entry)))

    def died(self, entry: Entry) -> None:
        """It is a dead letter now."""
        if entry.position:
            self._note(Died(entry.message.id, entry.message.attempt, self.story(entry)))
        else:
            self.keep_all([entry])

    def story(self, entry: Entry) -> list[Transition]:
        """Its transitions so far, by the wall clock."""
        offset = self._receipts.wall_offset
        return [Transition(state, at + offset, who, note) for state, at, who, note in entry.trail]

    # Names.

    def named(self, name: str, now: float) -> None:
        """It is known from now on."""
        self._note(Named(name, now + self._receipts.wall_offset))

    def durable(self, agent: Agent) -> None:
        """That durable subscription is known, and this is what it is now."""
        if agent.source is not None:
            source = agent.source
            at = agent.seen + self._receipts.wall_offset
            self._note(Durable(agent.name, source.pattern, at, source.missed, source.is_filling))

    def look_back(self, take: Callable[[Record], None], then: Callable[[str], None]) -> None:
        """See Book."""
        if self.book is None:
            then("")
        else:
            self.end_turn()
            self.book.look_back(take, then)

    def forgotten(self, name: str) -> None:
        """It is not any more."""
        self._note(Forgotten(name))

    def _note(self, record: Record) -> None:
        if self.book is not None:
            self.end_turn()  # what was acked before stands before it
            self.book.note(encode_record(record))

    # The journal's side.

    def end_turn(self) -> None:
        """What was gathered becomes a record."""
        at = self._ended_at + self._receipts.wall_offset
        if self._acked:
            acked, self._acked = self._acked, {}
            if self.book is not None:
                for record in acked.values():
                    record.at = at
                    self.book.note(encode_record(record))
        if self._passed:
            passed, self._passed = self._passed, {}
            if self.book is not None:
                for state, ids in passed.items():
                    self.book.record(encode_record(Ended(ids, Transition(state, at, ""))))

    def failed(self, error: AgentdError) -> None:
        """Nobody will be told any more that something is stored: whoever waits for that is told why."""
        self._failure = error
        for pending in self._pending.values():
            while pending:
                self._refuse(*pending.popleft(), error)

    def _refuse(self, entries: list[Entry], session: Session | None, answer: int | Receipt, error: AgentdError) -> None:
        if session is None or not answer:
            return
        if isinstance(answer, Receipt):
            session.refuse(answer.cid, error)
            return
        for number in range(len(entries)):
            session.refuse(answer + number, error)

    def untold(self, tail: int) -> int:
        """Where the first record lies that somebody waits for; `tail` if nobody does."""
        return min((pending[0][0][0].position for pending in self._pending.values() if pending), default=tail)

    def reached(self, position: int, now: float, level: Level) -> None:
        """Everything before that is in the kernel's hands, or on disk, and then in the kernel's too."""
        for lower in Level if level is Level.SYNCED else (level,):
            self._reached[lower] = max(self._reached[lower], position)
            self._tell(self._pending[lower], position, now)

    def _tell(self, pending: _Pending, position: int, now: float) -> None:
        while pending and pending[0][0][-1].position < position:
            entries, session, answer = pending.popleft()
            self._receipts.stored(entries, now)
            if session is None or not answer:
                continue
            if isinstance(answer, Receipt):
                answer.state, answer.at = State.STORED, now + self._receipts.wall_offset
                session.push(answer)
            else:
                entry = entries[0]
                message = entry.message
                count, at = len(entries), message.sent_at
                session.accept(answer, message.id, at, _note(entry), count, State.STORED, message.lane)


def _is_plain(trail: Trail) -> bool:
    """Whether it was accepted, perhaps stored, delivered and acked by one, and there is nothing more to tell."""
    _, _, acker, said = trail[-1]
    state, _, taker, note = trail[-2]
    if state is not _DELIVERED or taker != acker or note or said:
        return False
    return len(trail) == _WHOLE - 1 or (len(trail) == _WHOLE and trail[1][0] is _STORED and not trail[1][3])


def _note(entry: Entry) -> str:
    """What else its sender should know of one that is stored."""
    agent = entry.agent
    if entry.message.id in agent.delayed:
        return "kept on disk until its time comes"
    return "" if agent.takers else f"{agent.name} is absent: kept on disk until it takes its mail"
