"""Conformance: events to whoever subscribes, gaps that both ends are told of, and the globs of topics."""

from __future__ import annotations

import pytest
from parties import Party, value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Ack,
    LaggedEvent,
    Message,
    Options,
    Priority,
    Publish,
    Reply,
    State,
    Subscribe,
    Unsubscribe,
)

MAX_EVENTS = 10  # worlds.LIMITS


def events(party: Party) -> list[object]:
    """What has come, taken at once."""
    found = party.so_far(Message)
    for message in found:
        assert message.details is not None
        party.delivered(message.id, subscription=message.details.subscription)
    return [value_of(message) for message in found]


def test_an_event_reaches_whoever_subscribes(world: World) -> None:
    publisher, first, second = world.join("planner"), world.join("a"), world.join()
    first.subscribe("task:created")
    second.subscribe("task:*")
    other = world.join("b")
    other.subscribe("task:done")
    receipt = publisher.publish("task:created", {"id": 7})
    assert (receipt.reached, receipt.refused, receipt.state) == (2, [], State.ACCEPTED)
    message = first.expect(Message)
    assert message.details is not None and message.details.topic == "task:created"
    assert (message.sender, value_of(message)) == ("planner", {"id": 7})
    assert events(second) == [{"id": 7}]
    assert events(other) == []


def test_an_event_nobody_subscribes_to_reaches_nobody_and_that_is_said(world: World) -> None:
    publisher = world.join("planner")
    receipt = publisher.publish("task:created", b"x")
    assert receipt.reached == 0
    view = publisher.trace(receipt.id)
    assert (view.state.value, view.to, view.transitions[-1].note) == ("expired", "task:created", "nobody subscribed")


def test_an_event_is_delivered_when_its_last_subscriber_has_it(world: World) -> None:
    publisher, first, second = world.join("planner"), world.join("a"), world.join("b")
    first.subscribe("t")
    second.subscribe("t")
    id = publisher.publish("t", b"x").id
    assert events(first) == [b"x"]
    first.so_far(Message)
    assert publisher.state(id) == "accepted"
    assert events(second) == [b"x"]
    second.so_far(Message)
    view = publisher.trace(id)
    assert view.state.value == "delivered"
    assert {step.who for step in view.transitions[1:]} == {"a", "b"}


def test_a_subscriber_that_goes_holds_no_event_up(world: World) -> None:
    publisher, first, second = world.join("planner"), world.join("a"), world.join("b")
    first.subscribe("t")
    second.subscribe("t")
    id = publisher.publish("t", b"x").id
    assert events(first) == [b"x"]
    second.leave()
    first.so_far(Message)
    assert publisher.state(id) == "delivered"


def test_one_session_with_two_matching_subscriptions_gets_it_for_each(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    numbers = [party.subscribe("task:*"), party.subscribe("**")]
    assert publisher.publish("task:done", b"x").reached == 2
    found = [message.details.subscription for message in party.so_far(Message) if message.details]
    assert sorted(found) == sorted(numbers)


def test_a_publisher_that_subscribes_hears_itself(world: World) -> None:
    party = world.join("planner")
    party.subscribe("t")
    assert party.publish("t", 1).reached == 1
    assert events(party) == [1]


def test_events_come_in_the_order_of_their_publication(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("**")
    for number in range(MAX_EVENTS):
        publisher.publish(f"t:{number % 3}", number)
    assert events(party) == list(range(MAX_EVENTS))


def test_after_unsubscribing_nothing_comes(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    number = party.subscribe("t")
    publisher.publish("t", 1)
    party.ask(Unsubscribe(0, number))
    assert publisher.publish("t", 2).reached == 0
    assert [value_of(message) for message in party.so_far(Message)] == [1]
    assert party.refusal(Unsubscribe(0, number)).code == "bad_request"


def test_a_slow_subscriber_has_a_gap_is_told_and_goes_on(world: World) -> None:
    publisher, party = world.join("planner"), world.join("slow")
    number = party.subscribe("t")
    receipts = [publisher.publish("t", count) for count in range(MAX_EVENTS + 3)]
    assert [receipt.reached for receipt in receipts] == [1] * MAX_EVENTS + [0] * 3
    assert receipts[-1].refused == ["slow"]
    assert events(party) == list(range(MAX_EVENTS))
    lagged = party.expect(LaggedEvent)
    assert (lagged.subscription, lagged.missed) == (number, 3)
    assert publisher.publish("t", "after").reached == 1
    assert events(party) == ["after"]
    assert party.so_far(LaggedEvent) == []


def test_the_gap_is_told_at_its_place(world: World) -> None:
    publisher, party = world.join("planner"), world.join("slow")
    party.subscribe("t")
    for count in range(MAX_EVENTS + 1):
        publisher.publish("t", count)
    assert events(party) == list(range(MAX_EVENTS))
    publisher.publish("t", "after")
    party.so_far(Unsubscribe)  # all that has come is unread now, in its order
    assert [type(message) for message in party.unread] == [LaggedEvent, Message]


def test_a_slow_subscriber_harms_no_other(world: World) -> None:
    publisher, slow, quick = world.join("planner"), world.join("slow"), world.join("quick")
    slow.subscribe("t")
    quick.subscribe("t")
    for count in range(MAX_EVENTS * 3):
        receipt = publisher.publish("t", count)
        assert events(quick) == [count]
        assert receipt.refused == ([] if count < MAX_EVENTS else ["slow"])


def test_an_event_that_found_no_room_at_all_has_expired(world: World) -> None:
    publisher, slow = world.join("planner"), world.join("slow")
    slow.subscribe("t")
    for count in range(MAX_EVENTS):
        publisher.publish("t", count)
    view = publisher.trace(publisher.publish("t", b"x").id)
    assert (view.state.value, view.transitions[-1].note) == ("expired", "no room")


def test_events_take_no_reply_and_no_ack(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a", take=True)
    party.subscribe("t")
    id = publisher.publish("t", b"x").id
    party.expect(Message)
    error = party.refusal(Reply(0, id, Content.BYTES, b""))
    assert error.code == "bad_request" and "event" in error.message
    assert publisher.refusal(Ack(0, [id])).code == "no_such_message"


@pytest.mark.parametrize("options", [{"wait": State.ACKED}, {"ttl": 5.0}, {"key": "k"}])
def test_an_event_takes_no_option_that_means_nothing_for_it(world: World, options: dict[str, object]) -> None:
    party = world.join("planner")
    verb = Publish(0, "t", Content.BYTES, b"", Options(**options))  # type: ignore[arg-type]
    assert party.refusal(verb).code == "bad_request"


def test_headers_and_re_travel_with_an_event(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("t")
    first = publisher.publish("t", 1).id
    publisher.publish("t", 2, headers={"a": "b"}, re=first)
    details = party.so_far(Message)[1].details
    assert details is not None
    assert (details.headers, details.re, details.thread, details.hops) == ({"a": "b"}, first, first, 1)


@pytest.mark.parametrize("priority", [Priority.BATCH])
def test_an_event_on_a_lane_that_is_not_there_is_refused(world: World, priority: Priority) -> None:
    party = world.join("planner")
    party.subscribe("t")
    verb = Publish(0, "t", Content.BYTES, b"", Options(priority=priority))
    assert party.refusal(verb).code == "lane_unavailable"
    assert events(party) == []


def test_a_start_and_a_window_are_for_durable_subscriptions(world: World) -> None:
    party = world.join("planner")
    verbs = (
        Subscribe(0, "t", "all"),
        Subscribe(0, "t", "-5m"),
        Subscribe(0, "t", "a" * 13),
        Subscribe(0, "t", window=1),
    )
    for verb in verbs:
        error = party.refusal(verb)
        assert error.code == "bad_request" and "durable" in error.message
    assert party.refusal(Subscribe(0, "t", "yesterday")).code == "bad_request"


def test_subscriptions_of_a_session_are_bounded(world: World) -> None:
    party = world.join("planner")
    for number in range(12):
        party.subscribe(f"t:{number}")
    assert party.refusal(Subscribe(0, "t:more")).code == "limit_reached"


def test_the_daemons_own_topics_are_for_listening_only(world: World) -> None:
    party = world.join("planner")
    party.subscribe("agentd:*")
    assert party.refusal(Publish(0, "agentd:joined", Content.BYTES, b"")).code == "bad_name"


@pytest.mark.parametrize("topic", ["", ":", "a:", ":a", "a..b", "a b", "ä", "*", "a:*", "a/b", "x" * 256])
def test_topics_that_may_not_be(world: World, topic: str) -> None:
    assert world.join("planner").refusal(Publish(0, topic, Content.BYTES, b"")).code == "bad_name"


@pytest.mark.parametrize("pattern", ["", "a:", "a**", "**a", "a:b**", "[a]", "a?", "***", "x" * 256])
def test_patterns_that_may_not_be(world: World, pattern: str) -> None:
    assert world.join("planner").refusal(Subscribe(0, pattern)).code == "bad_name"


GLOBS = {
    "task:created": (["task:created"], ["task.created", "task:created:now", "task", "task:create", "xtask:created"]),
    "task:*": (["task:created", "task:x"], ["task", "task:a:b", "task.created", "tasks:created"]),
    "task.*": (["task.created"], ["task:created", "task.a.b"]),
    "*": (["task", "task_7", "a-b"], ["task:created", "a.b"]),
    "*:done": (["task:done", "job:done"], ["done", "a:b:done", "task.done"]),
    "task_*": (["task_7", "task_", "task_a_b"], ["task", "task_7:done", "xtask_7"]),
    "task_*:done": (["task_7:done"], ["task_7", "task_7:x:done"]),
    "t*k": (["task", "tk", "task_k"], ["task:k", "tasks"]),
    "*a*b*": (["ab", "xaybz"], ["ba", "a:b"]),
    "**": (["a", "a:b", "a.b:c", "task_7"], []),
    "task:**": (["task:a", "task:a:b", "task:a.b", "task"], ["tasks", "task.a", "a:task"]),
    "**:done": (["done", "a:done", "a:b:done", "a.b:done"], ["done:a", "undone", "a.undone"]),
    "a:**:z": (["a:z", "a:b:z", "a:b.c:z"], ["a", "z", "a:b", "ab:z", "a:bz"]),
    "a.b:c": (["a.b:c"], ["a:b:c", "a.b.c", "aXb:c"]),
    "**:x:**": (["x", "a:x", "x:a", "a:b:x:c"], ["a", "ax", "a:xx"]),
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs(world: World, pattern: str) -> None:
    party = world.join("planner")
    party.subscribe(pattern)
    matching, others = GLOBS[pattern]
    for topic in (*matching, *others):
        party.publish(topic, topic)
    assert events(party) == matching
