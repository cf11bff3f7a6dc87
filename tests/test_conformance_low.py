"""Conformance: the lane low and `durable`. What is said to be stored is on disk, whoever is live."""

from __future__ import annotations

from typing import Any

import pytest
from parties import value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Level, Message, Options, Priority, Publish, Request, Route, State

KEPT = [{"priority": Priority.LOW}, {"durable": True}, {"priority": Priority.LOW, "durable": True}]


@pytest.mark.parametrize("options", KEPT)
def test_its_sender_is_told_stored_though_somebody_is_there(world: World, options: dict[str, Any]) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    accepted = sender.accepted(sender.start_send("builder", b"compile", **options))
    low = "priority" in options
    assert (accepted.state, accepted.note) == (State.STORED, "")
    assert (accepted.lane, accepted.route) == (
        (Priority.LOW, Route.JOURNAL) if low else (Priority.NORMAL, Route.SOCKET)
    )
    message = receiver.take()
    assert (message.id, message.lane, value_of(message)) == (accepted.id, accepted.lane, b"compile")
    receiver.ack(message.id)
    assert sender.story(message.id) == ["accepted", "delivered", "acked"]
    view = sender.trace(message.id)
    assert (view.lane, view.route) == (accepted.lane, accepted.route)
    assert State.STORED in [step.state for step in view.transitions]


def test_a_receipt_of_a_later_state_comes_after_an_accepted(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    call = sender.start_send("builder", b"x", priority=Priority.LOW, wait=State.ACKED)
    id = sender.accepted(call).id
    receiver.ack(receiver.take().id)
    assert sender.receipt(call).state is State.ACKED
    assert id


def test_lanes_through_the_daemon_keep_their_order_together(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    for number in range(10):
        sender.start_send("builder", number, priority=Priority.LOW if number % 2 else Priority.NORMAL)
    assert [value_of(receiver.take()) for _ in range(10)] == list(range(10))


def test_it_comes_back_like_any_other(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.accepted(sender.start_send("builder", b"x", priority=Priority.LOW)).id
    receiver.nack(receiver.take().id, "not now")
    again = receiver.take()
    assert (again.id, again.attempt, again.lane) == (id, 2, Priority.LOW)
    assert sender.story(id) == ["accepted", "delivered", "accepted", "delivered"]
    receiver.ack(id)


@pytest.mark.parametrize("options", KEPT)
def test_requests_and_events_are_not_kept(world: World, options: dict[str, Any]) -> None:
    sender = world.join("planner")
    world.join("builder", take=True)
    for verb in (
        Request(0, "builder", Content.TEXT, b"?", 5.0, Options(**options)),
        Publish(0, "build:done", Content.TEXT, b"", Options(**options)),
    ):
        assert sender.refusal(verb).code == "not_on_this_lane"


@pytest.mark.parametrize("options", KEPT)
@pytest.mark.parametrize("asked", [{"level": Level.MAPPED}, {"level": Level.SYNCED}, {"wait": State.STORED}])
def test_how_surely_it_is_kept_may_be_said(world: World, options: dict[str, Any], asked: dict[str, Any]) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    calls = [sender.start_send("builder", number, **options, **asked) for number in range(5)]
    calls += [sender.start_send("builder", 5, **options)]
    answers = {call: sender.accepted(call) for call in reversed(calls)}
    assert {answer.state for answer in answers.values()} == {State.STORED}
    assert [value_of(receiver.take()) for _ in calls] == list(range(6))


@pytest.mark.parametrize("asked", [{"level": Level.MAPPED}, {"wait": State.STORED}])
def test_of_what_is_not_kept_nobody_says_that_it_is_stored(world: World, asked: dict[str, Any]) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    assert sender.refused_send("builder", b"", **asked).code == "bad_request"
    for lane in (Priority.CRITICAL, Priority.HIGH):
        assert sender.refused_send("builder", b"", priority=lane, **asked).code == "not_on_this_lane"
    assert sender.accepted(sender.start_send("absent", b"", allow_absent=True, **asked)).state is State.STORED
    assert not receiver.so_far(Message)
