"""Conformance: requests and replies. Every request ends exactly once: by its answer, or by why none will come."""

from __future__ import annotations

import pytest
from parties import Party, Refused, value_of
from worlds import World

from agentd.wire.messages import Ack, Answer, Error, GiveBack, Message, Nack, Receipt, Reject, State, Status, Working


def ask(world: World, **options: float) -> tuple[Party, Party, int, Message]:
    """An asker, a responder that has the request, the call, the request."""
    asker, responder = world.join("planner", take=True), world.join("builder", take=True)
    call = asker.request("builder", "status?", **options)
    return asker, responder, call, responder.take()


def test_a_request_is_answered_and_the_reply_acks_it(world: World) -> None:
    asker, responder, call, asked = ask(world)
    assert asked.details is not None and asked.details.reply_by is not None
    reply = responder.reply(asked.id, {"ok": True})
    answer = asker.answer(call)
    assert isinstance(answer, Answer)
    assert (answer.message.id, answer.message.sender, value_of(answer.message)) == (reply.id, "builder", {"ok": True})
    assert asker.story(asked.id) == ["accepted", "delivered", "acked"]


def test_a_reply_carries_re_thread_and_hops(world: World) -> None:
    asker, responder, call, asked = ask(world)
    responder.reply(asked.id, 1)
    details = asker.answer(call).message.details
    assert (details.re, details.thread, details.hops) == (asked.id, asked.id, 1)


def test_the_answer_is_acked_by_the_asker(world: World) -> None:
    asker, responder, call, asked = ask(world)
    watching = responder.start_reply(asked.id, 1, wait=State.ACKED)
    answer = asker.answer(call)
    assert responder.so_far(Receipt) == []
    asker.ack(answer.message.id)
    assert responder.receipt(watching).state is State.ACKED


def test_a_conversation_keeps_its_thread_and_counts_its_hops(world: World) -> None:
    planner, builder = world.join("planner", take=True), world.join("builder", take=True)
    first = planner.send("builder", 0)
    speaker, listener, id = builder, planner, first
    builder.take()
    for hops in range(1, 5):
        id = speaker.reply(id, hops).id
        message = listener.take()
        assert message.details is not None
        assert (message.details.thread, message.details.hops) == (first, hops)
        speaker, listener = listener, speaker


def test_re_without_a_reply_keeps_the_thread_too(world: World) -> None:
    planner, builder = world.join("planner", take=True), world.join("builder", take=True)
    first = planner.send("builder", 0)
    second = builder.send("planner", 1, re=first)
    planner.send("builder", 2, re=second)
    builder.take()
    details = builder.take().details
    assert details is not None and (details.re, details.thread, details.hops) == (second, first, 2)


def test_two_that_answer_each_other_are_stopped_by_the_hops(world: World) -> None:
    parties = world.join("ping", take=True), world.join("pong", take=True)
    id = parties[0].send("pong", "hello")
    for hops in range(40):
        speaker = parties[(hops + 1) % 2]
        assert speaker.take().id == id
        try:
            id = speaker.reply(id, "hello yourself").id
        except Refused as refused:
            assert refused.code == "too_many_hops" and not refused.error.retryable
            assert hops == 32
            break
    else:
        pytest.fail("they would go on for ever")
    assert speaker.state(id) == "delivered"  # a refused reply acks nothing
    speaker.ack(id)


def test_hops_that_a_client_carries_itself_count(world: World) -> None:
    world.join("builder", take=True)
    planner = world.join("planner")
    planner.send("builder", b"x", hops=32)
    assert planner.refused_send("builder", b"x", hops=33).code == "too_many_hops"


def test_a_reply_after_the_ack_goes_to_the_senders_inbox(world: World) -> None:
    planner, builder = world.join("planner", take=True), world.join("builder", take=True)
    id = planner.send("builder", "job")
    builder.take()
    builder.ack(id)
    builder.reply(id, "done")
    late = planner.take()
    assert value_of(late) == "done" and late.details is not None and late.details.re == id


def test_a_reply_to_a_message_nobody_waits_for_acks_it_and_goes_to_the_inbox(world: World) -> None:
    planner, builder = world.join("planner", take=True), world.join("builder", take=True)
    id = planner.send("builder", "job")
    builder.take()
    builder.reply(id, "done")
    assert planner.state(id) == "acked"
    assert value_of(planner.take()) == "done"


def test_acking_a_request_without_a_reply_ends_it(world: World) -> None:
    asker, responder, call, asked = ask(world)
    responder.ack(asked.id)
    error = refusal(asker, call)
    assert error.code == "no_responder" and "did not reply" in error.message


def refusal(party: Party, call: int) -> Error:
    """How a request ended badly."""
    with pytest.raises(Refused) as caught:
        party.answer(call)
    return caught.value.error


@pytest.mark.parametrize("known", [True, False])
def test_asking_nobody_is_refused_at_once(world: World, known: bool) -> None:
    asker = world.join("planner", take=True)
    if known:
        world.join("builder").leave()
    error = refusal(asker, asker.request("builder", b"?", timeout=600.0))
    assert error.code == "no_responder" and error.retryable
    assert ("absent" if known else "No agent builder is known") in error.message


def test_asking_somebody_unknown_names_the_nearest(world: World) -> None:
    world.join("builder", take=True)
    asker = world.join("planner")
    assert "Did you mean builder?" in refusal(asker, asker.request("biulder", b"?")).hint


def test_one_who_only_sends_is_no_responder(world: World) -> None:
    world.join("builder")
    asker = world.join("planner")
    assert refusal(asker, asker.request("builder", b"?", timeout=600.0)).code == "no_responder"


@pytest.mark.parametrize("how", ["die", "leave"])
@pytest.mark.parametrize("taken", [True, False])
def test_a_responder_that_goes_ends_the_request_when_nobody_else_takes_it(world: World, how: str, taken: bool) -> None:
    asker, responder = world.join("planner", take=True), world.join("builder", take=True)
    call = asker.request("builder", "status?", timeout=600.0)
    if taken:
        responder.take()
    getattr(responder, how)()
    error = refusal(asker, call)
    assert error.code == "no_responder"
    assert asker.so_far(Answer) == []


def test_a_responder_that_dies_is_followed_by_the_one_that_shares_its_name(world: World) -> None:
    asker = world.join("planner", take=True)
    first = world.join("builder", take=True, share=True, credit=1)
    second = world.join("builder", take=True, share=True)
    call = asker.request("builder", "status?", timeout=600.0)
    first.delivered(first.arrives().id)
    first.die()
    again = second.take()
    assert again.attempt == 2
    second.reply(again.id, "fine")
    assert value_of(asker.answer(call).message) == "fine"


def test_a_request_that_comes_back_is_answered_by_whoever_takes_it_next(world: World) -> None:
    asker, responder, call, asked = ask(world, timeout=600.0)
    responder.ask(GiveBack(0, [asked.id]))
    responder.nack(responder.take().id, "not yet")
    again = responder.take()
    assert again.attempt == 2
    responder.reply(again.id, "now")
    assert value_of(asker.answer(call).message) == "now"


def test_a_rejected_request_says_why(world: World) -> None:
    asker, responder, call, asked = ask(world)
    responder.ask(Reject(0, asked.id, "I only build"))
    error = refusal(asker, call)
    assert error.code == "rejected" and "I only build" in error.message
    assert asker.state(asked.id) == "dead"


def test_a_request_whose_attempts_are_over_has_no_responder(world: World) -> None:
    asker, responder, call, asked = ask(world)
    for _ in range(2):
        responder.ask(Nack(0, asked.id, "broken"))
        responder.take()
    responder.ask(Nack(0, asked.id, "broken"))
    error = refusal(asker, call)
    assert error.code == "no_responder" and "broken" in error.message


def test_a_request_nobody_took_in_time_ends_with_it(world: World) -> None:
    asker = world.join("planner", take=True)
    responder = world.join("builder", take=True)
    call = asker.request("builder", "status?", timeout=1.0)
    error = refusal(asker, call)
    assert error.code == "timeout" and "had not taken it" in error.message
    responder.credit()
    assert responder.so_far(Message) == []  # nobody works for an asker that is gone


def test_a_late_reply_goes_to_the_inbox(world: World) -> None:
    asker, responder = world.join("planner", take=True), world.join("builder", credit=1)
    call = asker.request("builder", "status?", timeout=1.0)
    asked = responder.arrives()
    responder.delivered(asked.id)
    error = refusal(asker, call)
    assert error.code == "timeout"
    responder.reply(asked.id, "sorry, I slept")
    late = asker.take()
    assert value_of(late) == "sorry, I slept" and late.details is not None and late.details.re == asked.id
    assert asker.so_far(Answer) == []


def test_a_request_with_a_ttl_ends_when_nobody_takes_it(world: World) -> None:
    asker = world.join("planner", take=True)
    world.join("builder", take=True)
    error = refusal(asker, asker.request("builder", "status?", timeout=600.0, ttl=0.1))
    assert error.code == "no_responder" and "expired" in error.message


def test_what_an_asker_that_is_gone_wanted_is_withdrawn(world: World) -> None:
    asker, responder = world.join("planner"), world.join("builder", take=True)
    observer = world.join("observer")
    asker.request("builder", "status?", timeout=600.0)
    asker.leave()
    responder.credit()
    assert responder.so_far(Message) == []
    assert observer.ask(Status(0)).waiting == 0


def test_working_keeps_a_request_open(world: World) -> None:
    asker, responder, call, asked = ask(world)
    responder.ask(Working(0, asked.id))
    assert asker.so_far(Error) == []
    responder.reply(asked.id, "ready")
    assert value_of(asker.answer(call).message) == "ready"


def test_two_replies_are_one_answer_and_one_message(world: World) -> None:
    asker, responder, call, asked = ask(world)
    responder.reply(asked.id, 1)
    responder.reply(asked.id, 2)
    assert value_of(asker.answer(call).message) == 1
    assert value_of(asker.take()) == 2


def test_nobody_replies_for_another(world: World) -> None:
    _, _, _, asked = ask(world)
    with pytest.raises(Refused, match="bad_request"):
        world.join("thief", take=True).reply(asked.id, "mine")


def test_many_requests_under_way_are_answered_each(world: World) -> None:
    asker, responder = world.join("planner"), world.join("builder", credit=30)
    calls = [asker.request("builder", number) for number in range(30)]
    asked = [responder.arrives() for _ in calls]
    for message in reversed(asked):
        number = value_of(message)
        assert isinstance(number, int)
        responder.reply(message.id, -number)
    assert [value_of(asker.answer(call).message) for call in calls] == [-number for number in range(30)]


def test_requests_under_way_are_bounded(world: World) -> None:
    asker = world.join("planner")
    world.join("builder", take=True)
    for _ in range(40):
        asker.request("builder", b"?")
    assert refusal(asker, asker.request("builder", b"?")).code == "limit_reached"


def test_an_agent_can_answer_itself(world: World) -> None:
    party = world.join("planner", take=True)
    call = party.request("planner", "who am I?")
    asked = party.take()
    party.reply(asked.id, "planner")
    assert value_of(party.expect(Answer, cid=call).message) == "planner"


def test_an_answer_that_its_asker_never_acked_comes_back_to_its_inbox(world: World) -> None:
    asker, responder, call, asked = ask(world)
    reply = responder.reply(asked.id, "lost on the way")
    asker.answer(call)
    asker.die()
    again = world.join("planner", take=True, replace=True).take()
    assert (again.id, value_of(again)) == (reply.id, "lost on the way")


def test_acking_the_answer_is_the_end_of_it(world: World) -> None:
    asker, responder, call, asked = ask(world)
    reply = responder.reply(asked.id, 1)
    answer = asker.answer(call)
    assert asker.ask(Ack(0, [answer.message.id])).count == 1
    assert responder.story(reply.id) == ["accepted", "delivered", "acked"]
