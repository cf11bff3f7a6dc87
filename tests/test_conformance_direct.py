"""Conformance: CRITICAL and HIGH to a receiver without shared memory. First on its socket, at most once, never kept."""

from __future__ import annotations

import pytest
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, GiveBack, Message, Options, Priority, Publish, Receive, Reply, Request, Route


def test_it_is_relayed_and_says_so(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", credit=5), world.join("planner")
    cid = sender.start_send("builder", b"stop", priority=lane, wait="acked")
    accepted = sender.expect(Accepted, cid=cid)
    assert (accepted.lane, accepted.route) == (lane, Route.RELAYED)
    message = receiver.expect(Message, id=accepted.id)
    assert (message.lane, message.sender, message.body, message.attempt) == (lane, "planner", b"stop", 1)
    receiver.delivered(message.id)
    receiver.ack(message.id)
    receipt = sender.receipt(cid)
    assert (receipt.state, receipt.lane, receipt.route) == ("acked", lane, Route.RELAYED)
    trace = sender.trace(message.id)
    assert (trace.lane, trace.route) == (lane, Route.RELAYED)


def test_it_comes_before_what_waits(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    normal = [sender.send("builder", f"normal {n}") for n in range(3)]
    direct = [sender.send("builder", f"direct {n}", priority=lane) for n in range(3)]
    assert [receiver.take().id for _ in range(6)] == direct + normal


def test_critical_comes_before_high(world: World) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    order = [Priority.HIGH, Priority.NORMAL, Priority.CRITICAL, Priority.HIGH, Priority.CRITICAL]
    ids = [sender.send("builder", str(lane), priority=lane) for lane in order]
    assert [receiver.take().id for _ in ids] == [ids[place] for place in (2, 4, 0, 3, 1)]


def test_what_comes_back_keeps_its_place(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    direct = [sender.send("builder", n, priority=lane) for n in range(2)]
    normal = sender.send("builder", "normal")
    receiver.credit()
    assert receiver.arrives().id == direct[0]  # and goes back unseen
    receiver.ask(GiveBack(0, [direct[0]]))
    assert [receiver.take().id for _ in range(3)] == [*direct, normal]


def test_the_absent_are_absent_and_nothing_is_kept(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    receiver.leave()
    error = sender.refused_send("builder", b"x", priority=lane)
    assert error.code == "absent" and error.retryable
    assert sender.refused_send("nobody", b"x", priority=lane, allow_absent=True).code == "no_such_agent"
    assert sender.inbox("builder").total == 0


def test_what_a_gone_receiver_had_not_taken_is_dead_and_what_it_had_is_unknown(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", credit=2), world.join("planner")
    cids = [sender.start_send("builder", n, priority=lane, wait="acked") for n in range(3)]
    taken = sender.expect(Accepted, cid=cids[0]).id
    receiver.delivered(receiver.expect(Message, id=taken).id)
    assert receiver.state(taken) == "delivered"
    receiver.die()
    states = [sender.receipt(cid).state for cid in cids]
    assert states == ["unknown", "dead", "dead"]
    assert sender.dead("builder").total == 0  # nobody could want them requeued


def test_nack_is_its_end(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner")
    cid = sender.start_send("builder", b"x", priority=lane, wait="acked")
    message = receiver.arrives()
    receiver.nack(message.id, "not now")
    receipt = sender.receipt(cid)
    assert (receipt.state, receipt.note) == ("dead", "not now")


def test_it_expires(own_world: World, lane: Priority) -> None:
    receiver, sender = own_world.join("builder", take=True), own_world.join("planner")
    cid = sender.start_send("builder", b"x", priority=lane, wait="acked", ttl=0.05)
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
def test_what_it_can_not_do_is_named(world: World, lane: Priority, options: dict[str, object], code: str) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner")
    assert sender.refused_send("builder", b"x", priority=lane, **options).code == code
    assert receiver.so_far(Message) == []


def test_the_other_verbs_are_not_on_this_lane(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", credit=1), world.join("planner", take=True)
    options = Options(priority=lane)
    for verb in (
        Request(0, "builder", Content.BYTES, b"x", 5.0, options),
        Publish(0, "t", Content.BYTES, b"x", options),
    ):
        assert sender.refusal(verb).code == "not_on_this_lane"
    mail = sender.send("builder", "hi")
    receiver.expect(Message, id=mail)
    assert receiver.refusal(Reply(0, mail, Content.BYTES, b"x", options)).code == "not_on_this_lane"


def test_a_full_inbox_is_backpressure_here_too(world: World, lane: Priority) -> None:
    receiver, sender = world.join("builder", take=True), world.join("planner")
    for _ in range(1000):
        sender.send("builder", b"")
    assert sender.refused_send("builder", b"", priority=lane).code == "backpressure"
    receiver.ask(Receive(0, 1))
