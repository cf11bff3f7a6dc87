"""Conformance: durable subscriptions, whose events wait for whoever subscribes under their name and are settled as mail
is."""

from __future__ import annotations

import pytest
from parties import Party, value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Agents,
    AgentView,
    Delivered,
    Drop,
    Forget,
    GiveBack,
    Join,
    LaggedEvent,
    Message,
    Options,
    Priority,
    Publish,
    Reject,
    Requeue,
    Send,
    State,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Working,
)
from agentd.wire.names import id_text

MAX_EVENTS = 10  # worlds.LIMITS


def row(party: Party) -> AgentView:
    (found,) = [agent for agent in party.ask(Agents(0)).agents if agent.name == "sub:ci"]
    return found  # type: ignore[no-any-return]


def come(party: Party) -> list[Message]:
    """What has come."""
    return party.so_far(Message)


def test_events_wait_and_go_to_the_next_that_subscribes(world: World) -> None:
    publisher, one = world.join("planner"), world.join("a")
    one.subscribe("build:*", "ci")
    one.leave()
    receipts = [publisher.publish("build:done", number) for number in range(3)]
    assert [(r.state, r.reached, r.refused) for r in receipts] == [(State.STORED, 1, [])] * 3
    assert (row(publisher).live, row(publisher).waiting) == (False, 3)
    two = world.join()
    number = two.subscribe("build:*", "ci")
    found = come(two)
    assert [value_of(message) for message in found] == [0, 1, 2]
    details = [message.details for message in found]
    wanted = [("build:done", number, receipt.id) for receipt in receipts]
    assert [(d.topic, d.subscription, d.event) for d in details if d] == wanted
    assert two.ack(*(message.id for message in found)) == 3
    assert publisher.state(found[0].id) == "acked" and row(publisher).held == 0


def test_each_event_goes_to_one_of_those_who_subscribe(world: World) -> None:
    publisher, one, two = world.join("planner"), world.join("a"), world.join("b")
    one.subscribe("t", "ci", 2)
    two.subscribe("t", "ci", 2)
    for number in range(8):
        publisher.publish("t", number)
    got: list[object] = []
    for party in (one, two, one, two):
        found = come(party)
        assert len(found) == 2
        got += [value_of(message) for message in found]
        party.ack(*(message.id for message in found))
    assert sorted(got, key=str) == list(range(8))


def test_what_a_subscriber_leaves_goes_to_another_with_its_attempts(world: World) -> None:
    publisher, one, two = world.join("planner"), world.join("a"), world.join("b")
    one.subscribe("t", "ci")
    for number in range(3):
        publisher.publish("t", number)
    first, second, _ = come(one)
    one.tell(Delivered([first.id]))
    one.nack(second.id, "not here")
    one.die()
    two.subscribe("t", "ci")
    assert [(value_of(message), message.attempt) for message in come(two)] == [(0, 2), (1, 2), (2, 1)]


def test_every_verdict_on_mail_is_one_on_events(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    number = party.subscribe("t", "ci")
    for count in range(5):
        publisher.publish("t", count)
    rejected, given, held, delivered, again = come(party)
    party.ask(Reject(0, rejected.id, "never"))
    party.ask(GiveBack(0, [given.id]))
    party.ask(Working(0, held.id, 60.0))
    party.delivered(delivered.id, subscription=number)
    party.nack(again.id)
    assert [(value_of(m), m.attempt) for m in come(party)] == [(1, 1), (4, 2)]
    assert publisher.state(delivered.id) == "delivered" == publisher.state(held.id)
    (letter,) = publisher.dead("sub:ci").letters
    assert (letter.id, letter.to, letter.reason) == (rejected.id, "sub:ci", "never")
    publisher.ask(Requeue(0, [letter.id]))
    assert value_of(party.arrives()) == 0
    all_of_them = {message.id for message in (rejected, given, held, delivered, again)}
    assert {mail.id for mail in publisher.inbox("sub:ci").messages} == all_of_them


def test_a_live_subscriber_and_a_durable_one_both_have_it(world: World) -> None:
    publisher, live, party = world.join("planner"), world.join("a"), world.join("b")
    plain = live.subscribe("t")
    party.subscribe("*", "ci")
    receipt = publisher.publish("t", b"x")
    assert (receipt.state, receipt.reached) == (State.STORED, 2)
    (message,) = come(live)
    live.delivered(message.id, subscription=plain)
    live.so_far(Message)
    view = publisher.trace(receipt.id)
    assert view.state is State.DELIVERED and {step.who for step in view.transitions[1:]} == {"a", "sub:ci"}
    (copy,) = come(party)
    assert copy.id != message.id == receipt.id
    assert publisher.trace(copy.id).to == "sub:ci"


def test_past_its_window_nothing_comes_and_no_publisher_waits(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("t", "ci")
    for count in range(MAX_EVENTS + 3):
        assert publisher.publish("t", count).reached == 1
    found = come(party)
    assert [value_of(message) for message in found] == list(range(MAX_EVENTS))
    party.ack(found[0].id, found[1].id)
    assert [value_of(message) for message in come(party)] == [MAX_EVENTS, MAX_EVENTS + 1]
    assert party.so_far(LaggedEvent) == []


def test_another_pattern_is_refused_and_a_start_is_passed_over(world: World) -> None:
    one, two = world.join("a"), world.join("b")
    one.subscribe("build:*", "ci")
    error = two.refusal(Subscribe(0, "test:*", "new", "ci"))
    assert error.code == "bad_request" and "build:*" in error.message and "test:*" in error.message
    subscribed = two.ask(Subscribe(0, "build:*", "all", "ci"))
    assert isinstance(subscribed, Subscribed) and "goes on where it was" in subscribed.note


def test_the_name_of_a_subscription_is_nobodys(world: World) -> None:
    party = world.join("a")
    party.subscribe("t", "ci")
    assert world.connect().refusal(Join(0, "sub:ci", take=True)).code == "bad_name"
    assert party.refused_send("sub:ci", b"x").code == "bad_name"
    assert party.refused_send("sub:ci", b"x", allow_absent=True).code == "bad_name"
    assert party.refusal(Send(0, "sub:ci", Content.BYTES, b"", Options(Priority.CRITICAL))).code == "bad_name"
    assert party.refusal(Forget(0, "sub:ci")).code == "not_permitted"
    assert party.refusal(Subscribe(0, "t", "new", "sub:ci")).code == "bad_name"
    assert party.refusal(Subscribe(0, "agentd:*", "new", "facts")).code == "bad_request"


def test_only_who_subscribes_settles(world: World) -> None:
    publisher, party, other = world.join("planner"), world.join("a"), world.join("b")
    party.subscribe("t", "ci")
    publisher.publish("t", b"x")
    (message,) = come(party)
    error = other.refusal(Reject(0, message.id))
    assert error.code == "no_such_message" and "sub:ci" in error.message


def test_it_lasts_until_it_is_ended_with_all_that_waits(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("t", "ci")
    publisher.publish("t", 0)
    publisher.publish("t", 1)
    (first, second) = come(party)
    party.ask(Reject(0, first.id))
    error = publisher.refusal(Unsubscribe(0, 0, "ci"))
    assert error.code == "not_permitted" and "subscribed to by a" in error.message
    party.leave()
    assert publisher.ask(Unsubscribe(0, 0, "ci")).count == 2
    assert publisher.publish("t", 2).reached == 0
    assert publisher.refusal(Unsubscribe(0, 0, "ci")).code == "bad_request"
    assert publisher.refusal(Drop(0, [second.id])).code == "no_such_message"


def test_a_publisher_that_wants_no_answer_gets_none(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("t", "ci")
    publisher.tell(Publish(0, "t", Content.BYTES, b"x"))
    assert party.arrives().body == b"x"


def test_events_of_a_large_body_come_whole(world: World) -> None:
    publisher, party = world.join("planner"), world.join("a")
    party.subscribe("t", "ci")
    body = bytes(range(256)) * 4096
    assert publisher.publish("t", body).state is State.STORED
    assert party.arrives().body == body


@pytest.mark.parametrize(("start", "bodies"), [("all", [0, 1, 2]), ("-1h", [0, 1, 2]), ("ID", [1, 2]), ("new", [])])
def test_a_new_one_begins_with_what_is_on_record(world: World, start: str, bodies: list[int]) -> None:
    publisher, one = world.join("planner"), world.join("a")
    topic = f"past:{start.strip('-')}"  # other behaviours have left their records
    one.subscribe("past:*", "other")
    found = [publisher.publish(topic, number).id for number in range(3)]
    one.ack(*(message.id for message in come(one)))
    two = world.join("b")
    two.subscribe(topic, "ci", 0, id_text(found[1]) if start == "ID" else start)
    publisher.publish(topic, "live")
    taken = [two.arrives() for _ in range(len(bodies) + 1)]
    assert [value_of(message) for message in taken] == [*bodies, "live"]
    assert [message.id for message in taken] == sorted(message.id for message in taken)
    assert [message.details.event for message in taken if message.details][: len(bodies)] == found[3 - len(bodies) :]
    assert two.ack(*(message.id for message in taken)) == len(taken)
