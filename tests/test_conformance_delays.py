"""Conformance: messages that nobody is given before their time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from parties import value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Inbox, Options, Priority, Publish, Reply, Request, State


def test_it_comes_when_its_time_does_and_not_before_others(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    call = sender.start_send("builder", "later", delay=0.5)
    accepted = sender.accepted(call)
    assert (accepted.state, accepted.note) == (State.STORED, "kept on disk until its time comes")
    sender.send("builder", "at once")
    (row,) = [mail for mail in receiver.ask(Inbox(0, "builder")).messages if mail.id == accepted.id]
    assert row.until is not None and row.until == sender.trace(accepted.id).until
    assert [value_of(receiver.take()), value_of(receiver.take())] == ["at once", "later"]
    assert sender.trace(accepted.id).until is None
    delivered = next(step for step in sender.trace(accepted.id).transitions if step.state is State.DELIVERED)
    assert delivered.at >= row.until


def test_it_waits_for_a_time_too(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    now = sender.trace(sender.send("builder", b"")).transitions[0].at
    receiver.ack(receiver.take().id)
    id = sender.send("builder", b"x", at=now + 1.0)
    message = receiver.take()
    assert message.id == id and message.details is not None
    assert message.details.due_at == pytest.approx(now + 1.0, abs=0.001)


@pytest.mark.parametrize("options", [{"delay": 1.0}, {"at": time.time() + 1e6}])
def test_who_takes_none(world: World, options: dict[str, Any]) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    sender.send("builder", b"")
    id = receiver.take().id
    for verb in (
        Request(0, "builder", Content.TEXT, b"?", 5.0, Options(**options)),
        Publish(0, "build:done", Content.TEXT, b"", Options(**options)),
    ):
        assert sender.refusal(verb).code == "bad_request"
    assert receiver.refusal(Reply(0, id, Content.TEXT, b"", Options(**options))).code == "bad_request"
    for lane in (Priority.CRITICAL, Priority.HIGH):
        assert sender.refused_send("builder", b"", priority=lane, **options).code == "not_on_this_lane"


def test_a_time_too_far_away_is_refused(world: World) -> None:
    sender = world.join("planner")
    assert sender.refused_send("planner", b"", at=1e11).code == "limit_reached"
    assert sender.refused_send("planner", b"", delay=1.0, at=1e11).code == "bad_request"
