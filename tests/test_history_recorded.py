"""What is recorded for history: with `journal.history = "all"` whatever was accepted, in order, and how it ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, wait_until
from fakes import FakeSession, World
from hypothesis import given
from hypothesis import strategies as st
from raw import Raw

from agentd.cli.history import read
from agentd.host.config import JournalSettings
from agentd.host.retention import SegmentFile, history_begins, segment_files
from agentd.hub.receipts import ENDED
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.errors import NoSuchMessage
from agentd.wire.history import Story
from agentd.wire.messages import Accepted, Message, Options, Priority, Receipt, Send, State
from agentd.wire.stored import Kept, Passed, Record, decode_record

MIB = 1 << 20


def records(world: World) -> list[Record]:
    assert world.journal is not None
    world.end_turn()
    return [decode_record(body) for body in world.journal._written]


def told(world: World) -> Story:
    """What all records come to."""
    story = Story(lambda to, message: True)
    for position, record in enumerate(records(world)):
        story.add(position, record)
    return story


def bodies(world: World) -> dict[int, tuple[str, bytes]]:
    """Of each message that is recorded, in order: to whom, and its body."""
    found = {r.message.id: (r.to, r.message.body) for r in records(world) if isinstance(r, (Kept, Passed))}
    return dict(sorted(found.items()))


def of_all() -> World:
    return World(journal=True, journal__history="all", max_attempts=2)


def test_with_kept_alone_nothing_else_is_recorded() -> None:
    world = World(journal=True)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    ids = [world.send(sender, "taker", b"x"), world.send(sender, "taker", b"x", headers={"a": "b"})]
    world.ack(taker, *ids)
    world.publish(sender, "build:done")
    assert bodies(world) == {} and not told(world).messages


def test_messages_of_each_kind_are_recorded_with_how_they_ended() -> None:
    world = of_all()
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    acked, dead, waiting = (world.send(sender, "taker", body) for body in (b"acked", b"dead", b"waiting"))
    expired = world.send(sender, "taker", b"expired", ttl=5.0)
    world.ack(taker, acked)
    world.reject(taker, dead, "never")
    world.request(sender, "taker", b"request")
    asked = taker.told(Message)[-1].id
    reply = world.reply(taker, asked, b"reply")
    world.give_back(taker, expired)
    world.hub.inboxes.pause(world.hub.agents.get("taker"), on=True)
    world.subscribe(taker, "build:*")
    event, nobody = world.publish(sender, "build:done", b"event"), world.publish(sender, "other", b"nobody")
    world.hub.topics.delivered(taker, 1, [event.id], world.now)
    story, found = told(world), bodies(world)
    assert list(found.values()) == [
        ("taker", b"acked"),
        ("taker", b"dead"),
        ("taker", b"waiting"),
        ("taker", b"expired"),
        ("taker", b"request"),
        ("sender", b"reply"),
        ("build:done", b"event"),
        ("other", b"nobody"),
    ]
    states = {id: came.last.state for id, came in story.messages.items()}
    assert states[acked] is State.ACKED and states[asked] is State.ACKED
    assert states[dead] is State.DEAD and story.messages[dead].last.note == "never"
    assert states[waiting] is states[reply] is State.ACCEPTED
    assert states[event.id] is State.DELIVERED and states[nobody.id] is State.EXPIRED
    assert story.messages[nobody.id].last.note == "nobody subscribed"


def test_nothing_of_history_comes_back() -> None:
    world = of_all()
    sender, taker = world.join("sender"), world.join("taker")
    id = world.send(sender, "taker", b"in memory")
    world.join("other", credit=1)
    world.crash()
    with pytest.raises(NoSuchMessage):
        world.entry(id)
    taker = world.join("taker", credit=9)
    assert not taker.told(Message)
    assert world.send(world.join("sender"), "taker", b"later") > id, "an id is used once"


OPERATIONS = ["send", "many", "keyed", "low", "absent", "request", "reply", "publish", "ack", "nack", "reject", "hold"]
OPERATIONS += ["leave", "crash", "restart", "wait"]
RUNS = st.lists(
    st.tuples(
        st.sampled_from(OPERATIONS),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=60,
)


class Run:
    """Three agents that may be there or not, and what was accepted from them."""

    def __init__(self) -> None:
        self.world = of_all()
        self.accepted: list[tuple[int, str, bytes]] = []
        self.sessions: dict[int, FakeSession] = {}
        self._count = 0

    def session(self, number: int) -> FakeSession:
        if number not in self.sessions:
            self.sessions[number] = self.world.join(f"agent{number}", credit=50)
            self.world.subscribe(self.sessions[number], "news")
        return self.sessions[number]

    def body(self) -> bytes:
        self._count += 1
        return b"%d" % self._count

    def post(self, sender: FakeSession, to: str, count: int = 1, **options: Any) -> None:
        chosen = Options(**options) if options else None
        verbs = [Send(sender.next_cid(), to, Content.BYTES, self.body(), chosen) for _ in range(count)]
        done = 0
        while done < count:
            some = self.world.hub.router.send_some(sender, verbs, done, count - done, self.world.now)
            if not some:
                self.world.hub.router.send(sender, verbs[done], self.world.now)
            done += some or 1
        self.world.end_turn()
        for verb in verbs:
            self.accepted.append((self.world.accepted(sender, verb.cid), to, verb.body))

    def do(self, what: str, who: int, whom: int) -> None:
        world, me, to = self.world, self.session(who), f"agent{whom}"
        held = sorted(me.held)
        if what in ("send", "many"):
            self.session(whom)
            self.post(me, to, 5 if what == "many" else 1)
        elif what == "keyed":
            self.session(whom)
            self.post(me, to, key=f"k{self._count}", headers={"a": "b"})
        elif what in ("low", "absent"):
            priority = Priority.LOW if what == "low" else Priority.NORMAL
            self.post(me, to if what == "low" else "nobody", priority=priority, allow_absent=True)
        elif what == "request" and whom in self.sessions:
            body = self.body()
            id = world.hub.receipts.next_id
            world.request(me, to, body)
            self.accepted.append((id, to, body))
        elif what == "publish":
            body = self.body()
            receipt: Receipt = world.publish(me, "news", body)
            self.accepted.append((receipt.id, "news", body))
            for session in self.sessions.values():
                for number in session.subscriptions:
                    world.hub.topics.delivered(session, number, [receipt.id], world.now)
        elif what == "reply" and held:
            parent = world.entry(held[-1])
            body, to = self.body(), parent.message.sender
            self.accepted.append((world.reply(me, held[-1], body), to, body))
        elif what == "ack" and held:
            world.ack(me, *held[: whom + 1])
        elif what in ("nack", "reject") and held:
            getattr(world, what)(me, held[0], "no")
        elif what == "hold" and held:
            world.hold(me, held[0], 5.0)
        elif what == "leave":
            world.leave(self.sessions.pop(who))
        elif what == "wait":
            world.after(3.0)
        elif what in ("crash", "restart"):
            world.end_turn()
            getattr(world, what)()
            self.sessions.clear()
        world.end_turn()


@given(RUNS)
def test_history_is_what_was_accepted_in_order_whatever_happens(operations: list[tuple[str, int, int]]) -> None:
    run = Run()
    for operation in operations:
        run.do(*operation)
        world = run.world
        story = told(world)
        for id, entry in world.hub.receipts.entries.items():
            if entry.state in ENDED or (entry.state is State.DELIVERED and entry.topic):
                assert story.messages[id].last.state is entry.state, entry.trail
                assert story.messages[id].last.note == entry.trail[-1][3]
    assert [(id, *rest) for id, rest in bodies(run.world).items()] == run.accepted


# What stays, and for how long.

FILES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100)), max_size=12)


@given(FILES, st.integers(0, 13), st.integers(0, 200), st.integers(0, 100))
def test_what_stays_is_the_newest_that_is_young_and_small_enough(
    found: list[tuple[int, int]], needed: int, keep_bytes: int, keep_s: int
) -> None:
    now = 1000.0
    files = [SegmentFile(number, size, now - age) for number, (size, age) in enumerate(found, 1)]
    settings = JournalSettings(history_s=keep_s, history_bytes=keep_bytes)
    first = history_begins(files, needed << 32 | 4096, settings, now)
    assert first <= needed
    stays = [file for file in files if first <= file.number < needed]
    assert sum(file.size_bytes for file in stays) <= keep_bytes
    assert all(now - file.written_at < keep_s for file in stays)
    before = [file for file in files if file.number < first]
    if before:
        assert (
            now - before[-1].written_at >= keep_s
            or before[-1].size_bytes + sum(f.size_bytes for f in stays) > keep_bytes
        )


JOURNAL = {"segment_bytes": MIB, "checkpoint_bytes": MIB // 2, "min_free_bytes": 0}
UNHURRIED = {"rate": {"messages_per_s": 0}}
LOW = Options(Priority.LOW, allow_absent=True)


def pass_through(daemon: Daemon, size_bytes: int, body_bytes: int = 20_000) -> None:
    """So much on low, each acked before the next."""
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "sink", take=True) as taker:
        taker.take(100_000)
        for _ in range(size_bytes // body_bytes):
            me.ask(wire.Send(0, "sink", Content.BYTES, bytes(body_bytes), LOW))
            taker.ask(wire.Ack(0, [taker.until(Message).id]))


def segments(daemon: Daemon) -> list[SegmentFile]:
    return segment_files(daemon.state_dir / "journal")


def test_old_segments_stay_up_to_their_size(daemon: Daemon) -> None:
    daemon.config(journal=JOURNAL | {"history_bytes": 5 * MIB}, **UNHURRIED)
    pass_through(daemon, 20 * MIB)
    daemon.stop()
    assert segments(daemon)[0].number > 10
    assert 5 < len(segments(daemon)) <= 7  # and the one that is written, and one made ahead


def test_without_history_nothing_stays(daemon: Daemon) -> None:
    daemon.config(journal=JOURNAL | {"history_bytes": 0}, **UNHURRIED)
    pass_through(daemon, 10 * MIB)
    daemon.stop()
    assert len(segments(daemon)) <= 2


def test_what_is_too_old_goes_also_while_nothing_happens(daemon: Daemon) -> None:
    daemon.config(journal=JOURNAL | {"history_s": 3600}, **UNHURRIED)
    pass_through(daemon, 10 * MIB)
    daemon.stop()
    old = segments(daemon)[:3]
    last_week = time.time() - 8 * 86400
    for file in old[:2]:
        os.utime(path_of(daemon, file), (last_week, last_week))
    soon = time.time() - 3600 + 3
    os.utime(path_of(daemon, old[2]), (soon, soon))
    daemon.start()
    assert not path_of(daemon, old[0]).exists() and not path_of(daemon, old[1]).exists()
    wait_until(lambda: not path_of(daemon, old[2]).exists())


def path_of(daemon: Daemon, file: SegmentFile) -> Path:
    return daemon.state_dir / "journal" / f"{file.number:016x}.segment"


@pytest.mark.parametrize("history", ["kept", "all"])
def test_history_gives_way_before_mail_is_refused(daemon: Daemon, history: str) -> None:
    daemon.config(journal=JOURNAL | {"history": history, "history_bytes": 1 << 30, "max_bytes": 7 * MIB}, **UNHURRIED)
    pass_through(daemon, 40 * MIB)  # no refusal
    assert sum(file.size_bytes for file in segments(daemon)) <= 7 * MIB
    assert segments(daemon)[0].number > 20
    daemon.kill()
    daemon.start()


def test_what_has_no_room_for_history_is_counted(daemon: Daemon) -> None:
    """Mail that nobody takes has all of it: what is said on NORMAL goes on, and history says how much it misses."""
    daemon.config(
        journal=JOURNAL | {"history": "all", "max_bytes": 7 * MIB},
        inbox={"max_messages": 100_000, "max_bytes": 1 << 29},
        **UNHURRIED,
    )
    with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "busy", take=True) as taker:
        while True:
            verb = wire.Send(me.number(), "sink", Content.BYTES, bytes(20_000), LOW)
            me.say(verb)
            answer: Accepted | wire.Error = me.until((Accepted, wire.Error))  # type: ignore[arg-type]
            if isinstance(answer, wire.Error):
                break
        taker.take(1000)
        for _ in range(100):
            me.ask(wire.Send(0, "busy", Content.BYTES, bytes(20_000)))
        got = [taker.until(Message) for _ in range(100)]
        taker.ask(wire.Ack(0, [message.id for message in got]))
    with Raw(daemon.socket, "sink", take=True) as taker:  # room again
        taker.take(100_000)
        (row,) = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == "sink"]
        taker.ask(wire.Ack(0, [taker.until(Message).id for _ in range(row.waiting + row.held)]))
    story = Story(lambda to, message: True)

    def recorded() -> bool:
        from agentd import _native

        with Raw(daemon.socket, "planner") as me, Raw(daemon.socket, "busy", take=True) as taker:
            taker.take(1)
            me.ask(wire.Send(0, "busy", Content.BYTES, b"again"))
            taker.ask(wire.Ack(0, [taker.until(Message).id]))
        story.__init__(lambda to, message: True)  # type: ignore[misc]

        def add(position: int, sequence: int, type: int, body: bytes) -> bool:
            story.add(position, decode_record(body))
            return True

        _native.check_journal(str(daemon.state_dir / "journal"), None, add)
        return story.missed > 0

    wait_until(recorded)
    assert story.missed >= 50


def test_that_all_is_recorded_is_known_though_what_said_so_first_has_gone(daemon: Daemon) -> None:
    """Nothing else passes here that would say so: all of it is kept."""
    daemon.config(journal=JOURNAL | {"history": "all", "history_bytes": 3 * MIB}, **UNHURRIED)
    pass_through(daemon, 12 * MIB)
    assert segments(daemon)[0].number > 1
    story = read(str(daemon.state_dir / "journal"), lambda to, message: True, None)
    assert story.all_since is not None
