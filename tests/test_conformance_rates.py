"""Conformance: who is over its rate is told once and then waits; nothing that it said is lost, nobody else waits."""

from __future__ import annotations

from parties import Party
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Accepted,
    Agents,
    AgentView,
    Error,
    Message,
    Publish,
    Receipt,
    Send,
    Stats,
    Status,
    StatusView,
)

BURST = 100  # worlds.LIMITS: events_burst; 20 a second more
OVER = 15


def publish(topic: str = "t") -> Publish:
    return Publish(0, topic, Content.TEXT, b"x")


def overrun(party: Party) -> list[int]:
    """More events than the rate allows, in one breath; their calls."""
    verbs = [publish() for _ in range(BURST + OVER)]
    party.say(*verbs)
    return [verb.cid for verb in verbs]


def answers(party: Party, calls: list[int]) -> dict[int, Receipt | Error]:
    """What each call was answered, in the order of the answers."""
    found: dict[int, Receipt | Error] = {}
    while len(found) < len(calls):
        answer = party._first(lambda m: type(m) in (Receipt, Error))
        assert answer.cid in calls and answer.cid not in found
        found[answer.cid] = answer
    return found


def row(party: Party, name: str) -> AgentView:
    (found,) = [row for row in party.ask(Agents(0)).agents if row.name == name]
    assert isinstance(found, AgentView)
    return found


def test_one_call_is_refused_and_the_others_wait_their_turn(world: World) -> None:
    me = world.join("runaway")
    before = me.ask(Stats(0)).refused
    calls = overrun(me)
    told = answers(me, calls)
    assert list(told) == calls  # in order
    (error,) = [answer for answer in told.values() if isinstance(answer, Error)]
    assert error.code == "rate_limited" and error.retryable and "20 events a second on t" in error.message
    assert error.retry_after is not None and 0 < error.retry_after < 1
    assert calls.index(error.cid) >= BURST  # the burst was not touched
    assert me.ask(Stats(0)).refused == before + 1


def test_what_is_said_behind_waits_and_keeps_its_order(world: World) -> None:
    me, receiver = world.join("runaway"), world.join("builder", credit=10)
    calls = overrun(me)
    last = me.say(Send(0, "builder", Content.TEXT, b"after all that"), Status(0))
    sent = receiver.arrives()
    assert sent.body == b"after all that"
    assert isinstance(me.answer(last), StatusView)
    said = [m.cid for m in me.unread if type(m) in (Receipt, Error, Accepted)]
    assert said[: len(calls)] == calls and len(said) == len(calls) + 1


def test_nobody_else_waits_and_the_culprit_alone_is_named_first(world: World) -> None:
    others = [world.join(f"quiet-{number}", credit=100) for number in range(10)]
    me = world.join("z-runaway")
    overrun(me)
    for one in others:
        for other in others:
            id = one.send(other.name, "hello")
            assert other.expect(Message).id == id
            other.ack(id)
    rows = others[0].ask(Agents(0)).agents
    assert rows[0].name == "z-runaway" and rows[0].limited >= 1 and rows[0].trouble.startswith("over its rate")
    assert [row.name for row in rows if row.trouble or row.limited] == ["z-runaway"]
    assert [error for one in others for error in one.so_far(Error)] == []


def test_another_topic_has_its_own_rate_and_the_agents_own_is_shared_by_its_sessions(world: World) -> None:
    me, child = world.join("publisher"), world.join("publisher")
    for _ in range(BURST):
        me.publish("busy")
    assert child.publish("other").reached == 0
    calls = [child.say(publish("busy")) for _ in range(10)]
    told = answers(child, calls)
    assert [type(answer) for answer in told.values()].count(Error) == 1
    assert row(me, "publisher").limited >= 1


def test_who_was_told_is_not_told_again_while_it_goes_on(world: World) -> None:
    me = world.join("runaway")
    told = answers(me, overrun(me))
    for _ in range(2):
        told |= answers(me, [me.say(publish()) for _ in range(OVER)])
    assert [type(answer) for answer in told.values()].count(Error) == 1


def test_an_end_in_the_middle_leaves_nothing_behind(world: World) -> None:
    me, other = world.join("runaway", take=True), world.join("builder", credit=5)
    overrun(me)
    me.die()
    id = other.send("builder", "still here")
    assert other.arrives().id == id
    other.ack(id)
