"""The gaps of a durable subscription: told though nothing comes any more, and never by a wrong number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import FakeSession, World

from agentd.wire.messages import LaggedEvent, Message, State


def last(session: FakeSession) -> int:
    return session.told(Message)[-1].id


def missed(session: FakeSession) -> list[int]:
    return [lagged.missed for lagged in session.told(LaggedEvent)]


SETTLING: list[Callable[[World, FakeSession], object]] = [
    lambda world, one: world.ack(one, last(one)),
    lambda world, one: world.reject(one, last(one)),
    lambda world, one: world.hold(one, last(one), 60.0),
]


@pytest.mark.parametrize("settle", SETTLING)
def test_a_gap_is_told_behind_what_waited_though_no_other_event_comes(
    settle: Callable[[World, FakeSession], object],
) -> None:
    world = World(journal=True, inbox__max_messages=3)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci", 1)
    for number in range(5):
        world.publish(publisher, "t", b"%d" % number)
    settle(world, one)
    assert not missed(one), "one waits that came before it"
    settle(world, one)
    assert one.bodies() == [b"0", b"1", b"2"] and missed(one) == [2]
    settle(world, one)
    assert missed(one) == [2]


@pytest.mark.parametrize("more", [0, 2])
def test_after_a_crash_a_gap_that_grew_has_no_number(more: int) -> None:
    world = World(journal=True, inbox__max_messages=1)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    world.leave(one)
    for number in range(4):
        world.publish(publisher, "t", b"%d" % number)
    world.restart()
    publisher = world.join("publisher")
    for _ in range(more):
        world.publish(publisher, "t", b"more")
    world.crash()
    world.subscribe(one := world.join("one"), "t", "ci")
    assert missed(one) == [-1 if more else 3]


def test_what_is_stored_while_one_is_made_outlives_a_crash_after_a_miss() -> None:
    world = World(journal=True, inbox__max_messages=4)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci", start="all")
    stored = [world.publish(publisher, "t", b"%d" % number).state is State.STORED for number in range(5)]
    assert stored == [True] * 4 + [False]
    world.after(0.1)
    world.end_turn()
    assert one.bodies() == [b"0", b"1", b"2", b"3"] and missed(one) == [1]
    world.crash()
    world.subscribe(one := world.join("one"), "t", "ci")
    assert one.bodies() == [b"0", b"1", b"2", b"3"]


def test_a_gap_has_its_place_between_what_came_before_and_what_came_behind() -> None:
    world = World(journal=True, inbox__max_messages=3)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci", 1)
    for number in range(5):
        world.publish(publisher, "t", b"%d" % number)
    world.ack(one, last(one))
    world.publish(publisher, "t", b"behind")
    for _ in range(3):
        world.ack(one, last(one))
    told = [message for message in one.everything() if isinstance(message, LaggedEvent | Message)]
    found = [message.missed if isinstance(message, LaggedEvent) else message.body for message in told]
    assert found == [b"0", b"1", b"2", 2, b"behind"]
