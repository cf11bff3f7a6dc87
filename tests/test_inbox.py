"""Inboxes: who is sent what, what comes back, in which order and how often."""

from __future__ import annotations

import pytest
from fakes import FakeSession, World

from agentd.hub import views
from agentd.hub.receipts import OVERHEAD_BYTES
from agentd.wire.errors import Backpressure, NoSuchMessage, NotPermitted
from agentd.wire.messages import Message, State

ACCEPTED, DELIVERED, ACKED = State.ACCEPTED, State.DELIVERED, State.ACKED
EXPIRED, DEAD = State.EXPIRED, State.DEAD


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sender(world: World) -> FakeSession:
    return world.join("sender")


def send_three(world: World, sender: FakeSession, to: str) -> list[int]:
    return [world.send(sender, to, body) for body in (b"1", b"2", b"3")]


def test_a_message_is_delivered_when_the_receiver_says_so_not_when_it_is_sent(
    world: World, sender: FakeSession
) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    assert taker.bodies() == [b"x"]
    assert world.state(id) is ACCEPTED
    world.delivered(taker, id)
    assert world.state(id) is DELIVERED
    assert world.ack(taker, id) == 1
    assert world.story(id) == [ACCEPTED, DELIVERED, ACKED]


def test_without_credit_nothing_is_sent(world: World, sender: FakeSession) -> None:
    taker = world.join("taker")
    send_three(world, sender, "taker")
    assert taker.bodies() == []
    world.hub.inboxes.receive(taker, 2)
    assert taker.bodies() == [b"1", b"2"]


def test_credit_taken_back_is_not_used(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    world.hub.inboxes.receive(taker, -2)
    send_three(world, sender, "taker")
    assert taker.bodies() == [b"1"]
    world.hub.inboxes.receive(taker, -5)
    assert taker.credit == 0


def test_a_session_that_only_sends_gets_no_mail_and_no_credit(world: World, sender: FakeSession) -> None:
    world.join("taker", take=False)
    with pytest.raises(NotPermitted):
        world.hub.inboxes.receive(world.join("taker", take=False), 1)
    id = world.send(sender, "taker")
    assert world.state(id) is ACCEPTED
    assert len(world.hub.agents.get("taker").waiting) == 1


def test_who_does_not_read_is_sent_nothing_more(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=10)
    taker.stalled = True
    send_three(world, sender, "taker")
    assert taker.bodies() == []
    taker.stalled = False
    world.hub.inboxes.pump(taker.agent)
    assert taker.bodies() == [b"1", b"2", b"3"]


def test_an_ack_says_delivered_too(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.ack(taker, id)
    assert world.story(id) == [ACCEPTED, DELIVERED, ACKED]


def test_an_ack_counts_only_what_was_not_done_before(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    first, second, _ = send_three(world, sender, "taker")
    assert world.ack(taker, first) == 1
    assert world.ack(taker, first, second, second) == 1


def test_an_unknown_id_among_acks_is_refused_and_harms_no_other(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    first, _, third = send_three(world, sender, "taker")
    with pytest.raises(NoSuchMessage):
        world.ack(taker, first, 4711, third)
    assert world.state(first) is world.state(third) is ACKED
    assert taker.agent.count == 1
    assert len(taker.agent.ended.entries) == 2


def test_mail_of_another_agent_can_be_neither_acked_nor_nacked(world: World, sender: FakeSession) -> None:
    world.join("taker", credit=1)
    id = world.send(sender, "taker")
    with pytest.raises(NoSuchMessage, match="addressed to taker, not to sender"):
        world.ack(sender, id)
    with pytest.raises(NoSuchMessage):
        world.nack(sender, id)
    with pytest.raises(NoSuchMessage):
        world.reject(sender, id)
    assert world.state(id) is ACCEPTED


def test_an_id_held_by_one_session_is_acked_by_another_of_the_same_agent(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker")
    other = world.join("taker", take=False)
    assert world.ack(other, id) == 1
    assert not taker.held
    assert world.ack(taker, id) == 0


def test_a_nacked_message_comes_again_with_one_attempt_more(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=2)
    id = world.send(sender, "taker", b"x")
    world.delivered(taker, id)
    world.nack(taker, id, "later")
    assert taker.mail() == [(b"x", 1), (b"x", 2)]
    assert world.entry(id).trail[-1][2:] == ("taker", "later")


def test_a_nacked_message_with_a_delay_waits_for_it_and_holds_up_nobody(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=5)
    first = world.send(sender, "taker", b"1")
    world.nack(taker, first, after_s=5.0)
    world.send(sender, "taker", b"2")
    world.after(4.9)
    assert taker.bodies() == [b"1", b"2"]
    world.after(0.1)
    assert taker.mail()[2:] == [(b"1", 2)]


def test_messages_with_the_same_delay_come_back_in_their_order(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=20)
    ids = [world.send(sender, "taker", b"%d" % number) for number in range(8)]
    for id in ids:
        world.nack(taker, id, after_s=5.0)
    world.after(5.0)
    assert taker.bodies()[8:] == [b"%d" % number for number in range(8)]


def test_after_its_last_attempt_a_message_is_dead_and_says_why() -> None:
    world = World(max_attempts=2)
    sender, taker = world.join("sender"), world.join("taker", credit=5)
    id = world.send(sender, "taker", b"x")
    world.nack(taker, id, "no")
    assert world.state(id) is ACCEPTED
    world.nack(taker, id, "still no")
    assert world.state(id) is DEAD
    assert taker.mail() == [(b"x", 1), (b"x", 2)]
    assert world.hub.dead.reason(world.entry(id)) == "attempt 2 of 2: still no"


def test_a_rejected_message_is_dead_at_once(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.reject(taker, id, "hopeless")
    assert world.story(id) == [ACCEPTED, DEAD]
    assert world.hub.dead.reason(world.entry(id)) == "hopeless"
    with pytest.raises(NoSuchMessage, match="is dead already"):
        world.nack(taker, id)


def test_what_is_given_back_counts_no_attempt_and_keeps_its_place(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=2)
    first, second, _ = send_three(world, sender, "taker")
    world.give_back(taker, first, second)
    world.hub.inboxes.receive(taker, 3)
    assert taker.mail()[2:] == [(b"1", 1), (b"2", 1), (b"3", 1)]


def test_at_a_receivers_death_only_what_its_application_saw_loses_an_attempt(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=2)
    seen, unseen, never_sent = send_three(world, sender, "taker")
    world.delivered(taker, seen)
    world.leave(taker, "killed")
    assert world.story(seen) == [ACCEPTED, DELIVERED, ACCEPTED]
    assert world.story(unseen) == world.story(never_sent) == [ACCEPTED]
    assert world.join("taker", credit=5).mail() == [(b"1", 2), (b"2", 1), (b"3", 1)]


def test_a_message_that_kills_its_receiver_every_time_ends_as_a_dead_letter() -> None:
    world = World(max_attempts=3)
    sender = world.join("sender")
    id = world.send(sender, "taker", b"poison", allow_absent=True)
    for attempt in (1, 2, 3):
        taker = world.join("taker", credit=1)
        assert taker.mail() == [(b"poison", attempt)]
        world.delivered(taker, id)
        world.leave(taker, "killed")
    assert world.state(id) is DEAD
    assert world.hub.dead.reason(world.entry(id)) == "attempt 3 of 3: killed"


def test_a_full_inbox_is_backpressure_to_its_senders_alone() -> None:
    world = World(inbox__max_messages=2)
    sender, taker, _ = world.join("sender"), world.join("taker"), world.join("other", credit=1)
    first, _ = world.send(sender, "taker"), world.send(sender, "taker")
    with pytest.raises(Backpressure, match="taker's inbox is full: 2 messages") as refused:
        world.send(sender, "taker")
    assert refused.value.retry_after is not None
    world.send(sender, "other")
    world.ack(taker, first)
    world.send(sender, "taker")


def test_backpressure_says_when_nobody_takes_the_mail() -> None:
    world = World(inbox__max_messages=1)
    sender, taker = world.join("sender"), world.join("taker")
    world.send(sender, "taker")
    with pytest.raises(Backpressure) as live:
        world.send(sender, "taker")
    world.leave(taker)
    with pytest.raises(Backpressure, match="taker is absent") as absent:
        world.send(sender, "taker")
    assert (live.value.retry_after or 0) < (absent.value.retry_after or 0)


def test_bytes_fill_an_inbox_as_messages_do_and_free_it_however_they_end() -> None:
    world = World(inbox__max_bytes=2 * (OVERHEAD_BYTES + 1000), max_attempts=1)
    sender, taker = world.join("sender"), world.join("taker", credit=10)
    for end in (world.ack, world.nack, world.reject):
        first, second = (world.send(sender, "taker", bytes(1000)) for _ in range(2))
        with pytest.raises(Backpressure):
            world.send(sender, "taker", bytes(1000))
        with pytest.raises(Backpressure):
            world.send(sender, "taker", ttl=1)
        for id in (first, second):
            end(taker, id)
        assert taker.agent.bytes == taker.agent.count == world.hub.inboxes.bytes == 0
    world.send(sender, "taker", bytes(1000), ttl=1)
    world.leave(taker)
    world.after(2)
    assert world.hub.agents.get("taker").bytes == world.hub.inboxes.bytes == 0


def test_all_inboxes_together_are_bounded_too() -> None:
    world = World(max_total_bytes=2 * OVERHEAD_BYTES)
    sender, _, _ = world.join("sender"), world.join("a"), world.join("b")
    world.send(sender, "a")
    world.send(sender, "a")
    with pytest.raises(Backpressure, match="All inboxes together are full"):
        world.send(sender, "b")


def test_a_message_that_nobody_took_in_time_expires(world: World, sender: FakeSession) -> None:
    taker = world.join("taker")
    id = world.send(sender, "taker", ttl=5)
    world.after(4.9)
    assert world.state(id) is ACCEPTED
    world.after(0.1)
    assert world.story(id) == [ACCEPTED, EXPIRED]
    world.hub.inboxes.receive(taker, 1)
    assert taker.bodies() == []


def test_what_a_session_has_does_not_expire_under_it_but_when_it_comes_back(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    kept, returned = world.send(sender, "taker", ttl=5), world.send(sender, "taker", ttl=5)
    world.after(6)
    assert world.state(kept) is world.state(returned) is ACCEPTED
    assert world.ack(taker, kept) == 1
    world.give_back(taker, returned)
    assert world.state(returned) is EXPIRED


def test_a_delayed_message_expires_in_its_time(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    id = world.send(sender, "taker", ttl=5)
    world.nack(taker, id, after_s=60)
    world.after(5)
    assert world.state(id) is EXPIRED
    world.after(60)
    assert len(taker.told(Message)) == 1


def test_a_held_message_survives_its_session_and_is_acked_by_another(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.hold(taker, id, 600)
    world.leave(taker)
    assert world.state(id) is DELIVERED
    other = world.join("taker", credit=5)
    assert other.bodies() == []
    assert world.ack(other, id) == 1
    assert world.story(id) == [ACCEPTED, DELIVERED, ACKED]


def test_when_the_hold_is_over_the_message_comes_again(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.hold(taker, id, 600)
    world.leave(taker)
    other = world.join("taker", credit=5)
    world.after(599)
    world.hold(other, id, 600)  # longer
    world.after(599)
    assert other.bodies() == []
    world.after(1)
    assert other.mail() == [(b"x", 2)]
    assert world.entry(id).trail[-1][3] == "the hold is over"


def test_a_held_message_does_not_expire_while_it_is_held(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker", ttl=5)
    world.hold(taker, id, 600)
    world.after(599)
    assert world.state(id) is DELIVERED
    world.after(1)
    assert world.state(id) is EXPIRED


def test_saying_that_one_works_changes_nothing_else(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.hold(taker, id, None)
    assert list(taker.held) == [id]


def test_sessions_that_share_a_name_take_turns(world: World, sender: FakeSession) -> None:
    one, two = (world.join("team", share=True, credit=5) for _ in range(2))
    for number in range(6):
        world.send(sender, "team", b"%d" % number)
    assert one.bodies() == [b"0", b"2", b"4"]
    assert two.bodies() == [b"1", b"3", b"5"]


def test_who_shares_and_has_no_credit_is_passed_over_and_its_death_feeds_the_other(
    world: World, sender: FakeSession
) -> None:
    one, two = world.join("team", share=True, credit=1), world.join("team", share=True, credit=5)
    ids = send_three(world, sender, "team")
    assert (one.bodies(), two.bodies()) == ([b"1"], [b"2", b"3"])
    world.delivered(one, ids[0])
    world.leave(one)
    assert two.mail()[2:] == [(b"1", 2)]


def test_order_holds_for_what_comes_back_between_others(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=3)
    first, second, third = send_three(world, sender, "taker")
    world.send(sender, "taker", b"4")
    world.give_back(taker, second)
    world.give_back(taker, third, first)
    world.hub.inboxes.receive(taker, 10)
    assert taker.bodies()[3:] == [b"1", b"2", b"3", b"4"]


# Too much in hand.


def test_who_holds_too_much_gets_no_more_until_it_settles_some() -> None:
    world = World(max_held=3)
    sender, taker = world.join("sender"), world.join("taker", credit=1000)
    ids = [world.send(sender, "taker", bytes([number])) for number in range(8)]
    assert taker.bodies() == [b"\x00", b"\x01", b"\x02"]
    (row,) = [row for row in views.agents(world.hub, 1, world.now).agents if row.trouble]
    assert (row.name, row.held, row.waiting) == ("taker", 3, 5)
    assert row.trouble == "holds 3 messages, gets no more until it settles some"
    world.ack(taker, ids[1])
    assert taker.bodies()[3:] == [b"\x03"]
    world.reject(taker, ids[0])
    assert taker.bodies()[4:] == [b"\x04"]
    world.nack(taker, ids[2], after_s=60.0)  # it waits, and is in nobody's hands
    assert taker.bodies()[5:] == [b"\x05"]
    world.reply(taker, ids[3])
    world.ack(taker, ids[4], ids[5])
    assert taker.bodies()[6:] == [b"\x06", b"\x07"]
    assert not any(row.trouble and "holds" in row.trouble for row in views.agents(world.hub, 1, world.now).agents)


def test_sessions_that_share_a_name_hold_together_no_more() -> None:
    world = World(max_held=3)
    sender = world.join("sender")
    team = [world.join("team", share=True, credit=10) for _ in range(2)]
    for _ in range(6):
        world.send(sender, "team")
    assert sum(len(one.held) for one in team) == 3
    held = next(one for one in team if len(one.held) == 2)
    world.leave(held)
    assert len(next(one for one in team if one is not held).held) == 3
