"""Requests: each ends exactly once, and at once where no reply can come."""

from __future__ import annotations

import pytest
from fakes import FakeSession, World

from agentd.wire.bodies import Content
from agentd.wire.errors import Absent, BadRequest, LimitReached, NoResponder
from agentd.wire.messages import Answer, Error, Message, Options, Request, State

ACCEPTED, DELIVERED, ACKED = State.ACCEPTED, State.DELIVERED, State.ACKED
EXPIRED, DEAD = State.EXPIRED, State.DEAD


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def asker(world: World) -> FakeSession:
    return world.join("asker")


@pytest.fixture
def responder(world: World) -> FakeSession:
    return world.join("responder", credit=100)


def asked(responder: FakeSession) -> int:
    """The id of the latest message that it was sent."""
    return responder.told(Message)[-1].id


def ended_once(asker: FakeSession, cid: int) -> Error:
    assert asker.told(Answer) == []
    assert cid not in asker.asking
    return asker.error(cid)


def test_a_request_is_answered_and_acked_by_its_reply(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder", b"status?")
    id = asked(responder)
    world.delivered(responder, id)
    reply = world.reply(responder, id, b"fine")
    answer = asker.answer(cid).message
    assert (answer.id, answer.body, answer.sender) == (reply, b"fine", "responder")
    assert answer.details is not None and (answer.details.re, answer.details.thread) == (id, id)
    assert world.story(id) == [ACCEPTED, DELIVERED, ACKED]
    assert world.state(reply) is ACCEPTED
    world.ack(asker, reply)
    assert world.state(reply) is ACKED
    assert asker.agent.count == 0


def test_the_responder_sees_until_when_the_asker_waits(
    world: World, asker: FakeSession, responder: FakeSession
) -> None:
    world.request(asker, "responder", timeout=5)
    (message,) = responder.told(Message)
    assert message.details is not None
    assert message.details.reply_by == message.sent_at + 5


def test_somebody_without_a_name_can_ask(world: World, responder: FakeSession) -> None:
    anonymous = world.join()
    cid = world.request(anonymous, "responder")
    reply = world.reply(responder, asked(responder), b"fine")
    assert anonymous.answer(cid).message.body == b"fine"
    world.leave(anonymous)
    assert world.state(reply) is DEAD
    assert world.hub.inboxes.bytes == 0


def test_nobody_of_that_name_is_no_responder_at_once(world: World, asker: FakeSession, responder: FakeSession) -> None:
    with pytest.raises(NoResponder) as refused:
        world.request(asker, "respnder")
    assert "Did you mean responder?" in refused.value.hint


def test_an_absent_agent_is_no_responder_at_once(world: World, asker: FakeSession, responder: FakeSession) -> None:
    world.leave(responder)
    with pytest.raises(NoResponder, match="responder is absent"):
        world.request(asker, "responder")
    world.join("responder", take=False)
    with pytest.raises(NoResponder):
        world.request(asker, "responder")
    with pytest.raises(NoResponder):
        world.request(asker, world.join().name)


@pytest.mark.parametrize("seen", [True, False])
def test_a_responder_that_dies_with_the_request_is_no_responder_at_once(
    world: World, asker: FakeSession, responder: FakeSession, seen: bool
) -> None:
    cid = world.request(asker, "responder")
    id = asked(responder)
    if seen:
        world.delivered(responder, id)
    world.leave(responder, "killed")
    error = ended_once(asker, cid)
    assert (error.code, error.retryable) == ("no_responder", True)
    assert "killed" in error.message
    assert world.state(id) is DEAD
    assert world.join("responder", credit=1).bodies() == []


def test_a_responder_that_dies_before_it_took_the_request_is_no_responder_at_once(
    world: World, asker: FakeSession
) -> None:
    responder = world.join("responder")
    cid = world.request(asker, "responder")
    world.leave(responder)
    assert ended_once(asker, cid).code == "no_responder"
    assert world.hub.agents.get("responder").count == 0


def test_a_delayed_request_ends_with_its_responder(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder", timeout=600)
    world.nack(responder, asked(responder), after_s=60)
    world.leave(responder)
    assert ended_once(asker, cid).code == "no_responder"
    world.after(61)


def test_another_session_that_shares_the_name_gets_the_request_of_a_dead_one(world: World, asker: FakeSession) -> None:
    one, two = (world.join("team", share=True, credit=5) for _ in range(2))
    cid = world.request(asker, "team")
    world.leave(one)
    world.reply(two, asked(two), b"yes")
    assert asker.answer(cid).message.body == b"yes"
    assert asker.told(Error) == []


def test_a_request_that_is_held_outlives_its_session(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder", timeout=600)
    id = asked(responder)
    world.hold(responder, id, 300)
    world.leave(responder)
    assert asker.told(Error) == []
    later = world.join("responder", take=False)
    world.reply(later, id, b"done")
    assert asker.answer(cid).message.body == b"done"
    assert world.state(id) is ACKED


def test_an_ack_without_a_reply_is_no_responder(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder")
    world.ack(responder, asked(responder))
    assert "did not reply" in ended_once(asker, cid).message


def test_a_rejected_request_says_why(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder")
    world.reject(responder, asked(responder), "not today")
    error = ended_once(asker, cid)
    assert (error.code, error.message) == ("rejected", "responder rejected the request: not today")


def test_a_request_out_of_attempts_is_no_responder() -> None:
    world = World(max_attempts=1)
    asker, responder = world.join("asker"), world.join("responder", credit=5)
    cid = world.request(asker, "responder")
    world.nack(responder, asked(responder))
    assert ended_once(asker, cid).code == "no_responder"


def test_an_expired_request_is_no_responder(world: World, asker: FakeSession) -> None:
    world.join("responder")
    cid = world.request(asker, "responder", timeout=60, ttl=5)
    world.after(5)
    assert "expired" in ended_once(asker, cid).message


def test_a_request_that_nobody_took_in_time_is_taken_back(world: World, asker: FakeSession) -> None:
    responder = world.join("responder")
    cid = world.request(asker, "responder", timeout=5)
    world.after(5)
    error = ended_once(asker, cid)
    assert error.code == "timeout" and "had not taken it" in error.message
    assert responder.agent.count == 0
    world.hub.inboxes.receive(responder, 1)
    assert responder.bodies() == []


def test_a_late_reply_goes_to_the_askers_inbox(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder", timeout=5)
    id = asked(responder)
    world.delivered(responder, id)
    world.after(6)
    assert "may still reply to your inbox" in ended_once(asker, cid).message
    reply = world.reply(responder, id, b"late")
    assert world.state(id) is ACKED
    world.hub.inboxes.receive(asker, 1)
    (message,) = asker.told(Message)
    assert (message.id, message.body) == (reply, b"late")
    assert message.details is not None and message.details.re == id
    assert asker.told(Answer) == []


def test_a_late_reply_to_somebody_without_a_name_is_refused(world: World, responder: FakeSession) -> None:
    anonymous = world.join()
    world.request(anonymous, "responder", timeout=5)
    world.delivered(responder, asked(responder))
    world.after(6)
    with pytest.raises(Absent):
        world.reply(responder, asked(responder))
    assert world.state(asked(responder)) is DELIVERED


def test_a_request_whose_asker_waits_no_more_is_not_tried_again(
    world: World, asker: FakeSession, responder: FakeSession
) -> None:
    world.request(asker, "responder", timeout=5)
    id = asked(responder)
    world.after(6)
    world.nack(responder, id)
    assert world.state(id) is EXPIRED
    assert len(responder.told(Message)) == 1


def test_an_asker_that_leaves_takes_back_what_nobody_was_sent(world: World, asker: FakeSession) -> None:
    responder = world.join("responder", credit=1)
    world.request(asker, "responder", b"out")
    world.request(asker, "responder", b"waiting")
    out = asked(responder)
    world.leave(asker)
    assert world.state(out + 1) is EXPIRED
    reply = world.reply(responder, out, b"for later")
    assert world.join("asker", credit=1).told(Message)[0].id == reply


def test_an_answer_that_its_asker_never_acked_goes_to_the_inbox(
    world: World, asker: FakeSession, responder: FakeSession
) -> None:
    world.request(asker, "responder")
    reply = world.reply(responder, asked(responder), b"fine")
    world.leave(asker, "killed")
    assert world.state(reply) is ACCEPTED
    assert world.join("asker", credit=1).bodies() == [b"fine"]


def test_a_message_can_be_replied_to_after_it_was_acked(
    world: World, asker: FakeSession, responder: FakeSession
) -> None:
    id = world.send(asker, "responder", b"note")
    world.ack(responder, id)
    world.reply(responder, id, b"thanks")
    world.hub.inboxes.receive(asker, 5)
    assert asker.bodies() == [b"thanks"]
    assert world.story(id) == [ACCEPTED, DELIVERED, ACKED]


def test_a_reply_acks_what_it_answers(world: World, asker: FakeSession, responder: FakeSession) -> None:
    id = world.send(asker, "responder", b"note")
    world.reply(responder, id)
    assert world.state(id) is ACKED
    assert responder.held == {}


def test_only_the_addressee_can_reply(world: World, asker: FakeSession, responder: FakeSession) -> None:
    id = world.send(asker, "responder")
    with pytest.raises(BadRequest, match="addressed to responder, not to asker"):
        world.reply(asker, id)


def test_a_reply_counts_a_hop_and_keeps_the_thread(world: World, asker: FakeSession, responder: FakeSession) -> None:
    id = world.send(asker, "responder")
    first = world.entry(world.reply(responder, id)).message.details
    assert first is not None and (first.hops, first.thread) == (1, id)


def test_a_reply_changes_nothing_for_calls_that_follow(
    world: World, asker: FakeSession, responder: FakeSession
) -> None:
    world.subscribe(asker, "replied")
    for _ in range(40):
        cid = world.request(asker, "responder")
        details = responder.told(Message)[-1].details
        assert details is not None and details.re is None and details.hops == 0
        world.reply(responder, asked(responder))
        world.ack(asker, asker.answer(cid).message.id)
        world.publish(responder, "replied")
        details = asker.told(Message)[-1].details
        assert details is not None and details.topic == "replied" and details.re is None and details.hops == 0


def test_requests_under_way_are_bounded() -> None:
    world = World(max_requests=1)
    asker, _ = world.join("asker"), world.join("responder")
    world.request(asker, "responder", timeout=5)
    with pytest.raises(LimitReached):
        world.request(asker, "responder")
    world.after(5)
    world.request(asker, "responder")


def test_a_number_under_way_is_not_used_again(world: World, asker: FakeSession, responder: FakeSession) -> None:
    cid = world.request(asker, "responder")
    with pytest.raises(BadRequest, match="under way already"):
        world.hub.router.request(asker, Request(cid, "responder", Content.BYTES, b"", 5.0, Options()), world.now)


def test_an_agent_can_ask_itself_and_its_death_ends_everything(world: World) -> None:
    agent = world.join("agent", credit=1)
    world.request(agent, "agent")
    world.leave(agent)
    assert world.hub.inboxes.bytes == 0
    assert world.hub.agents.get("agent").requests == {}
