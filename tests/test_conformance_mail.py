"""Conformance: a message from its sender to the end of it, and what each of the two is told."""

from __future__ import annotations

import pytest
from parties import Refused, value_of
from worlds import World

from agentd.wire.messages import (
    Ack,
    Delivered,
    Find,
    GiveBack,
    Message,
    Nack,
    Receipt,
    Receive,
    Reject,
    State,
    Working,
)
from agentd.wire.names import id_text


def test_a_message_is_accepted_then_delivered_then_acked(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"compile")
    assert sender.state(id) == "accepted"
    receiver.credit()
    assert receiver.arrives().id == id
    assert sender.state(id) == "accepted"  # in a socket buffer is not delivered
    receiver.delivered(id)
    receiver.so_far(Message)
    assert sender.state(id) == "delivered"
    assert receiver.ack(id) == 1
    assert sender.state(id) == "acked"


def test_each_transition_has_its_time_and_its_who(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"compile")
    receiver.take()
    receiver.ack(id)
    view = sender.trace(id)
    assert (view.sender, view.to, view.size_bytes, view.attempt) == ("planner", "builder", 7, 1)
    assert (view.lane.value, view.route.value) == ("normal", "socket")
    assert [(step.state.value, step.who) for step in view.transitions] == [
        ("accepted", "planner"),
        ("delivered", "builder"),
        ("acked", "builder"),
    ]
    times = [step.at for step in view.transitions]
    assert times == sorted(times)


@pytest.mark.parametrize("wanted", [State.DELIVERED, State.ACKED])
def test_a_receipt_tells_when_the_state_is_reached_and_not_before(world: World, wanted: State) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    call = sender.start_send("builder", b"compile", wait=wanted)
    id = sender.accepted(call).id
    receiver.credit()
    receiver.arrives()
    assert sender.so_far(Receipt) == []
    receiver.delivered(id)
    receiver.so_far(Message)
    if wanted is State.ACKED:
        assert sender.so_far(Receipt) == []
        receiver.ack(id)
    receipt = sender.receipt(call)
    assert (receipt.id, receipt.state) == (id, wanted)
    assert receipt.at >= sender.trace(id).transitions[0].at
    receiver.tell(Ack(0, [id]))
    receiver.so_far(Message)
    assert sender.so_far(Receipt) == []  # one answer a call


def test_an_ack_says_delivered_too(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=1)
    call = sender.start_send("builder", b"x", wait=State.DELIVERED)
    receiver.ack(receiver.arrives().id)
    receipt = sender.receipt(call)
    assert receipt.state is State.DELIVERED
    assert sender.story(receipt.id) == ["accepted", "delivered", "acked"]


def test_who_waits_for_acked_hears_of_any_other_end(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    call = sender.start_send("builder", b"x", wait=State.ACKED)
    receiver.ask(Reject(0, receiver.take().id, "I can't"))
    receipt = sender.receipt(call)
    assert (receipt.state, receipt.note) == (State.DEAD, "I can't")


@pytest.mark.parametrize("state", [State.EXPIRED, State.DEAD, State.UNKNOWN])
def test_nobody_can_wait_for_other_states(world: World, state: State) -> None:
    world.join("builder", take=True)
    assert world.join("planner").refused_send("builder", b"x", wait=state).code == "bad_request"


def test_many_sends_in_one_go_are_accepted_in_their_order(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    calls = [sender.start_send("builder", number) for number in range(50)]
    ids = [sender.accepted(call).id for call in calls]
    assert ids == sorted(ids)
    receiver.credit(50)
    assert [receiver.arrives().id for _ in ids] == ids


def test_credit_bounds_what_comes(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=2)
    for number in range(5):
        sender.send("builder", number)
    assert [value_of(message) for message in receiver.so_far(Message)] == [0, 1]
    receiver.credit(2)
    receiver.credit(-1)  # too late for what has come
    assert [value_of(message) for message in receiver.so_far(Message)] == [2, 3]
    receiver.credit(3)
    assert [value_of(message) for message in receiver.so_far(Message)] == [4]
    receiver.credit(-2)
    sender.send("builder", 5)
    assert receiver.so_far(Message) == []


def test_a_nack_brings_it_back_with_one_more_attempt(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    receiver.nack(id, "no disk space")
    again = receiver.take()
    assert (again.id, again.attempt) == (id, 2)
    steps = sender.trace(id).transitions
    assert [(step.state.value, step.note) for step in steps[1:3]] == [("delivered", ""), ("accepted", "no disk space")]


def test_a_nack_with_after_brings_it_back_no_sooner(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=2)
    id = sender.send("builder", b"x")
    receiver.delivered(receiver.arrives().id)
    receiver.nack(id, "later", after_s=0.3)
    receiver.delivered(receiver.arrives().id)
    receiver.so_far(Message)
    back, again = sender.trace(id).transitions[-2:]
    assert again.at - back.at >= 0.3


def test_a_nack_with_after_holds_nobody_up(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", "not now")
    receiver.take()
    receiver.nack(id, after_s=600.0)
    other = sender.send("builder", "now")
    assert receiver.take().id == other
    assert {mail.id: mail.attempt for mail in sender.inbox("builder").messages} == {id: 2, other: 1}


def test_after_its_last_attempt_a_message_is_dead_with_the_reason(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    call = sender.start_send("builder", b"x", wait=State.ACKED)
    for attempt in (1, 2, 3):
        message = receiver.take()
        assert message.attempt == attempt
        receiver.nack(message.id, "still broken")
    receipt = sender.receipt(call)
    assert receipt.state is State.DEAD and "attempt 3 of 3" in receipt.note and "still broken" in receipt.note


def test_given_back_it_comes_first_again_and_no_attempt_is_counted(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    first, second = sender.send("builder", 1), sender.send("builder", 2)
    assert receiver.take().id == first
    receiver.ask(GiveBack(0, [first]))
    again = receiver.take()
    assert (again.id, again.attempt) == (first, 1)
    assert receiver.take().id == second


def test_several_given_back_keep_their_order(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=4)
    ids = [sender.send("builder", number) for number in range(4)]
    for _ in ids:
        receiver.arrives()
    receiver.ask(GiveBack(0, ids[1:]))
    receiver.credit(4)
    assert [receiver.arrives().id for _ in ids[1:]] == ids[1:]


def test_an_ack_twice_does_no_harm_and_touches_nothing(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    assert [receiver.ack(id), receiver.ack(id)] == [1, 0]
    assert sender.story(id) == ["accepted", "delivered", "acked"]


def test_what_has_ended_is_not_nacked_or_rejected(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    receiver.ack(id)
    for verb in (Nack(0, id), Reject(0, id), Working(0, id)):
        error = receiver.refusal(verb)
        assert error.code == "no_such_message" and "acked already" in error.message


def test_nobody_settles_the_mail_of_another(world: World) -> None:
    sender, receiver, thief = world.join("planner"), world.join("builder", take=True), world.join("thief", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    for verb in (Ack(0, [id]), Nack(0, id), Reject(0, id), Working(0, id)):
        assert thief.refusal(verb).code == "no_such_message"
    thief.tell(Delivered([id]), GiveBack(0, [id]))
    thief.so_far(Message)
    assert sender.story(id) == ["accepted", "delivered"]


def test_an_id_held_by_one_session_can_be_acked_by_another_of_the_agent(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    assert world.join("builder").ack(id) == 1
    assert sender.state(id) == "acked"


def test_acks_that_come_too_late_do_not_undo_the_others(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=2)
    ids = [sender.send("builder", number) for number in range(2)]
    receiver.arrives()
    receiver.arrives()
    assert receiver.refusal(Ack(0, [ids[0], 12345, ids[1]])).code == "no_such_message"
    assert [sender.state(id) for id in ids] == ["acked", "acked"]


def test_a_held_message_stays_with_the_agent_when_its_session_ends(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    receiver.ask(Working(0, id, 600.0))
    receiver.leave()
    again = world.join("builder", credit=5)
    assert again.so_far(Message) == []
    (mail,) = sender.inbox("builder").messages
    assert (mail.id, mail.state.value, mail.holder) == (id, "delivered", "held")
    assert again.ack(id) == 1


def test_when_the_hold_is_over_it_comes_back_with_one_more_attempt(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    receiver.ask(Working(0, id, 0.2))
    again = receiver.take()
    assert (again.id, again.attempt) == (id, 2)
    assert "hold is over" in sender.trace(id).transitions[2].note


def test_a_hold_can_be_renewed(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", b"x")
    receiver.take()
    receiver.ask(Working(0, id, 1.0))
    receiver.ask(Working(0, id, 600.0))
    later = sender.start_send("builder", "meanwhile", ttl=2.0, wait=State.ACKED)
    assert sender.receipt(later).state is State.EXPIRED
    assert sender.state(id) == "delivered"
    receiver.ack(id)


def test_a_message_expires_when_nobody_takes_it_in_time(world: World) -> None:
    sender = world.join("planner")
    world.join("builder", take=True)
    call = sender.start_send("builder", b"x", ttl=0.1, wait=State.ACKED)
    receipt = sender.receipt(call)
    assert receipt.state is State.EXPIRED
    accepted, expired = sender.trace(receipt.id).transitions
    assert expired.at - accepted.at >= 0.1
    assert world.join("builder", replace=True, credit=1).so_far(Message) == []


def test_what_was_delivered_in_time_does_not_expire(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=1)
    id = sender.send("builder", "taken", ttl=1.0)
    taken = receiver.arrives()
    receiver.delivered(id)
    assert taken.details is not None and taken.details.expires_at is not None
    assert sender.receipt(sender.start_send("builder", "later", ttl=1.5, wait=State.ACKED)).state is State.EXPIRED
    assert sender.state(id) == "delivered"
    receiver.nack(id)  # back in the inbox its time is over
    assert sender.state(id) == "expired"


def test_the_same_key_is_accepted_once(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", credit=5)
    first = sender.accepted(sender.start_send("builder", "once", key="job-7"))
    second = sender.accepted(sender.start_send("builder", "once", key="job-7"))
    assert second.id == first.id and "repeated" in second.note and "accepted" in second.note
    assert len(receiver.so_far(Message)) == 1


def test_a_repeated_key_answers_with_the_state_of_the_first(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    id = sender.send("builder", "once", key="job-7")
    receiver.take()
    receiver.ack(id)
    call = sender.start_send("builder", "once", key="job-7", wait=State.ACKED)
    assert "acked" in sender.accepted(call).note
    assert sender.receipt(call).state is State.ACKED


def test_a_key_belongs_to_its_sender_and_its_message(world: World) -> None:
    sender, other = world.join("planner"), world.join("other")
    receiver = world.join("builder", credit=5)
    sender.send("builder", "once", key="job-7")
    other.send("builder", "once", key="job-7")
    assert len(receiver.so_far(Message)) == 2
    error = sender.refused_send("builder", "something else", key="job-7")
    assert error.code == "bad_request" and "job-7" in error.message


def test_a_key_outlives_the_senders_connection(world: World) -> None:
    world.join("builder", take=True)
    sender = world.join("planner")
    id = sender.send("builder", "once", key="job-7")
    sender.leave()
    assert world.join("planner").send("builder", "once", key="job-7") == id


def test_headers_arrive_as_they_were(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    headers = {"content-type": "text/x-diff", "": "", "ä\n": "\u0000"}
    sender.send("builder", b"x", headers=headers)
    details = receiver.take().details
    assert details is not None and details.headers == headers


def test_headers_past_the_limit_are_refused(world: World) -> None:
    world.join("builder", take=True)
    assert world.join("planner").refused_send("builder", b"x", headers={"a": "x" * 20_000}).code == "too_large"


def test_provenance_is_what_the_kernel_says(world: World) -> None:
    sender, receiver = world.join("planner"), world.join("builder", take=True)
    sender.send("builder", b"x")
    provenance = receiver.take().provenance
    assert provenance.startswith("uid ") and " pid " in provenance


def test_looking_at_an_inbox_takes_nothing(world: World) -> None:
    sender = world.join("planner")
    id = sender.send("builder", "a\nlong  story " * 50, allow_absent=True)
    view = sender.inbox("builder")
    (mail,) = view.messages
    assert (view.total, mail.id, mail.state.value, mail.attempt, mail.sender) == (1, id, "stored", 1, "planner")
    assert mail.preview.startswith("a long story a long") and len(mail.preview) == 80 and mail.size_bytes == 700
    assert world.join("builder", take=True).take().attempt == 1


def test_any_prefix_that_only_one_id_has_will_do(world: World) -> None:
    sender = world.join("planner")
    ids = [sender.send("builder", number, allow_absent=True) for number in range(40)]
    text = id_text(ids[0])
    assert sender.ask(Find(0, text)).id == ids[0]
    assert sender.ask(Find(0, text[:8])).id == ids[0]
    for id in ids:
        assert sender.ask(Find(0, id_text(id)[:4])).id == id  # the fast-moving bits come first
    shared = next(
        letters for letters in {id_text(id)[:1] for id in ids} if sum(id_text(id)[:1] == letters for id in ids) > 1
    )
    several = sender.refusal(Find(0, shared))
    assert several.code == "no_such_message" and "messages" in several.message and shared in several.hint
    assert sender.refusal(Find(0, "7777777777777")).code == "no_such_message"
    assert sender.refusal(Find(0, "NOPE")).code == "no_such_message"


def test_what_is_unknown_is_said_to_be(world: World) -> None:
    party = world.join("planner", take=True)
    with pytest.raises(Refused, match="no_such_message"):
        party.trace(99)
    assert party.refusal(Nack(0, 99)).code == "no_such_message"
    assert party.refusal(Ack(0, [99])).code == "no_such_message"


def test_credit_has_bounds(world: World) -> None:
    receiver = world.join("builder", take=True)
    receiver.ask(Receive(0, 1 << 20))
    receiver.ask(Receive(0, -(1 << 20)))
    receiver.ask(Receive(0, -1))  # below nothing there is nothing
    receiver.credit()
    world.join("planner").send("builder", b"x")
    receiver.arrives()
