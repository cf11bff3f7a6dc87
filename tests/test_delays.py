"""Messages that nobody is given before their time: over nacks, restarts and crashes, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import WALL_OFFSET, World

from agentd.hub import views
from agentd.hub.asked import check_direct
from agentd.hub.notices import notice
from agentd.wire.errors import AgentdError, Backpressure, BadRequest, LimitReached, NotOnThisLane
from agentd.wire.messages import Accepted, Message, Notice, Options, Priority, State

ACCEPTED, STORED, DELIVERED, ACKED = State.ACCEPTED, State.STORED, State.DELIVERED, State.ACKED


@pytest.fixture
def world() -> World:
    return World(journal=True)


@pytest.mark.parametrize("options", [{"delay": 60.0}, {"at": 1060.0 + WALL_OFFSET}])
def test_nobody_is_given_it_before_its_time(world: World, options: dict[str, float]) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    later, at_once = world.send(sender, "taker", b"later", **options), world.send(sender, "taker", b"at once")
    assert taker.bodies() == [b"at once"]
    world.after(59.5)
    assert taker.bodies() == [b"at once"]
    world.after(0.5)
    assert taker.bodies() == [b"at once", b"later"]
    details = taker.told(Message)[1].details
    assert details is not None and details.due_at == 1060.0 + WALL_OFFSET
    assert world.ack(taker, later, at_once) == 2


@pytest.mark.parametrize("options", [{"delay": 0.0}, {"at": WALL_OFFSET}, {"at": 1000.0 + WALL_OFFSET}])
def test_a_time_that_is_over_is_now(world: World, options: dict[str, float]) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(world.join("sender"), "taker", b"x", **options)
    assert taker.bodies() == [b"x"]
    assert not world.entry(id).position, "and then it is a message like any other"


@pytest.mark.parametrize("end", ["crash", "restart"])
@pytest.mark.parametrize("lane", [Priority.NORMAL, Priority.LOW])
def test_it_outlives_the_daemon_and_its_time_goes_on(world: World, end: str, lane: Priority) -> None:
    sender = world.join("sender")
    world.join("taker")  # live, so that nothing else would keep it
    id = world.send(sender, "taker", b"x", delay=600.0, ttl=60.0, priority=lane)
    assert world.story(id) == [ACCEPTED, STORED]
    getattr(world, end)()
    world.after(300.0)
    getattr(world, end)()  # now from what the first start has made of it
    taker = world.join("taker", credit=1)
    world.after(299.0)
    assert not taker.bodies()
    world.after(1.0)
    assert taker.bodies() == [b"x"] and taker.told(Message)[0].attempt == 1
    assert world.ack(taker, id) == 1


def test_its_time_may_come_while_nothing_runs(world: World) -> None:
    id = world.send(world.join("sender"), "taker", b"x", delay=60.0, allow_absent=True)
    world.now += 3600.0
    world.crash()
    taker = world.join("taker", credit=1)
    world.after(0.0)
    assert [message.id for message in taker.told(Message)] == [id]


def test_its_time_to_live_begins_when_it_may_be_taken(world: World) -> None:
    sender = world.join("sender")
    id = world.send(sender, "taker", delay=60.0, ttl=10.0, allow_absent=True)
    world.after(60.0)
    assert world.state(id) is STORED
    world.after(9.5)
    assert world.state(id) is STORED
    world.after(0.5)
    assert world.state(id) is State.EXPIRED


def test_inbox_and_trace_say_until_when(world: World) -> None:
    world.join("taker", take=False)
    id = world.send(world.join("sender"), "taker", delay=60.0)
    until = 1060.0 + WALL_OFFSET
    assert [mail.until for mail in views.inbox(world.hub, 0, "taker", 10).messages] == [until]
    assert world.hub.receipts.trace(0, world.entry(id)).until == until
    world.after(60.0)
    assert [mail.until for mail in views.inbox(world.hub, 0, "taker", 10).messages] == [None]
    assert world.hub.receipts.trace(0, world.entry(id)).until is None


def test_its_sender_is_told_that_it_waits(world: World) -> None:
    sender = world.join("sender")
    world.join("taker")
    world.send(sender, "taker", delay=60.0)
    (accepted,) = sender.told(Accepted)
    assert (accepted.state, accepted.note) == (STORED, "kept on disk until its time comes")


def test_it_is_announced_when_its_time_has_come(world: World) -> None:
    sender, hook = world.join("sender"), world.join()
    world.send(sender, "taker", delay=60.0, allow_absent=True)
    behind = world.send(sender, "taker")

    def fresh() -> int:
        found = notice(world.hub, hook, Notice(0, "taker")).fresh
        hook.announced = None
        return found

    assert fresh() == 1
    assert world.hub.agents.get("taker").announced == behind
    assert fresh() == 0
    world.after(60.0)
    assert fresh() == 1
    assert fresh() == 0


def test_its_waiting_is_nobodys_slowness(world: World) -> None:
    """Neither a latency of its receiver nor a sign that it takes nothing."""
    sender, taker = world.join("sender"), world.join("taker", credit=0)
    first, second = (world.send(sender, "taker", delay=3600.0) for _ in range(2))
    world.after(3600.0)
    world.after(1.0)
    row = views.agent_view(world.hub.agents.get("taker"), world.now, world.config.inbox)
    assert (row.oldest_s, row.trouble) == (1.0, "")
    world.hub.inboxes.receive(taker, 2)
    world.delivered(taker, first)
    assert world.ack(taker, first, second) == 2
    assert world.hub.receipts.counts.latency.longest_ns == 1_000_000_000


def test_its_receiver_may_end_it_before(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    acked, rejected = world.send(sender, "taker", delay=60.0), world.send(sender, "taker", delay=60.0)
    assert world.ack(taker, acked) == 1
    world.reject(taker, rejected, "no")
    world.after(60.0)
    assert not taker.bodies()
    assert (world.state(acked), world.state(rejected)) == (ACKED, State.DEAD)


def test_it_has_its_place_in_the_inbox() -> None:
    world = World(inbox__max_messages=2)
    sender = world.join("sender")
    world.join("taker")
    for _ in range(2):
        world.send(sender, "taker", delay=60.0)
    with pytest.raises(Backpressure):
        world.send(sender, "taker", delay=60.0)


def test_too_long_is_refused() -> None:
    world = World(max_delay_s=100.0)
    sender = world.join("sender")
    asked: list[dict[str, Any]] = [{"delay": 100.5}, {"at": 1100.5 + WALL_OFFSET}]
    for options in asked:
        with pytest.raises(LimitReached, match="max_delay_s"):
            world.send(sender, "new", allow_absent=True, **options)
    assert "new" not in world.hub.agents.by_name
    world.send(sender, "new", allow_absent=True, delay=100.0)


def test_two_times_are_refused(world: World) -> None:
    sender = world.join("sender")
    with pytest.raises(BadRequest, match="two ways"):
        world.send(sender, "sender", delay=1.0, at=5000.0 + WALL_OFFSET)


@pytest.mark.parametrize("options", [{"delay": 0.0}, {"at": 5000.0 + WALL_OFFSET}])
def test_what_else_takes_none(world: World, options: dict[str, Any]) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    asked: list[tuple[type[AgentdError], Any]] = [
        (BadRequest, lambda: world.request(sender, "taker", **options)),
        (BadRequest, lambda: world.publish(sender, "a:b", **options)),
        (BadRequest, lambda: world.reply(taker, world.send(sender, "taker"), **options)),
    ]
    for error, ask in asked:
        with pytest.raises(error, match="delay"):
            ask()
    with pytest.raises(NotOnThisLane, match="later"):
        check_direct(Options(Priority.HIGH, **options))


def test_a_key_is_accepted_once_while_it_waits(world: World) -> None:
    sender = world.join("sender")
    id = world.send(sender, "taker", b"x", delay=60.0, key="k", allow_absent=True)
    world.crash()
    assert world.send(world.join("sender"), "taker", b"x", delay=60.0, key="k") == id
