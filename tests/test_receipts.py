"""Receipts: who is told which state when, what trace shows, and for how long."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import pytest
from fakes import WALL_OFFSET, FakeSession, World

from agentd.hub.receipts import TRANSITIONS
from agentd.wire.bodies import Content
from agentd.wire.errors import NoSuchMessage
from agentd.wire.messages import Accepted, Message, Options, Receipt, Send, State
from agentd.wire.names import id_text

ACCEPTED, STORED, DELIVERED = State.ACCEPTED, State.STORED, State.DELIVERED
ACKED = State.ACKED
EXPIRED, DEAD = State.EXPIRED, State.DEAD


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sender(world: World) -> FakeSession:
    return world.join("sender")


@pytest.fixture
def taker(world: World) -> FakeSession:
    return world.join("taker", credit=1000)


def test_a_sender_that_waits_for_delivered_is_told_once(world: World, sender: FakeSession, taker: FakeSession) -> None:
    id = world.send(sender, "taker", wait=DELIVERED)
    assert sender.told(Receipt) == []
    world.delivered(taker, id)
    world.nack(taker, id)
    world.delivered(taker, id)
    world.ack(taker, id)
    (receipt,) = sender.told(Receipt)
    assert (receipt.id, receipt.state, receipt.at) == (id, DELIVERED, world.now + WALL_OFFSET)


def test_a_sender_that_waits_for_acked_is_not_told_of_delivered(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    id = world.send(sender, "taker", wait=ACKED)
    world.delivered(taker, id)
    assert sender.told(Receipt) == []
    world.ack(taker, id)
    assert [receipt.state for receipt in sender.told(Receipt)] == [ACKED]


def test_a_sender_that_waits_for_delivered_is_told_by_an_ack_alone(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    world.ack(taker, world.send(sender, "taker", wait=DELIVERED))
    assert [receipt.state for receipt in sender.told(Receipt)] == [DELIVERED]


@pytest.mark.parametrize("wait", [DELIVERED, ACKED])
def test_whoever_waits_is_told_of_another_end_too(world: World, sender: FakeSession, wait: State) -> None:
    taker = world.join("taker", credit=1)
    rejected, expired = world.send(sender, "taker", wait=wait), world.send(sender, "taker", wait=wait, ttl=5)
    world.reject(taker, rejected, "no")
    world.after(5)
    assert [(r.id, r.state, r.note) for r in sender.told(Receipt)] == [
        (rejected, DEAD, "no"),
        (expired, EXPIRED, "nobody took it in time"),
    ]


def test_a_session_that_left_is_not_kept_by_what_it_waited_for(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    world.send(sender, "taker", wait=ACKED)
    id = world.send(sender, "future", allow_absent=True, wait=DELIVERED)
    world.request(sender, "taker")
    world.subscribe(sender, "t")
    left = weakref.ref(sender)
    world.leave(sender)
    sender = taker
    gc.collect()
    assert left() is None
    assert world.entry(id).watchers is None


def test_who_wants_no_answer_gets_none(world: World, sender: FakeSession, taker: FakeSession) -> None:
    for _ in range(2):
        verb = Send(0, "taker", Content.TEXT, b"", Options(wait=ACKED, key="k"))
        world.hub.router.send(sender, verb, world.now)
    world.ack(taker, *taker.held)
    assert sender.everything() == []


def test_acceptances_in_a_row_are_said_together_and_before_what_follows(world: World, sender: FakeSession) -> None:
    taker = world.join("taker")
    cids = [sender.next_cid() for _ in range(3)]
    for cid in cids:
        world.hub.router.send(sender, Send(cid, "taker", Content.TEXT, b""), world.now)
    waits = sender.next_cid()
    world.hub.router.send(sender, Send(waits, "taker", Content.TEXT, b"", Options(wait=ACKED)), world.now)
    world.ack(taker, *taker.agent.waiting)
    run, receipt = sender.everything()
    assert isinstance(run, Accepted) and (run.cid, run.count) == (cids[0], 4)
    assert isinstance(receipt, Receipt) and receipt.cid == waits


def test_a_receipt_for_an_absent_agent_says_what_its_mail_is_worth() -> None:
    world = World(journal=True)
    sender = world.join("sender")
    world.leave(world.join("taker"))
    id = world.send(sender, "taker")
    (accepted,) = sender.told(Accepted)
    assert accepted.state is STORED and "taker is absent: kept on disk" in accepted.note
    assert world.story(id) == [ACCEPTED, STORED]


def test_nobody_is_told_stored_before_the_journal_has_it() -> None:
    world = World(journal=True)
    sender = world.join("sender")
    world.leave(world.join("taker"))
    world.hub.router.send(sender, Send(1, "taker", Content.TEXT, b""), world.now)
    assert not sender.told(Accepted)
    (entry,) = world.hub.receipts.entries.values()
    assert entry.state is ACCEPTED and not entry.is_stored
    world.end_turn()
    assert entry.state is STORED and sender.told(Accepted)


def test_a_trace_names_each_state_with_its_time_and_its_who(world: World, sender: FakeSession) -> None:
    taker = world.join("taker", credit=5)
    id = world.send(sender, "taker", b"four")
    world.now += 1
    world.delivered(taker, id)
    world.now += 1
    world.leave(taker, "killed")
    other = world.join("taker", credit=5)
    world.now += 1
    world.ack(other, id)
    trace = world.hub.receipts.trace(7, world.entry(id))
    assert (trace.cid, trace.id, trace.to, trace.attempt, trace.size_bytes) == (7, id, "taker", 2, 4)
    assert [(t.state, t.at - WALL_OFFSET, t.who, t.note) for t in trace.transitions] == [
        (ACCEPTED, 1000, "sender", ""),
        (DELIVERED, 1001, "taker", ""),
        (ACCEPTED, 1002, "taker", "killed"),
        (DELIVERED, 1003, "taker", ""),
        (ACKED, 1003, "taker", ""),
    ]


def test_what_ends_together_keeps_its_own_story(world: World, taker: FakeSession) -> None:
    one, other = world.join("one"), world.join("other")
    began = world.now
    first = world.send(one, "taker")
    world.after(1.0)
    second, third = world.send(other, "taker"), world.send(other, "taker")
    world.delivered(taker, third)
    world.after(1.0)
    assert world.ack(taker, first, second, third) == 3
    ended = [(DELIVERED, began + 2, "taker", ""), (ACKED, began + 2, "taker", "")]
    assert list(world.entry(first).trail) == [(ACCEPTED, began, "one", ""), *ended]
    assert list(world.entry(second).trail) == [(ACCEPTED, began + 1, "other", ""), *ended]
    assert list(world.entry(third).trail)[:2] == [
        (ACCEPTED, began + 1, "other", ""),
        (DELIVERED, began + 1, "taker", ""),
    ]
    assert list(world.entry(third).trail)[2:] == ended[1:]
    assert world.hub.receipts.counts.delivered == 3


def test_what_is_stored_together_keeps_its_own_story(world: World, taker: FakeSession) -> None:
    one, other = world.join("one"), world.join("other")
    began = world.now
    first = world.send(one, "taker")
    world.after(1.0)
    second = world.send(other, "taker")
    world.hub.receipts.stored([world.entry(first), world.entry(second)], world.now)
    kept = (STORED, began + 1, "agentd", "")
    assert list(world.entry(first).trail) == [(ACCEPTED, began, "one", ""), kept]
    assert list(world.entry(second).trail) == [(ACCEPTED, began + 1, "other", ""), kept]


def test_a_message_given_back_without_end_keeps_a_short_trace_of_legal_transitions(
    world: World, sender: FakeSession
) -> None:
    taker = world.join("taker")
    id = world.send(sender, "taker")
    for _ in range(200):
        world.hub.inboxes.receive(taker, 1)
        world.delivered(taker, id)
        world.give_back(taker, id)
        states = world.story(id)
        assert len(states) <= 64
        assert all(after in TRANSITIONS[before] for before, after in pairwise(states))
    assert taker.told(Message)[-1].attempt == 1


def test_an_end_state_is_left_by_nothing_but_requeueing(world: World, sender: FakeSession, taker: FakeSession) -> None:
    acked, dead = world.send(sender, "taker"), world.send(sender, "taker")
    world.ack(taker, acked)
    world.reject(taker, dead)
    for end in (world.nack, world.reject):
        for id in (acked, dead):
            with pytest.raises(NoSuchMessage, match="already"):
                end(taker, id)
    assert world.ack(taker, acked, dead) == 0
    assert (world.state(acked), world.state(dead)) == (ACKED, DEAD)


def test_ended_messages_are_remembered_for_ten_minutes_without_their_bodies(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    early = world.send(sender, "taker", b"x")
    world.ack(taker, early)
    world.after(300)
    late = world.send(sender, "taker")
    world.ack(taker, late)
    assert world.entry(early).message.body == b""
    assert world.entry(early).body_bytes == 1
    world.after(299)
    assert world.state(early) is ACKED
    world.after(1)
    with pytest.raises(NoSuchMessage):
        world.entry(early)
    assert world.state(late) is ACKED
    world.after(300)
    assert not world.hub.receipts.entries


def test_of_ended_messages_only_the_latest_are_remembered_for_each_agent() -> None:
    world = World(trace__max_messages=3)
    sender, taker = world.join("sender"), world.join("taker", credit=100)
    other = world.send(sender, "other", allow_absent=True)
    ids = [world.send(sender, "taker") for _ in range(5)]
    world.ack(taker, *ids[:4])
    world.ack(taker, ids[4])
    assert [id in world.hub.receipts.entries for id in ids] == [False, False, True, True, True]
    assert other in world.hub.receipts.entries


def test_an_unfinished_message_is_never_forgotten(world: World, sender: FakeSession, taker: FakeSession) -> None:
    id = world.send(sender, "taker")
    world.after(100_000)
    assert world.state(id) is ACCEPTED


def test_a_unique_prefix_finds_a_message_and_another_names_the_candidates(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    ids = [world.send(sender, "taker") for _ in range(33)]
    assert world.hub.receipts.find(id_text(ids[4])[:1]).message.id == ids[4]
    assert world.hub.receipts.find(id_text(ids[4])).message.id == ids[4]
    with pytest.raises(NoSuchMessage, match="begins the ids of 2 messages") as several:
        world.hub.receipts.find(id_text(ids[0])[:1])
    assert id_text(ids[0]) in several.value.hint and id_text(ids[32]) in several.value.hint
    with pytest.raises(NoSuchMessage, match="No message's id begins with"):
        world.hub.receipts.find("zzzz")
    for bad in ("", "A", "0", "a" * 14, "é"):
        with pytest.raises(NoSuchMessage, match="is not a message id"):
            world.hub.receipts.find(bad)


def test_totals_count_each_end_once(world: World, sender: FakeSession, taker: FakeSession) -> None:
    ids = [world.send(sender, "taker") for _ in range(3)]
    expired = world.send(sender, "other", allow_absent=True, ttl=1)
    world.ack(taker, ids[0], ids[0])
    world.reject(taker, ids[1])
    world.after(1)
    counts = world.hub.receipts.counts
    assert (counts.accepted, counts.delivered, counts.acked, counts.dead, counts.expired) == (4, 1, 1, 1, 1)
    assert world.state(expired) is EXPIRED
