"""What became of messages that have ended, over restarts and crashes: of those that the journal had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeSession, World

from agentd.hub import checkpoint, remembered
from agentd.wire.errors import BadRequest, NoSuchMessage
from agentd.wire.messages import Accepted, Priority, Receipt, State

ACCEPTED, STORED, DELIVERED, ACKED = State.ACCEPTED, State.STORED, State.DELIVERED, State.ACKED
EXPIRED, DEAD = State.EXPIRED, State.DEAD
KEPT_S = 600.0


@pytest.fixture
def world() -> World:
    return World(journal=True)


def story(world: World, id: int) -> list[tuple[State, Any, str, str]]:
    return [(state, pytest.approx(at), who, note) for state, at, who, note in world.entry(id).trail]


def acked(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.after(1.0)
    world.delivered(taker, id)
    world.after(1.0)
    world.ack(taker, id)


def acked_at_once(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.ack(taker, id)


def acked_by_its_id(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.give_back(taker, id)
    world.ack(world.join("taker", take=False), id)


def acked_the_second_time(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.delivered(taker, id)
    world.nack(taker, id, "not now")
    world.hub.inboxes.receive(taker, 1)
    acked(world, sender, taker, id)


def acked_after_a_hold(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.hold(taker, id, 60.0)
    world.after(1.0)
    world.ack(taker, id)


def replied_to(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.reply(taker, id, b"done")


def expired(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.give_back(taker, id)
    world.after(60.0)


def dropped(world: World, sender: FakeSession, taker: FakeSession, id: int) -> None:
    world.reject(taker, id, "no")
    world.after(1.0)
    world.hub.dead.drop(world.entry(id), world.now)


ENDS: list[Callable[[World, FakeSession, FakeSession, int], None]] = [
    acked,
    acked_at_once,
    acked_by_its_id,
    acked_the_second_time,
    acked_after_a_hold,
    replied_to,
    expired,
    dropped,
]


@pytest.mark.parametrize("again", ["", "restart", "crash"])
@pytest.mark.parametrize("how", ["restart", "crash"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_the_whole_story_is_told_after_it(world: World, end: Callable[..., None], how: str, again: str) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"four", durable=True, ttl=30.0)
    end(world, sender, taker, id)
    world.end_turn()
    before, view = story(world, id), world.hub.receipts.trace(1, world.entry(id))
    getattr(world, how)()
    if again:
        getattr(world, again)()
    assert story(world, id) == before
    after = world.hub.receipts.trace(1, world.entry(id))
    assert [step.state for step in after.transitions] == [step.state for step in view.transitions]
    assert (after.sender, after.to, after.size_bytes, after.attempt) == ("sender", "taker", 4, view.attempt)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_it_is_forgotten_when_it_would_have_been(world: World, how: str) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=2)
    first, second = (world.send(sender, "taker", b"x", priority=Priority.LOW) for _ in range(2))
    world.ack(taker, first)
    world.end_turn()
    world.after(100.0)
    world.ack(taker, second)
    world.end_turn()
    world.now += 300.0
    getattr(world, how)()
    assert world.state(first) is world.state(second) is ACKED
    world.after(KEPT_S - 401.0 + 1.5)
    with pytest.raises(NoSuchMessage):
        world.entry(first)
    world.after(98.0)
    assert world.state(second) is ACKED
    world.now += 2.0
    getattr(world, how)()
    with pytest.raises(NoSuchMessage):
        world.entry(second)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_no_more_are_remembered_than_without_it(how: str) -> None:
    world = World(journal=True, trace__max_messages=3)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    ids = [world.send(sender, "taker", b"x", durable=True) for _ in range(5)]
    for id in reversed(ids):
        world.ack(taker, id)
        world.after(1.0)
        world.end_turn()
    getattr(world, how)()
    assert set(world.hub.receipts.entries) == set(ids[:3]), "those that ended last"


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_who_is_forgotten_takes_it_along(world: World, how: str) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x", durable=True)
    world.ack(taker, id)
    world.end_turn()
    world.leave(taker)
    world.hub.agents.forget("taker")
    getattr(world, how)()
    world.join("taker")
    getattr(world, how)()
    with pytest.raises(NoSuchMessage):
        world.entry(id)


@pytest.mark.parametrize("how", ["restart", "crash"])
@pytest.mark.parametrize("wait", [ACCEPTED, STORED, ACKED])
def test_a_key_that_is_said_again_is_answered_with_it(world: World, how: str, wait: State) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x", key="k", durable=True)
    world.ack(taker, id)
    world.end_turn()
    getattr(world, how)()
    sender = world.join("sender")
    assert world.send(sender, "taker", b"x", key="k", wait=wait, durable=True) == id
    (answer,) = sender.told(Accepted)
    assert "that message is acked" in answer.note and answer.state is STORED
    assert [receipt.state for receipt in sender.told(Receipt)] == ([ACKED] if wait is ACKED else [])


def test_what_the_journal_did_not_have_is_forgotten(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.ack(taker, id)
    world.restart()
    with pytest.raises(NoSuchMessage):
        world.entry(id)


def test_many_acks_of_a_turn_share_a_record(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=100)
    ids = [world.send(sender, "taker", b"x", durable=True) for _ in range(100)]
    assert world.journal is not None
    before = len(world.journal._written)
    world.ack(taker, *ids)
    world.end_turn()
    assert len(world.journal._written) == before + 1


def test_a_part_that_is_none_is_refused(world: World) -> None:
    found: Any = checkpoint.collect(world.hub, 1)
    found.over = [b"\x91\x01"]
    with pytest.raises(BadRequest):
        checkpoint.Recovered(found)


def test_they_are_encoded_some_at_a_time(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1200)
    for _ in range(1200):
        world.ack(taker, world.send(sender, "taker", b"x", durable=True))
    chunks = list(remembered.encode(remembered.collect(world.hub, 1 << 30)))
    assert len(chunks) == 3


def test_the_latest_are_kept_where_there_is_little_room(world: World) -> None:
    sender = world.join("sender")
    takers = [world.join(name, credit=9) for name in ("one", "two")]
    ids = []
    for turn in range(8):
        taker = takers[turn % 2]
        ids.append(world.send(sender, taker.name, b"x", durable=True))
        world.ack(taker, ids[-1])
        world.after(1.0)
    assert [entry.message.id for entry in remembered.collect(world.hub, 3 * 256 + 1)] == ids[-3:]
