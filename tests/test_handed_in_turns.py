"""What waits for an agent is handed to it in portions, and others have their turn in between: nothing of it is missing,
nothing is out of order, whoever takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parties import Party
from worlds import MemoryWorld, World

from agentd.wire.messages import Message, Pause, Receive, Status

MANY = 500  # of 1 KiB: several portions
FEW = 10  # of 40 KiB: too


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryWorld]:
    """The hub in this process, whose loop turns when a party waits."""
    world = MemoryWorld(tmp_path)
    yield world
    world.clean()


def fill(world: World, name: str = "builder", bodies: int = MANY) -> list[int]:
    """So many for an agent that is absent; their ids."""
    world.join(name).leave()
    sender = world.join("planner")
    return [sender.send(name, bytes(1024)) for _ in range(bodies)]


def arrive(party: Party, count: int) -> list[int]:
    """The ids of so many, as they come."""
    return [party.arrives().id for _ in range(count)]


def test_all_of_a_large_inbox_comes_in_order(world: World) -> None:
    ids = fill(world)
    builder = world.join("builder", credit=MANY)
    assert arrive(builder, MANY) == ids
    assert builder.ack(*ids) == MANY


def test_those_who_share_an_inbox_get_all_of_it_in_order(world: World) -> None:
    ids = fill(world)
    first = world.join("builder", take=True, share=True)
    second = world.join("builder", take=True, share=True)
    first.credit(MANY // 2)
    second.credit(MANY // 2)
    each = arrive(first, MANY // 2), arrive(second, MANY // 2)
    assert [sorted(part) for part in each] == list(each)
    assert sorted(each[0] + each[1]) == ids
    assert first.ack(*each[0]) + second.ack(*each[1]) == MANY


def test_a_durable_subscription_is_caught_up_with_in_order(world: World) -> None:
    tail = world.join("tail")
    tail.subscribe("progress", name="log", window=1)
    tail.leave()
    publisher = world.join("planner")
    for _ in range(FEW):
        publisher.publish("progress", bytes(40 * 1024))
    tail = world.join("tail")
    tail.subscribe("progress", name="log", window=FEW)
    ids = arrive(tail, FEW)
    assert ids == sorted(ids)
    assert tail.ack(*ids) == FEW


@pytest.mark.parametrize("takers", [1, 2])
def test_others_have_their_turn_in_between(memory: MemoryWorld, takers: int) -> None:
    ids = fill(memory)
    builder, other = memory.join("builder", take=True, share=True), memory.join("other")
    for _ in range(takers - 1):
        memory.join("builder", take=True, share=True)  # and asks for nothing
    builder.credit(MANY)
    before = sum(isinstance(message, Message) for message in builder.unread)
    assert 0 < before < MANY // 2
    other.ask(Status(0))
    assert arrive(builder, MANY) == ids
    assert builder.ack(*ids) == MANY


def test_one_that_is_paused_in_between_gets_the_rest_later(memory: MemoryWorld) -> None:
    ids = fill(memory)
    builder, other = memory.join("builder", take=True), memory.join("other")
    builder.tell(Receive(0, MANY))
    other.ask(Pause(0, "builder", True))
    got = [message.id for message in builder.so_far(Message)]
    assert got == ids[: len(got)]
    assert len(got) < MANY
    other.ask(Pause(0, "builder", False))
    assert got + arrive(builder, MANY - len(got)) == ids
    assert builder.ack(*ids) == MANY


def test_what_was_not_handed_over_yet_stays_where_one_goes_in_between(memory: MemoryWorld) -> None:
    ids = fill(memory)
    builder = memory.join("builder", take=True)
    builder.tell(Receive(0, MANY))
    builder.die()
    again = memory.join("builder", credit=MANY)
    assert arrive(again, MANY) == ids
    assert again.ack(*ids) == MANY
