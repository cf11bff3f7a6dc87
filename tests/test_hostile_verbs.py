"""Verbs at the wrong time, for the wrong thing, or beyond a limit: a named refusal, and nothing else changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from daemons import Daemon, wait_until
from raw import Opener, Raw, Refused

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Bye,
    Done,
    Error,
    Joined,
    LaggedEvent,
    Message,
    Options,
    Priority,
    Receipt,
    Route,
    State,
)

TEXT = Content.TEXT
ABSENT = Options(allow_absent=True)
#: One of each, with arguments that would be right somewhere.
EVERY_VERB: list[Any] = [
    wire.Join(0, "x"),
    wire.Leave(0),
    wire.Send(0, "x", TEXT, b""),
    wire.Request(0, "x", TEXT, b"", 1.0),
    wire.Reply(0, 1, TEXT, b""),
    wire.Publish(0, "t", TEXT, b""),
    wire.Subscribe(0, "t"),
    wire.Unsubscribe(0, 1),
    wire.Receive(0, 1),
    wire.Ack(0, [1]),
    wire.Nack(0, 1),
    wire.Reject(0, 1),
    wire.GiveBack(0, [1]),
    wire.Working(0, 1),
    wire.Find(0, "aaaa"),
    wire.Inbox(0, "x"),
    wire.Trace(0, 1),
    wire.Agents(0),
    wire.Status(0),
    wire.Stats(0),
    wire.Dead(0),
    wire.Requeue(0, [1]),
    wire.Drop(0, [1]),
    wire.Forget(0, "x"),
    wire.Notice(0, "x"),
    wire.Completion(0, wire.Word.AGENT, ""),
]
LOOKS = (
    wire.Join,
    wire.Leave,
    wire.Find,
    wire.Inbox,
    wire.Trace,
    wire.Agents,
    wire.Status,
    wire.Stats,
    wire.Dead,
    wire.Notice,
    wire.Completion,
)


def send(to: str, body: bytes = b"x", **options: Any) -> wire.Send:
    return wire.Send(0, to, TEXT, body, Options(**options) if options else None)


def copy(verb: Any) -> Any:
    return msgspec.structs.replace(verb)


def agent(one: Raw, name: str) -> Any:
    return next((row for row in one.ask(wire.Agents(0)).agents if row.name == name), None)


def test_every_verb_before_hello(raw: Opener) -> None:
    for verb in EVERY_VERB:
        one = raw.bare(b"\xa9")
        one.say(copy(verb))
        *_, error = one.rest()
        assert (error.code, error.message) == ("bad_request", "The first message is hello"), verb
        one.close()
    line = raw.lines(greet=False)
    line.say({"verb": "status", "cid": 1})
    assert line.read()["message"] == "The first message is hello"
    assert line.read() is None
    late = raw.bare(b"\xa9")
    late.say(wire.Status(1), wire.Hello(1, "late"), wire.Join(2, "late", take=True))  # nothing after the first counts
    assert [type(m) for m in late.rest()] == [Error]
    assert agent(raw("me"), "late") is None


def test_every_verb_before_join(raw: Opener) -> None:
    one = raw(greet=False)
    one.greet()
    for verb in EVERY_VERB:
        if isinstance(verb, LOOKS):
            continue
        error = one.refusal(copy(verb))
        assert error.code == "bad_request" and "needs an agent" in error.message, verb
    one.say(wire.Delivered([1]))  # never answered, but refused
    assert "delivered needs an agent" in one.error().message
    assert one.ask(wire.Status(0)).sessions == 1
    one.say(wire.Hello(1, "again"))
    assert one.error().code == "bad_request"


def test_joining_twice_and_under_names_that_are_none(raw: Opener) -> None:
    one = raw("one", take=True)
    assert "has joined as one already" in one.refusal(wire.Join(0, "two", take=True)).message
    assert agent(one, "two") is None
    other = raw(greet=False)
    other.greet()
    for name in ("", " ", "a b", "a/b", "../x", "a\nb", "a\x00b", "é", "x" * 256, "*", "anonymous.x", "\u202eevil"):
        error = other.refusal(wire.Join(0, name))
        assert error.code == "bad_name", name
        assert error.message.isprintable() and len(error.message) < 300
    assert other.refusal(wire.Join(0, None, take=True)).code == "bad_request"
    assert other.refusal(wire.Join(0, "one", take=True)).code == "name_in_use"
    assert other.refusal(wire.Join(0, "one", take=True, share=True)).code == "name_in_use"
    other.join("." * 255, take=True)
    assert one.ask(wire.Status(0)).agents == 2


def test_bad_names_everywhere(raw: Opener) -> None:
    me = raw("me")
    for name in ("", "a/b", "a\x1b[2Jb", "x" * 10_000):
        for verb in (
            send(name, allow_absent=True),
            send(name),
            wire.Subscribe(0, name),
            wire.Publish(0, name, TEXT, b""),
        ):
            error = me.refusal(verb)
            assert error.code == "bad_name", (name, verb)
            assert error.message.isprintable() and len(error.message) < 300
    for pattern in ("a:", ":a", "a::b", "a***", "**a", "a b"):
        assert me.refusal(wire.Subscribe(0, pattern)).code == "bad_name", pattern
    for topic in ("agentd:joined", "a:*", "task:"):
        assert me.refusal(wire.Publish(0, topic, TEXT, b"")).code == "bad_name", topic
    assert me.ask(wire.Status(0)).agents == 1


def test_nothing_counts_after_leave(raw: Opener) -> None:
    """What stands behind it in the same frame comes from nobody."""
    me = raw("me", take=True)
    for before in ([], [wire.Join(1, "ghost", take=True)]):
        ghost = raw(greet=False)
        ghost.greet()
        ghost.say(
            *before,
            wire.Leave(2),
            wire.Join(3, "ghost", take=True),
            wire.Subscribe(4, "**"),
            wire.Receive(5, 10),
            wire.Send(6, "me", TEXT, b"boo"),
            wire.Request(7, "me", TEXT, b"boo", 60.0),
        )
        assert [m.cid for m in ghost.rest()] == [verb.cid for verb in before] + [2]
    ghosts = agent(me, "ghost")
    assert ghosts is not None and not ghosts.live
    assert me.ask(wire.Publish(0, "t", TEXT, b"")).reached == 0
    status = me.ask(wire.Status(0))
    assert (status.waiting, status.sessions, status.live) == (0, 1, 1)
    raw("ghost", take=True)  # its name is free


def test_messages_of_others_are_out_of_reach(raw: Opener) -> None:
    me, other, thief = raw("me"), raw("other", take=True), raw("thief", take=True)
    id = me.ask(send("other")).id
    other.take(1)
    other.until(Message)
    for verb in (
        wire.Ack(0, [id]),
        wire.Nack(0, id),
        wire.Reject(0, id),
        wire.Working(0, id, 5.0),
        wire.Ack(0, [1 << 63]),
        wire.Nack(0, (1 << 64) - 1),
    ):
        assert thief.refusal(verb).code == "no_such_message", verb
    assert thief.refusal(wire.Reply(0, id, TEXT, b"")).code == "bad_request"
    assert thief.ask(wire.GiveBack(0, [id])).cid
    thief.say(wire.Delivered([id, 0, (1 << 64) - 1]))
    assert thief.ask(wire.Trace(0, id)).state is State.ACCEPTED
    for care in (wire.Requeue(0, [id]), wire.Drop(0, [id])):
        assert thief.refusal(care).code == "no_such_message"
    assert thief.refusal(wire.Forget(0, "other")).code == "not_permitted"
    assert other.ask(wire.Ack(0, [id, id, id])).count == 1
    assert other.ask(wire.Ack(0, [id])).count == 0
    assert other.refusal(wire.Nack(0, id)).code == "no_such_message"


def test_credit_is_not_money(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    assert me.refusal(wire.Receive(0, 1)).code == "not_permitted"
    for _ in range(1000):
        other.take(1 << 20)
    ids = [me.ask(send("other")).id for _ in range(3)]
    assert [other.until(Message).id for _ in ids] == ids
    for _ in range(1000):
        other.take(-(1 << 20))
    other.ask(wire.Receive(0, -(1 << 20)))
    me.ask(send("other"))
    assert other.so_far(Message) == []
    other.take(1)
    other.until(Message)


def test_a_number_used_again_is_the_callers_own_confusion(raw: Opener) -> None:
    me, other = raw("me"), raw("other", take=True)
    me.say(wire.Status(5), wire.Stats(5), send_with(5, "other"), send_with(5, "other"))
    assert len(me.so_far(wire.StatusView)) >= 1
    me.say(wire.Request(9, "other", TEXT, b"1", 60.0), wire.Request(9, "other", TEXT, b"2", 60.0))
    assert me.error(9).code == "bad_request"
    other.take(10)
    asked = [m for m in (other.until(Message) for _ in range(3)) if m.body == b"1"]
    other.ask(wire.Reply(0, asked[0].id, TEXT, b"answer"))
    assert me.answer(9).message.body == b"answer"


def send_with(cid: int, to: str) -> wire.Send:
    verb = send(to)
    verb.cid = cid
    return verb


def test_what_the_lanes_and_the_options_cannot_do(raw: Opener) -> None:
    me = raw("me", take=True)
    error = me.refusal(send("me", priority=Priority.BATCH))
    assert error.code == "lane_unavailable" and "batch" in error.message
    assert me.refusal(send("me", durable=True, priority=Priority.CRITICAL)).code == "not_on_this_lane"
    assert me.refusal(send("me", priority=Priority.LOW, route=Route.SOCKET)).code == "lane_unavailable"
    for route in (Route.DIRECT, Route.JOURNAL, Route.RELAYED):
        assert me.refusal(send("me", route=route)).code == "lane_unavailable"
    for wait in (State.STORED, State.DEAD, State.EXPIRED, State.UNKNOWN):
        assert me.refusal(send("me", wait=wait)).code == "bad_request"
    assert me.refusal(send("me", hops=33)).code == "too_many_hops"
    assert me.refusal(send("me", headers={"a": "x" * (16 << 10)})).code == "too_large"
    me.ask(send("me", key="k"))
    assert me.refusal(send("me", b"other body", key="k")).code == "bad_request"
    assert me.refusal(wire.Subscribe(0, "t", start="all")).code == "bad_request"
    assert me.refusal(wire.Subscribe(0, "agentd:*", name="x")).code == "bad_request"
    assert me.refusal(wire.Subscribe(0, "t", name="sub:x")).code == "bad_name"
    assert me.refusal(wire.Subscribe(0, "t", start="yesterday")).code == "bad_request"
    assert me.refusal(wire.Publish(0, "t", TEXT, b"", Options(ttl=1.0))).code == "bad_request"
    assert me.ask(wire.Status(0)).waiting == 1


def test_agents_that_answer_each_other_for_ever_come_to_an_end(raw: Opener) -> None:
    one, two = raw("one", take=True), raw("two", take=True)
    one.take(1000)
    two.take(1000)
    one.ask(send("two"))
    passed = 0
    here, there = two, one
    with pytest.raises(Refused) as refused:
        while True:
            got = here.until(Message)
            here.ask(wire.Reply(0, got.id, TEXT, b"thank you"))
            here, there = there, here
            passed += 1
    assert refused.value.code == "too_many_hops"
    assert passed == 32


def test_limits_are_refusals_that_name_themselves(daemon: Daemon, raw: Opener) -> None:
    daemon.config(
        agents={"max_names": 3, "max_requests": 2, "max_keys": 2},
        inbox={"max_messages": 4, "max_bytes": 10_000, "max_total_bytes": 15_000},
        topics={"max_subscriptions": 2, "max_events": 3},
        message={"max_body_bytes": 5000},
    )
    me, other = raw("me", take=True), raw("other", take=True)
    me.ask(send("third", allow_absent=True))
    assert me.refusal(send("fourth", allow_absent=True)).code == "limit_reached"
    stranger = raw(greet=False)
    stranger.greet()
    assert "agents.max_names" in stranger.refusal(wire.Join(0, "fourth")).hint
    stranger.join(None)

    asked = [me.start(wire.Request(0, "other", TEXT, b"?", 60.0)) for _ in range(2)]
    assert me.refusal(wire.Request(0, "other", TEXT, b"?", 60.0)).code == "limit_reached"
    me.ask(send("other"))
    me.ask(send("other"))
    full = stranger.refusal(send("other"))
    assert full.code == "backpressure" and full.retryable and full.retry_after
    assert "other" in full.message
    assert stranger.refusal(send("third", b"x" * 5001)).code == "too_large"
    stranger.ask(send("third", b"x" * 5000))
    assert stranger.refusal(send("third", b"x" * 4000)).code == "backpressure"  # by bytes
    stranger.ask(send("me", b"x" * 4000))
    assert "All inboxes together" in stranger.refusal(send("me", b"x" * 4000)).message
    assert asked

    subscriptions = [other.ask(wire.Subscribe(0, "t")).subscription for _ in range(2)]
    assert other.refusal(wire.Subscribe(0, "t")).code == "limit_reached"
    other.ask(wire.Unsubscribe(0, subscriptions[0]))
    assert other.refusal(wire.Unsubscribe(0, subscriptions[0])).code == "bad_request"
    receipts = [me.ask(wire.Publish(0, "t", TEXT, b"")) for _ in range(5)]
    assert [r.reached for r in receipts] == [1, 1, 1, 0, 0]
    assert receipts[-1].refused == ["other"]
    events = [other.until(Message) for _ in range(3)]
    other.say(wire.Delivered([m.id for m in events], subscriptions[1]))
    assert other.until(LaggedEvent).missed == 2
    assert me.ask(wire.Publish(0, "t", TEXT, b"")).reached == 1


def test_waiting_for_what_never_comes_leaves_nothing(raw: Opener) -> None:
    other = raw("other", take=True)
    for _ in range(20):
        one = raw()
        one.ask(send("other", wait=State.ACKED))
        one.start(wire.Request(0, "other", TEXT, b"?", 3600.0))
        one.ask(wire.Subscribe(0, "**"))
        one.close()
    wait_until(lambda: len(other.ask(wire.Agents(0)).agents) == 1, "for agents without a name to be forgotten")
    assert other.ask(wire.Status(0)).waiting == 20
    other.take(100)
    got = [other.until(Message) for _ in range(20)]
    assert other.ask(wire.Ack(0, [m.id for m in got])).count == 20
    assert other.so_far(Message) == [] and other.so_far(Receipt) == []


def test_leaving_is_answered_and_final(raw: Opener) -> None:
    one = raw("one", take=True)
    one.say(wire.Leave(7))
    assert one.rest() == [Done(7)]
    again = raw("one", take=True)
    assert again.so_far(Bye) == [] and again.so_far(Joined) == []
