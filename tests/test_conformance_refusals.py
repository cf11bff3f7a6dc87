"""Conformance: what is refused is refused by name, to its sender alone, and nothing is half done. Dead letters."""

from __future__ import annotations

import pytest
from parties import Party, Refused, value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Drop,
    Error,
    Join,
    Message,
    Options,
    Priority,
    Publish,
    Receipt,
    Reject,
    Reply,
    Request,
    Requeue,
    Route,
    Send,
    State,
    Stats,
    Status,
    Trace,
)

MAX_MESSAGES = 1000  # worlds.LIMITS


# Backpressure.


def fill(world: World, name: str) -> Party:
    """Somebody who fills the inbox of `name`, which nobody takes from."""
    filler = world.join("filler")
    calls = [filler.start_send(name, number, allow_absent=True) for number in range(MAX_MESSAGES)]
    filler.so_far(Message)
    assert [error for error in filler.unread if isinstance(error, Error)] == []
    assert len(calls) == MAX_MESSAGES
    filler.unread.clear()
    return filler


def test_a_full_inbox_is_backpressure_and_there_is_room_again_after_an_ack(world: World) -> None:
    receiver = world.join("builder", take=True)
    sender = fill(world, "builder")
    error = sender.refused_send("builder", b"one more")
    assert error.code == "backpressure" and error.retryable
    assert error.retry_after is not None and error.retry_after > 0
    assert "builder's inbox is full: 1000 messages" in error.message
    message = receiver.take()
    assert sender.refused_send("builder", b"one more").code == "backpressure"  # held is not done
    receiver.ack(message.id)
    sender.send("builder", b"one more")


def test_a_full_inbox_harms_nobody_else(world: World) -> None:
    world.join("full", take=True)
    other = world.join("other", take=True)
    sender = fill(world, "full")
    calls = [sender.start_send(name, name) for name in ("other", "full", "other")]
    assert [sender.accepted(calls[0]).count, sender.accepted(calls[2]).count] == [1, 1]
    with pytest.raises(Refused, match="backpressure"):
        sender.answer(calls[1])
    assert [value_of(other.take()) for _ in range(2)] == ["other", "other"]


def test_a_refused_message_is_nowhere(world: World) -> None:
    world.join("builder", take=True)
    sender = fill(world, "builder")
    before = sender.ask(Stats(0))
    sender.refused_send("builder", b"x", key="k", ttl=5.0)
    after = sender.ask(Stats(0))
    assert (after.accepted, after.refused) == (before.accepted, before.refused + 1)
    assert sender.inbox("builder").total == MAX_MESSAGES


def test_backpressure_goes_for_requests_and_replies_too(world: World) -> None:
    receiver = world.join("builder", take=True)
    other = world.join("other", take=True)
    world.join("builder-2")
    receiver.send("other", "reply to me")
    asked = other.take()
    sender = fill(world, "builder")
    with pytest.raises(Refused, match="backpressure"):
        sender.answer(sender.request("builder", b"?"))
    with pytest.raises(Refused, match="backpressure"):
        other.reply(asked.id, "I would")
    assert other.state(asked.id) == "delivered"  # a refused reply acks nothing
    other.ack(asked.id)


def test_an_inbox_of_bytes_is_full_too(world: World) -> None:
    world.join("builder", take=True)
    sender = world.join("planner")
    for _ in range(3):
        sender.send("builder", "x" * (16 << 20))
    assert sender.refused_send("builder", "x" * (16 << 20)).code == "backpressure"
    sender.send("builder", "what is small has room")


# Lanes.


@pytest.mark.parametrize("priority", [Priority.BATCH])
def test_a_lane_that_is_not_there_is_refused_and_nothing_goes_another_way(world: World, priority: Priority) -> None:
    receiver, sender = world.join("builder", credit=5), world.join("planner", take=True)
    receiver_mail = sender.send("builder", "normal")
    receiver.expect(Message, id=receiver_mail)
    options = Options(priority=priority)
    for verb in (
        Send(0, "builder", Content.BYTES, b"x", options),
        Request(0, "builder", Content.BYTES, b"x", 5.0, options),
        Publish(0, "t", Content.BYTES, b"x", options),
    ):
        error = sender.refusal(verb)
        assert error.code == "lane_unavailable" and priority.value in error.message and error.hint
    assert receiver.refusal(Reply(0, receiver_mail, Content.BYTES, b"x", options)).code == "lane_unavailable"
    assert receiver.so_far(Message) == sender.so_far(Message) == []


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAYED, Route.JOURNAL])
def test_a_route_that_can_t_be_had_is_refused(world: World, route: Route) -> None:
    receiver, sender = world.join("builder", credit=5), world.join("planner")
    assert sender.refused_send("builder", b"x", route=route).code == "lane_unavailable"
    assert receiver.so_far(Message) == []
    run = sender.accepted(sender.start_send("builder", b"x", route=Route.SOCKET))
    assert (run.lane, run.route) == (Priority.NORMAL, Route.SOCKET)


def test_status_says_which_lanes_are_open_and_why_not(world: World) -> None:
    lanes = world.join().ask(Status(0)).lanes
    assert [lane.lane for lane in lanes] == list(Priority)
    assert [lane.lane for lane in lanes if lane.open] == [
        Priority.CRITICAL,
        Priority.HIGH,
        Priority.NORMAL,
        Priority.LOW,
    ]
    assert all(lane.reason for lane in lanes)


# Dead letters.


def dead_letter(world: World, value: object = "hopeless") -> tuple[Party, Party, int]:
    """Sender, receiver, and the id of a message that the receiver rejected."""
    sender, receiver = world.join("planner", take=True), world.join("builder", take=True)
    id = sender.send("builder", value)
    receiver.take()
    receiver.ask(Reject(0, id, "no such target"))
    return sender, receiver, id


def test_dead_letters_are_listed_with_reason_and_attempts(world: World) -> None:
    sender, _, id = dead_letter(world)
    view = sender.dead()
    (letter,) = view.letters
    assert view.total == 1
    assert (letter.id, letter.to, letter.sender, letter.reason, letter.attempts) == (
        id, "builder", "planner", "no such target", 1,
    )  # fmt: skip
    assert (letter.preview, letter.size_bytes, letter.content) == ("hopeless", 8, Content.TEXT)
    assert letter.died_at >= letter.sent_at
    assert sender.dead("builder").total == 1 and sender.dead("planner").total == 0
    with pytest.raises(Refused, match="no_such_agent"):
        sender.dead("nobody")


def test_dead_letters_are_listed_newest_first(world: World) -> None:
    sender, receiver, first = dead_letter(world)
    second = sender.send("builder", "also")
    receiver.take()
    receiver.ask(Reject(0, second))
    assert [letter.id for letter in sender.dead().letters] == [second, first]


def test_a_dead_letter_is_shown_by_its_trace(world: World) -> None:
    sender, _, id = dead_letter(world)
    view = sender.trace(id)
    assert view.state is State.DEAD
    assert [(step.state.value, step.who, step.note) for step in view.transitions] == [
        ("accepted", "planner", ""),
        ("delivered", "builder", ""),
        ("dead", "builder", "no such target"),
    ]


def test_a_requeued_dead_letter_starts_anew(world: World) -> None:
    sender, receiver, id = dead_letter(world)
    assert world.join("operator").ask(Requeue(0, [id])).count == 1
    assert sender.dead().total == 0
    again = receiver.take()
    assert (again.id, again.attempt, value_of(again)) == (id, 1, "hopeless")
    receiver.ack(id)
    steps = sender.trace(id).transitions
    assert sender.story(id) == ["accepted", "delivered", "dead", "accepted", "delivered", "acked"]
    assert (steps[3].who, steps[3].note) == ("operator", "requeued")


def test_a_requeued_request_waits_for_no_asker(world: World) -> None:
    asker, responder = world.join("planner", take=True), world.join("builder", take=True)
    call = asker.request("builder", "status?")
    asked = responder.take()
    responder.ask(Reject(0, asked.id))
    with pytest.raises(Refused, match="rejected"):
        asker.answer(call)
    asker.ask(Requeue(0, [asked.id]))
    responder.reply(responder.take().id, "after all")
    assert value_of(asker.take()) == "after all"


def test_a_dropped_dead_letter_is_gone_and_its_trace_is_not(world: World) -> None:
    sender, _, id = dead_letter(world)
    assert sender.ask(Drop(0, [id])).count == 1
    assert sender.dead().total == 0
    assert sender.state(id) == "dead"
    for verb in (Requeue(0, [id]), Drop(0, [id])):
        assert sender.refusal(verb).code == "no_such_message"


def test_only_dead_letters_are_requeued_or_dropped_and_all_or_none(world: World) -> None:
    sender, _, id = dead_letter(world)
    alive = sender.send("builder", "fine")
    for kind in (Requeue, Drop):
        error = sender.refusal(kind(0, [id, alive]))
        assert error.code == "no_such_message" and "no dead letter" in error.message
    assert sender.dead().total == 1


def test_what_a_receiver_died_of_comes_back_and_then_is_dead_with_the_attempts(world: World) -> None:
    sender = world.join("planner")
    id = sender.send("builder", "poison", allow_absent=True)
    for attempt in (1, 2, 3):
        receiver = world.join("builder", take=True, replace=True)
        message = receiver.take()
        assert message.attempt == attempt
        receiver.so_far(Message)
        receiver.die()
    world.join("builder", take=True, replace=True)
    (letter,) = sender.dead("builder").letters
    assert (letter.id, letter.attempts) == (id, 3) and "attempt 3 of 3" in letter.reason


def test_what_its_library_never_handed_over_costs_no_attempt(world: World) -> None:
    sender = world.join("planner")
    sender.send("builder", "unseen", allow_absent=True)
    for _ in range(5):
        receiver = world.join("builder", credit=1, replace=True)
        assert receiver.arrives().attempt == 1
        receiver.die()


# The orderly stop.


def test_while_it_stops_new_work_is_refused_and_what_is_out_is_finished(own_world: World) -> None:
    world = own_world
    sender, receiver = world.join("planner", take=True), world.join("builder", take=True)
    watching = sender.start_send("builder", "in hand", wait=State.ACKED)
    asking = sender.request("builder", "status?")
    out, asked = receiver.take(), receiver.take()
    latecomer = world.connect()
    with world.stopping(sender):
        for verb in (
            Send(0, "builder", Content.TEXT, b"new"),
            Request(0, "builder", Content.TEXT, b"new", 5.0),
            Publish(0, "t", Content.TEXT, b"new"),
        ):
            error = sender.refusal(verb)
            assert error.code == "shutting_down" and error.retryable and error.retry_after
        assert latecomer.refusal(Join(0, "late", True)).code == "shutting_down"
        assert latecomer.ask(Trace(0, out.id)).state is State.DELIVERED  # looking goes on
        receiver.reply(asked.id, "stopping")
        assert value_of(sender.answer(asking).message) == "stopping"
        receiver.ack(out.id)
        assert sender.expect(Receipt, cid=watching).state is State.ACKED
