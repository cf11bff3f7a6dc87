"""Dead letters: kept with reason and body, bounded, requeued or dropped."""

from __future__ import annotations

import pytest
from fakes import World

from agentd.hub import views
from agentd.hub.receipts import OVERHEAD_BYTES
from agentd.wire.errors import Backpressure
from agentd.wire.messages import Message, State

ACCEPTED, STORED, DEAD = State.ACCEPTED, State.STORED, State.DEAD


def test_a_dead_letter_keeps_its_body_reason_and_attempts_and_frees_its_room() -> None:
    world = World(max_attempts=2)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    id = world.send(sender, "taker", b"body")
    world.nack(taker, id)
    world.nack(taker, id, "broken")
    (letter,) = views.dead(world.hub, 1, "taker", 10).letters
    assert (letter.id, letter.to, letter.sender, letter.attempts) == (id, "taker", "sender", 2)
    assert letter.reason == "attempt 2 of 2: broken"
    assert world.entry(id).message.body == b"body"
    assert taker.agent.count == taker.agent.bytes == 0


def test_dead_letters_are_not_forgotten_with_time() -> None:
    world = World()
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.reject(taker, id)
    world.leave(taker)
    world.after(365 * 86400.0)
    assert world.state(id) is DEAD
    assert list(world.hub.agents.get("taker").dead) == [id]


def test_a_requeued_letter_is_delivered_anew_with_all_its_attempts() -> None:
    world = World(max_attempts=2)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    id = world.send(sender, "taker", b"x")
    world.nack(taker, id)
    world.nack(taker, id)
    world.hub.inboxes.requeue(world.entry(id), world.now, "sender")
    assert taker.mail() == [(b"x", 1), (b"x", 2), (b"x", 1)]
    assert world.story(id)[-2:] == [DEAD, ACCEPTED]
    assert world.ack(taker, id) == 1
    assert taker.agent.dead_bytes == 0


def test_a_letter_is_requeued_in_the_order_of_ids() -> None:
    world = World()
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    first = world.send(sender, "taker", b"1")
    world.send(sender, "taker", b"2")
    world.reject(taker, first)
    world.hub.inboxes.requeue(world.entry(first), world.now, "sender")
    world.hub.inboxes.receive(taker, 2)
    assert taker.bodies() == [b"1", b"1", b"2"]


def test_a_requeued_letter_waits_neither_for_its_asker_nor_for_its_time() -> None:
    world = World(journal=True)
    asker, taker = world.join("asker"), world.join("taker", credit=9)
    world.request(asker, "taker", ttl=5)
    id = taker.told(Message)[-1].id
    world.reject(taker, id)
    world.after(60)
    world.hub.inboxes.requeue(world.entry(id), world.now, "asker")
    world.nack(taker, id)
    assert world.state(id) is ACCEPTED
    world.restart()
    world.after(1)
    assert world.state(id) is STORED


def test_a_letter_for_a_full_inbox_stays_dead() -> None:
    world = World(inbox__max_messages=1)
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.reject(taker, id)
    world.send(sender, "taker")
    with pytest.raises(Backpressure):
        world.hub.inboxes.requeue(world.entry(id), world.now, "sender")
    assert world.state(id) is DEAD
    assert list(taker.agent.dead) == [id]


def test_a_dropped_letter_leaves_its_trace_for_a_while() -> None:
    world = World()
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.reject(taker, id)
    world.hub.dead.drop(world.entry(id), world.now)
    assert world.state(id) is DEAD
    assert not taker.agent.dead
    world.after(600)
    assert id not in world.hub.receipts.entries


@pytest.mark.parametrize("limits", [{"dead__max_messages": 2}, {"dead__max_bytes": 2 * OVERHEAD_BYTES}])
def test_dead_letters_are_bounded_the_oldest_is_dropped_and_counted(limits: dict[str, float]) -> None:
    world = World(**limits)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    ids = [world.send(sender, "taker") for _ in range(3)]
    for id in ids:
        world.reject(taker, id)
    assert list(taker.agent.dead) == ids[1:]
    assert taker.agent.dead_dropped == 1
    assert world.state(ids[0]) is DEAD
    assert "1 older dead letter" in views.agent_view(taker.agent, world.now, world.config.inbox).trouble


def test_a_letter_larger_than_all_room_leaves_only_its_trace() -> None:
    world = World(dead__max_bytes=OVERHEAD_BYTES)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    id = world.send(sender, "taker", b"x")
    world.reject(taker, id)
    assert world.state(id) is DEAD
    assert taker.agent.dead_bytes == 0


def test_dead_letters_are_listed_newest_first_for_one_or_all() -> None:
    world = World()
    sender, one, two = world.join("sender"), world.join("one", credit=9), world.join("two", credit=9)
    ids = []
    for taker in (one, two, one):
        world.now += 1
        ids.append(world.send(sender, taker.name))
        world.reject(taker, ids[-1])
    assert [letter.id for letter in views.dead(world.hub, 1, None, 10).letters] == ids[::-1]
    view = views.dead(world.hub, 1, "one", 1)
    assert (view.total, [letter.id for letter in view.letters]) == (2, [ids[2]])
