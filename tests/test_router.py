"""The router: what is refused and why, idempotency keys, hops. A refused call has done nothing."""

from __future__ import annotations

import pytest
from fakes import FakeSession, World

from agentd.wire.errors import (
    BadRequest,
    LimitReached,
    NoSuchAgent,
    ShuttingDown,
    TooLarge,
    TooManyHops,
)
from agentd.wire.messages import Accepted, Message, Receipt, State

ACCEPTED, DELIVERED, ACKED, UNKNOWN = State.ACCEPTED, State.DELIVERED, State.ACKED, State.UNKNOWN


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sender(world: World) -> FakeSession:
    return world.join("sender")


@pytest.fixture
def taker(world: World) -> FakeSession:
    return world.join("taker", credit=100)


def test_a_receiver_sees_who_sent_what_the_kernel_says_of_it_and_when(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    id = world.send(sender, "taker", b"x", headers={"a": "b"}, ttl=60)
    (message,) = taker.told(Message)
    assert (message.id, message.sender, message.provenance, message.body) == (id, "sender", sender.provenance, b"x")
    assert message.details is not None
    assert message.details.headers == {"a": "b"}
    assert message.details.expires_at == message.sent_at + 60


def test_a_plain_message_carries_no_details(world: World, sender: FakeSession, taker: FakeSession) -> None:
    world.send(sender, "taker")
    world.send(sender, "taker", allow_absent=True)
    assert [message.details for message in taker.told(Message)] == [None, None]


def test_ids_rise_and_none_is_used_for_a_refused_call(world: World, sender: FakeSession, taker: FakeSession) -> None:
    first = world.send(sender, "taker")
    with pytest.raises(NoSuchAgent):
        world.send(sender, "nobody")
    assert world.send(sender, "taker") == first + 1


def test_a_body_over_the_limit_is_refused_by_every_verb_and_makes_no_name_known() -> None:
    world = World(max_body_bytes=10)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    id = world.send(sender, "taker", bytes(10))
    for refused in (
        lambda: world.send(sender, "taker", bytes(11)),
        lambda: world.send(sender, "new", bytes(11), allow_absent=True),
        lambda: world.request(sender, "taker", bytes(11)),
        lambda: world.publish(sender, "t", bytes(11)),
        lambda: world.reply(taker, id, bytes(11)),
    ):
        with pytest.raises(TooLarge, match="11 bytes, more than 10"):
            refused()
    assert set(world.hub.receipts.entries) == {id}
    assert world.state(id) is ACCEPTED
    assert set(world.hub.agents.by_name) == {"sender", "taker"}
    assert sender.asking == {}


def test_headers_over_the_limit_are_refused(world: World, sender: FakeSession, taker: FakeSession) -> None:
    with pytest.raises(TooLarge, match="headers"):
        world.send(sender, "taker", headers={"a": "b" * (16 << 10)})


@pytest.mark.parametrize("wait", [State.EXPIRED, State.DEAD, State.UNKNOWN])
def test_nobody_can_wait_for_what_may_never_come(
    world: World, sender: FakeSession, taker: FakeSession, wait: State
) -> None:
    with pytest.raises(BadRequest, match="nobody can wait for that"):
        world.send(sender, "taker", wait=wait)


def test_a_loop_of_answers_ends_after_32_hops(world: World) -> None:
    pair = [world.join("a", credit=100), world.join("b", credit=100)]
    id = world.send(pair[0], "b", b"ping")
    for hops in range(1, 33):
        id = world.reply(pair[hops % 2], id)
        details = world.entry(id).message.details
        assert details is not None and details.hops == hops
    with pytest.raises(TooManyHops, match="more than 32"):
        world.reply(pair[33 % 2], id)
    assert world.state(id) is ACCEPTED
    with pytest.raises(TooManyHops):
        world.send(pair[1], "a", re=id)
    world.send(pair[1], "a")


def test_hops_are_counted_from_what_the_sender_says_too(world: World, sender: FakeSession, taker: FakeSession) -> None:
    id = world.send(sender, "taker", hops=32)
    assert world.state(id) is ACCEPTED
    with pytest.raises(TooManyHops):
        world.send(sender, "taker", hops=33)
    forgotten = world.entry(world.send(sender, "taker", re=4711)).message.details
    assert forgotten is not None and (forgotten.hops, forgotten.thread) == (1, 4711)


def test_a_thread_keeps_the_id_of_its_beginning(world: World, sender: FakeSession, taker: FakeSession) -> None:
    first = world.send(sender, "taker")
    second = world.send(sender, "taker", re=first)
    third = world.entry(world.send(sender, "taker", re=second)).message.details
    assert third is not None and (third.re, third.thread, third.hops) == (second, first, 2)


def test_a_key_is_accepted_once_and_answers_about_that_message(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    id = world.send(sender, "taker", b"x", key="k")
    assert world.send(sender, "taker", b"x", key="k") == id
    assert taker.bodies() == [b"x"]
    note = sender.told(Accepted)[-1].note
    assert note == "repeated: this key was accepted before; that message is accepted"
    world.send(sender, "taker", b"x", key="other")
    world.send(taker, "taker", b"x", key="k")  # another sender's key is another key
    assert len(taker.bodies()) == 3


def test_a_repeated_key_waits_for_the_state_it_wants(world: World, sender: FakeSession, taker: FakeSession) -> None:
    id = world.send(sender, "taker", key="k")
    world.send(sender, "taker", key="k", wait=ACKED)
    world.delivered(taker, id)
    world.send(sender, "taker", key="k", wait=DELIVERED)
    assert [receipt.state for receipt in sender.told(Receipt)] == [DELIVERED]
    world.ack(taker, id)
    assert [receipt.state for receipt in sender.told(Receipt)] == [DELIVERED, ACKED]
    world.send(sender, "taker", key="k", wait=ACKED)
    assert [receipt.state for receipt in sender.told(Receipt)] == [DELIVERED, ACKED, ACKED]


def test_a_key_holds_though_its_message_is_forgotten_already() -> None:
    world = World(trace__keep_s=10)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    id = world.send(sender, "taker", key="k")
    world.ack(taker, id)
    world.after(20)
    assert id not in world.hub.receipts.entries
    assert world.send(sender, "taker", key="k", wait=ACKED) == id
    (receipt,) = sender.told(Receipt)
    assert (receipt.id, receipt.state) == (id, UNKNOWN)
    assert len(taker.bodies()) == 1


def test_a_key_is_free_again_after_its_time(world: World, sender: FakeSession, taker: FakeSession) -> None:
    id = world.send(sender, "taker", key="k")
    world.after(599)
    assert world.send(sender, "taker", key="k") == id
    world.after(1)
    assert world.send(sender, "taker", key="k") != id


def test_a_key_belongs_to_one_message(world: World, sender: FakeSession, taker: FakeSession) -> None:
    world.send(sender, "taker", b"x", key="k")
    with pytest.raises(BadRequest, match="key 'k' belongs to message"):
        world.send(sender, "taker", b"longer", key="k")
    with pytest.raises(BadRequest):
        world.send(taker, "taker", key="k") and world.send(taker, "sender", key="k")


def test_of_keys_only_the_latest_are_remembered() -> None:
    world = World(max_keys=2)
    sender, _ = world.join("sender"), world.join("taker")
    ids = {key: world.send(sender, "taker", key=key) for key in "abc"}
    assert world.send(sender, "taker", key="c") == ids["c"]
    assert world.send(sender, "taker", key="b") == ids["b"]
    assert world.send(sender, "taker", key="a") != ids["a"]


def test_keys_that_are_kept_no_time_at_all_lose_no_message() -> None:
    world = World(keep_keys_s=0)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    world.send(sender, "taker", b"1", key="k")
    world.send(sender, "taker", b"2", key="k")
    assert taker.bodies() == [b"1", b"2"]


def test_a_refused_message_uses_up_no_key() -> None:
    world = World(inbox__max_messages=1)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    first = world.send(sender, "taker")
    with pytest.raises(Exception, match="full"):
        world.send(sender, "taker", b"x", key="k")
    world.ack(taker, first)
    world.send(sender, "taker", b"x", key="k")
    assert taker.bodies() == [b"", b"x"]


def test_a_reply_keeps_its_ttl(world: World, sender: FakeSession, taker: FakeSession) -> None:
    reply = world.reply(taker, world.send(sender, "taker"), b"x", ttl=5)
    world.after(5)
    assert world.state(reply) is State.EXPIRED


def test_while_stopping_new_work_is_refused_and_what_is_out_can_be_finished(
    world: World, sender: FakeSession, taker: FakeSession
) -> None:
    id = world.send(sender, "taker")
    cid = world.request(sender, "taker")
    asked = taker.told(Message)[-1].id
    world.hub.router.draining = True
    for refused in (
        lambda: world.send(sender, "taker"),
        lambda: world.send(sender, "taker", ttl=5),
        lambda: world.request(sender, "taker"),
        lambda: world.publish(sender, "t"),
        lambda: world.reply(taker, id),
    ):
        with pytest.raises(ShuttingDown) as error:
            refused()
        assert error.value.retryable and error.value.retry_after
    world.reply(taker, asked, b"yes")
    assert sender.answer(cid).message.body == b"yes"
    assert world.ack(taker, id) == 1


def test_a_new_name_over_the_limit_is_refused_with_its_message() -> None:
    world = World(max_names=1)
    sender = world.join("sender")
    with pytest.raises(LimitReached):
        world.send(sender, "new", allow_absent=True)
    assert not world.hub.receipts.entries
