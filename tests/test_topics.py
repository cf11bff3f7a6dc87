"""Topics: fan-out, and what becomes of an event."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeSession, World

from agentd.hub.receipts import OVERHEAD_BYTES
from agentd.wire.errors import BadName, BadRequest, LimitReached, NoSuchMessage
from agentd.wire.messages import LaggedEvent, Message, State, Subscribe

ACCEPTED, DELIVERED, EXPIRED = State.ACCEPTED, State.DELIVERED, State.EXPIRED


@pytest.fixture
def world() -> World:
    return World()


def take(world: World, session: FakeSession, subscription: int, *ids: int) -> None:
    world.hub.topics.delivered(session, subscription, list(ids), world.now)


def test_an_event_reaches_all_that_match_and_names_their_subscription(world: World) -> None:
    publisher, one, two, three = (world.join(name) for name in ("publisher", "one", "two", "three"))
    numbers = [world.subscribe(one, "task:*"), world.subscribe(two, "**"), world.subscribe(two, "task:created")]
    world.subscribe(three, "other:*")
    receipt = world.publish(publisher, "task:created", b"7")
    assert (receipt.state, receipt.reached, receipt.refused) == (ACCEPTED, 3, [])
    got = [message.details for session in (one, two, three) for message in session.told(Message)]
    assert [(d.subscription, d.topic) for d in got if d] == [(number, "task:created") for number in numbers]


def test_an_event_that_nobody_wants_ends_at_once(world: World) -> None:
    receipt = world.publish(world.join("publisher"), "task:created")
    assert receipt.reached == 0
    assert world.story(receipt.id) == [ACCEPTED, EXPIRED]


def test_an_event_is_delivered_when_the_last_subscription_has_taken_it(world: World) -> None:
    publisher, one, two = (world.join(name) for name in ("publisher", "one", "two"))
    first, second = world.subscribe(one, "t"), world.subscribe(two, "t")
    id = world.publish(publisher, "t", b"x").id
    take(world, one, first, id)
    assert world.state(id) is ACCEPTED
    take(world, two, second, id)
    assert world.state(id) is DELIVERED
    assert [who for _, _, who, _ in world.entry(id).trail] == ["publisher", "one", "two"]
    assert world.entry(id).message.body == b""
    world.after(600)
    assert id not in world.hub.receipts.entries


def test_an_event_whose_subscribers_left_before_they_took_it_expires(world: World) -> None:
    publisher, one, two = (world.join(name) for name in ("publisher", "one", "two"))
    world.subscribe(one, "t")
    number = world.subscribe(two, "t")
    id = world.publish(publisher, "t").id
    world.leave(one)
    assert world.state(id) is ACCEPTED
    world.hub.topics.unsubscribe(two, number, world.now)
    assert world.state(id) is EXPIRED
    assert two.event_bytes == 0


def test_an_event_that_one_took_and_one_left_behind_was_delivered(world: World) -> None:
    publisher, one, two = (world.join(name) for name in ("publisher", "one", "two"))
    number = world.subscribe(one, "t")
    world.subscribe(two, "t")
    id = world.publish(publisher, "t").id
    take(world, one, number, id)
    world.leave(two)
    assert world.state(id) is DELIVERED


def test_a_full_subscription_is_named_and_harms_no_other() -> None:
    world = World(max_events=2)
    publisher, slow, quick = (world.join(name) for name in ("publisher", "slow", "quick"))
    full, free = world.subscribe(slow, "t"), world.subscribe(quick, "t")
    ids = []
    for number in range(5):
        receipt = world.publish(publisher, "t", b"%d" % number)
        ids.append(receipt.id)
        assert (receipt.reached, receipt.refused) == ((2, []) if number < 2 else (1, ["slow"]))
        take(world, quick, free, receipt.id)
    assert quick.bodies() == [b"0", b"1", b"2", b"3", b"4"]
    assert slow.bodies() == [b"0", b"1"]
    take(world, slow, full, ids[0])
    assert [(lagged.subscription, lagged.missed) for lagged in slow.told(LaggedEvent)] == [(full, 3)]
    world.publish(publisher, "t", b"5")
    assert slow.bodies() == [b"0", b"1", b"5"]
    take(world, slow, full, ids[1])
    assert len(slow.told(LaggedEvent)) == 1
    assert world.hub.receipts.counts.missed == 3


def test_the_bytes_on_their_way_to_a_session_are_bounded_too() -> None:
    world = World(max_event_bytes=OVERHEAD_BYTES + 100)
    publisher, slow = world.join("publisher"), world.join("slow")
    number = world.subscribe(slow, "t")
    first = world.publish(publisher, "t", bytes(100))
    assert world.publish(publisher, "t").refused == ["slow"]
    take(world, slow, number, first.id)
    assert slow.event_bytes == 0
    assert world.publish(publisher, "t", bytes(100)).reached == 1


def test_an_event_with_no_room_anywhere_ends_at_once() -> None:
    world = World(max_events=1)
    publisher, slow = world.join("publisher"), world.join("slow")
    world.subscribe(slow, "t")
    world.publish(publisher, "t")
    receipt = world.publish(publisher, "t")
    assert world.state(receipt.id) is EXPIRED
    assert world.entry(receipt.id).trail[-1][3] == "no room"


def test_what_was_not_outstanding_is_too_late_to_matter(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    number = world.subscribe(one, "t")
    id = world.publish(publisher, "t").id
    take(world, one, number, id, id, 4711)
    take(world, one, number + 1, id)
    assert world.story(id) == [ACCEPTED, DELIVERED]


def test_who_publishes_hears_itself_if_it_subscribes(world: World) -> None:
    session = world.join("one")
    world.subscribe(session, "t")
    world.publish(session, "t", b"x")
    assert session.bodies() == [b"x"]


def test_events_of_one_publisher_keep_their_order(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "**")
    for number in range(5):
        world.publish(publisher, f"t:{number % 2}", b"%d" % number)
    assert one.bodies() == [b"0", b"1", b"2", b"3", b"4"]


def test_subscriptions_made_after_an_event_change_who_gets_the_next(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    assert world.publish(publisher, "t").reached == 0
    number = world.subscribe(one, "t")
    assert world.publish(publisher, "t").reached == 1
    world.hub.topics.unsubscribe(one, number, world.now)
    assert world.publish(publisher, "t").reached == 0
    with pytest.raises(BadRequest):
        world.hub.topics.unsubscribe(one, number, world.now)


def test_an_event_outlives_its_publisher(world: World) -> None:
    publisher, one = world.join(), world.join("one")
    number = world.subscribe(one, "t")
    id = world.publish(publisher, "t").id
    world.leave(publisher)
    take(world, one, number, id)
    assert world.state(id) is DELIVERED


def test_an_event_is_nobodys_mail_even_if_its_topic_is_its_publishers_name(world: World) -> None:
    publisher, one = world.join("builder"), world.join("one")
    number = world.subscribe(one, "builder")
    id = world.publish(publisher, "builder").id
    for verb in (world.ack, world.nack, world.reject):
        with pytest.raises(NoSuchMessage, match="is an event on builder"):
            verb(publisher, id)
    with pytest.raises(BadRequest, match="is an event"):
        world.reply(publisher, id)
    assert publisher.agent.count == 0
    take(world, one, number, id)
    assert world.state(id) is DELIVERED


def test_subscriptions_are_bounded_for_each_session() -> None:
    world = World(max_subscriptions=1)
    one, two = world.join("one"), world.join("two")
    world.subscribe(one, "t")
    with pytest.raises(LimitReached):
        world.subscribe(one, "u")
    world.subscribe(two, "t")


@pytest.mark.parametrize("options", [{"wait": State.ACKED}, {"ttl": 5.0}, {"key": "k"}])
def test_an_event_takes_no_wait_ttl_or_key(world: World, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        world.publish(world.join("one"), "t", **options)


@pytest.mark.parametrize("topic", ["", "t:", ":t", "a b", "t:*", "agentd:joined", "t\n"])
def test_what_is_no_topic_is_refused(world: World, topic: str) -> None:
    with pytest.raises(BadName):
        world.publish(world.join("one"), topic)


def test_what_is_no_subscription_is_refused(world: World) -> None:
    session = world.join("one")
    for start, name in (("all", None), ("-5m", None), ("a" * 13, None), ("yesterday", None), ("yesterday", "mine")):
        with pytest.raises(BadRequest):
            world.hub.subscribe(session, Subscribe(1, "t", start, name), world.now)
    with pytest.raises(BadName):
        world.hub.subscribe(session, Subscribe(1, "t:"), world.now)
    assert not world.hub.topics.subscriptions
