"""Conformance: CRITICAL messages to a receiver without shared memory. First on its socket, at most once, never kept."""

from __future__ import annotations

import pytest
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, GiveBack, Message, Options, Priority, Publish, Receive, Reply, Request, Route

CRITICAL = Priority.CRITICAL


def test_it_is_relayed_and_says_so(world: World) -> None:
    receiver, sender = world.join("builder", credit=5), world.join("planner")
    cid = sender.start_send("builder", b"stop", priority=CRITICAL, wait="acked")
    accepted = sender.expect(Accepted, cid=cid)
    assert (accepted.lane, accepted.route) == (CRITICAL, Route.RELAYED)
    message = receiver.expect(Message, id=accepted.id)
    assert (message.lane, message.sender, message.body, message.attempt) == (CRITICAL, "planner", b"stop", 1)
    receiver.delivered(message.id)
    receiver.ack(message.id)
    receipt = sender.receipt(cid)
    assert (receipt.state, receipt.lane, receipt.route) == ("acked", CRITICAL, Route.RELAYED)
    trace = sender.trace(message.id)
    assert (trace.lane, trace.route) == (CRITICAL, Route.RELAYED)


def test_it_comes_before_what_waits(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    normal = [sender.send("builder", f"normal {n}") for n in range(3)]
    critical = [sender.send("builder", f"critical {n}", priority=CRITICAL) for n in range(3)]
    assert [receiver.take().id for _ in range(6)] == critical + normal


def test_what_comes_back_keeps_its_place(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    critical = [sender.send("builder", n, priority=CRITICAL) for n in range(2)]
    normal = sender.send("builder", "normal")
    receiver.credit()
    assert receiver.arrives().id == critical[0]  # and goes back unseen
    receiver.ask(GiveBack(0, [critical[0]]))
    assert [receiver.take().id for _ in range(3)] == [*critical, normal]


def test_the_absent_are_absent_and_nothing_is_kept(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    receiver.leave()
    error = sender.refused_send("builder", b"x", priority=CRITICAL)
    assert error.code == "absent" and error.retryable
    assert sender.refused_send("nobody", b"x", priority=CRITICAL, allow_absent=True).code == "no_such_agent"
    assert sender.inbox("builder").total == 0


def test_what_a_gone_receiver_had_not_taken_is_dead_and_what_it_had_is_unknown(world: World) -> None:
    receiver, sender = world.join("builder", credit=2), world.join("planner")
    cids = [sender.start_send("builder", n, priority=CRITICAL, wait="acked") for n in range(3)]
    taken = sender.expect(Accepted, cid=cids[0]).id
    receiver.delivered(receiver.expect(Message, id=taken).id)
    assert receiver.state(taken) == "delivered"
    receiver.die()
    states = [sender.receipt(cid).state for cid in cids]
    assert states == ["unknown", "dead", "dead"]
    assert sender.dead("builder").total == 0  # nobody could want them requeued


def test_nack_is_its_end(world: World) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner")
    cid = sender.start_send("builder", b"x", priority=CRITICAL, wait="acked")
    message = receiver.arrives()
    receiver.nack(message.id, "not now")
    receipt = sender.receipt(cid)
    assert (receipt.state, receipt.note) == ("dead", "not now")


def test_it_expires(own_world: World) -> None:
    receiver, sender = own_world.join("builder", take=True), own_world.join("planner")
    cid = sender.start_send("builder", b"x", priority=CRITICAL, wait="acked", ttl=0.05)
    assert sender.receipt(cid).state == "expired"
    assert receiver.so_far(Message) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"key": "k"}, "not_on_this_lane"),
        ({"durable": True}, "not_on_this_lane"),
        ({"route": Route.DIRECT}, "lane_unavailable"),
        ({"route": Route.SOCKET}, "lane_unavailable"),
        ({"hops": 33}, "too_many_hops"),
    ],
)
def test_what_it_can_not_do_is_named(world: World, options: dict[str, object], code: str) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner")
    assert sender.refused_send("builder", b"x", priority=CRITICAL, **options).code == code
    assert receiver.so_far(Message) == []


def test_the_other_verbs_are_not_on_this_lane(world: World) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner", take=True)
    options = Options(priority=CRITICAL)
    for verb in (
        Request(0, "builder", Content.BYTES, b"x", 5.0, options),
        Publish(0, "t", Content.BYTES, b"x", options),
    ):
        assert sender.refusal(verb).code == "not_on_this_lane"
    mail = sender.send("builder", "hi")
    receiver.expect(Message, id=mail)
    assert receiver.refusal(Reply(0, mail, Content.BYTES, b"x", options)).code == "not_on_this_lane"


def test_a_full_inbox_is_backpressure_here_too(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    for _ in range(1000):
        sender.send("builder", b"")
    assert sender.refused_send("builder", b"", priority=CRITICAL).code == "backpressure"
    receiver.ask(Receive(0, 1))
