"""Conformance: a paused agent is given nothing, and everything once it is resumed."""

from __future__ import annotations

from worlds import World

from agentd.wire.messages import Message, Pause, Priority


def test_a_paused_agents_mail_waits(world: World) -> None:
    receiver, sender = world.join("builder", credit=5), world.join("planner")
    before = sender.send("builder", "before")
    receiver.expect(Message, id=before)
    sender.ask(Pause(0, "builder"))
    waiting = [sender.send("builder", n) for n in range(2)]
    urgent = sender.send("builder", "urgent", priority=Priority.CRITICAL)
    assert receiver.so_far(Message) == []
    assert receiver.ack(before) == 1  # what it holds it may finish
    assert sender.inbox("builder").total == 3
    sender.ask(Pause(0, "builder", False))
    assert [receiver.arrives().id for _ in range(3)] == [urgent, *waiting]


def test_pausing_holds_for_whoever_takes_the_mail_next(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    sender.ask(Pause(0, "builder"))
    id = sender.send("builder", "x")
    receiver.leave()
    successor = world.join("builder", credit=1)
    assert successor.so_far(Message) == []
    sender.ask(Pause(0, "builder", False))
    assert successor.arrives().id == id


def test_somebody_unknown_can_not_be_paused(world: World) -> None:
    sender = world.join("planner")
    assert sender.refusal(Pause(0, "nobody")).code == "no_such_agent"
