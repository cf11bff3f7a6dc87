"""Conformance: what is in a message: kinds of bodies, large ones, and the order in which all of them arrive."""

from __future__ import annotations

import random

import pytest
from parties import Party, value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Answer, Message, Send, State, Status

MIB = 1 << 20
MAX_BODY = 16 * MIB
CHUNK = 64 * 1024

BODIES = {
    "no bytes": b"",
    "all bytes": bytes(range(256)),
    "bytes that look like text": b"text",
    "bytes that are no UTF-8": b"\xff\xfe\x00",
    "no text": "",
    "text": "Grüße, \U0001f44b",
    "text with control characters": "a\x00b\tc\r\n\x1b[0m\x7f\u2028\ufeff",
    "text that looks like JSON": '{"a": 1}',
    "text that looks like a number": "17",
    "null": None,
    "true": True,
    "zero": 0,
    "the largest integer of 64 bits": 2**64 - 1,
    "the smallest": -(2**63),
    "a float": 0.1,
    "negative zero": -0.0,
    "a large float": 1.7976931348623157e308,
    "a small float": 5e-324,
    "an empty list": [],
    "an empty object": {},
    "a string within": ["text"],
    "nested": {"a": [1, {"b": [None, True, "ü", 1.5, ""]}], "": {}},
    "many": [{"n": number} for number in range(500)],
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_keeps_its_kind(world: World, name: str) -> None:
    sent = BODIES[name]
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    sender.send("builder", sent)
    message = receiver.take()
    kind = Content.BYTES if isinstance(sent, bytes) else Content.TEXT if isinstance(sent, str) else Content.JSON
    assert message.content is kind
    assert value_of(message) == sent and type(value_of(message)) is type(sent)
    call = receiver.request("builder", sent)
    receiver.reply(receiver.take().id, sent)
    answer = receiver.expect(Answer, cid=call).message
    assert (answer.content, value_of(answer)) == (kind, sent)


def test_what_a_sender_calls_json_and_is_not_arrives_as_it_is(world: World) -> None:
    """Routing never looks inside."""
    if world.kind == "json":
        pytest.skip("the JSON face has no way to say it")
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    sender.ask(Send(0, "builder", Content.JSON, b"{never closed"))
    message = receiver.take()
    assert (message.content, message.body) == (Content.JSON, b"{never closed")


SIZES = [CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, MIB, 3 * MIB + 17]


@pytest.mark.parametrize("size", SIZES)
def test_a_large_body_arrives_whole(world: World, size: int) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    body = random.Random(size).randbytes(size)
    sender.send("builder", body)
    assert receiver.take().body == body


def test_a_body_of_the_limit_arrives_and_one_byte_more_is_refused(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    sender.send("builder", "x" * MAX_BODY)
    assert len(receiver.take().body) == MAX_BODY
    error = sender.refused_send("builder", "x" * (MAX_BODY + 1))
    assert error.code == "too_large" and not error.retryable
    sender.send("builder", "the connection is as good as before")
    receiver.take()


def test_a_large_reply_and_a_large_event_arrive_whole(world: World) -> None:
    asker, responder = world.join("planner"), world.join("builder", take=True)
    body = random.Random(1).randbytes(2 * MIB)
    call = asker.request("builder", body)
    asked = responder.take()
    responder.reply(asked.id, asked.body)
    assert asker.answer(call).message.body == body
    asker.subscribe("t")
    assert responder.publish("t", body).reached == 1
    assert asker.expect(Message).body == body


def test_order_holds_with_large_bodies_in_between(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=60)
    bodies = [bytes([number]) * (MIB if number % 10 == 3 else 10) for number in range(60)]
    calls = [sender.start_send("builder", body) for body in bodies]
    assert [receiver.arrives().body for _ in bodies] == bodies
    ids = [sender.accepted(call).id for call in calls]
    assert ids == sorted(ids)


def test_a_large_body_on_its_way_holds_up_no_answer(world: World) -> None:
    """A receiver that has not read it yet: the daemon's answers to others and to itself come all the same."""
    sender, receiver = world.join("planner"), world.join("builder", credit=1)
    sender.send("builder", b"x" * (4 * MIB))
    other = world.join("other", take=True)
    sender.send("other", b"small")
    assert other.take().body == b"small"
    assert receiver.ask(Status(0)).held == 2
    assert len(receiver.arrives().body) == 4 * MIB


def test_two_senders_are_ordered_each_by_itself(world: World) -> None:
    receiver = world.join("builder", credit=100)
    senders = [world.join("a"), world.join("b")]
    for number in range(50):
        for sender in senders:
            sender.start_send("builder", number)
    seen: dict[str, list[object]] = {"a": [], "b": []}
    for _ in range(100):
        message = receiver.arrives()
        seen[message.sender].append(value_of(message))
    assert seen == {"a": list(range(50)), "b": list(range(50))}


def test_order_holds_across_many_receivers(world: World) -> None:
    sender = world.join("planner")
    receivers = [world.join(f"r{number}", credit=30) for number in range(10)]
    for number in range(30):
        for receiver in receivers:
            sender.start_send(receiver.name, number)
    for receiver in receivers:
        assert [value_of(receiver.arrives()) for _ in range(30)] == list(range(30))


def test_what_waited_and_what_comes_now_keep_their_order(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    for number in range(5):
        sender.send("builder", number)
    receiver.credit(3)
    for number in range(5, 8):
        sender.send("builder", number)
    receiver.credit(10)
    assert [value_of(receiver.arrives()) for _ in range(8)] == list(range(8))


def test_what_comes_back_keeps_its_place_before_what_came_later(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    ids = [sender.send("builder", number) for number in range(4)]
    for _ in range(3):
        receiver.take()
    receiver.nack(ids[1])
    receiver.nack(ids[0])
    assert [receiver.take().id for _ in range(3)] == [ids[0], ids[1], ids[3]]


def settle(party: Party, message: Message) -> None:
    """Deliver and ack, without waiting for either."""
    party.delivered(message.id)
    party.ack(message.id)


def test_every_sender_is_told_of_each_of_its_messages(world: World) -> None:
    receiver = world.join("builder", credit=200)
    senders = [world.join(f"s{number}") for number in range(10)]
    calls = {
        (sender.name, number): sender.start_send("builder", number, wait=State.ACKED)
        for number in range(20)
        for sender in senders
    }
    for _ in calls:
        settle(receiver, receiver.arrives())
    for sender in senders:
        for number in range(20):
            assert sender.receipt(calls[sender.name, number]).state is State.ACKED
