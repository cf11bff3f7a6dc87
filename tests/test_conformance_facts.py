"""Conformance: the daemon's own facts on agentd:* topics. Never a body, and never a fact about a fact."""

from __future__ import annotations

from typing import Any

import pytest
from parties import Party, Refused, value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import Ack, LaggedEvent, Message, Nack, Reject, Send

SECRET = b"the body that no fact may have"


class Tap:
    """Somebody who listens to the daemon's facts."""

    def __init__(self, world: World, *patterns: str) -> None:
        self.party: Party = world.join("tap")
        for pattern in patterns or ("agentd:*",):
            self.party.subscribe(pattern)

    def heard(self) -> list[dict[str, Any]]:
        """What has come so far but the tap's own, each with its topic."""
        facts = []
        for message in self.party.so_far(Message):
            assert message.details is not None and message.details.topic is not None
            assert (message.sender, message.content) == ("agentd", Content.JSON)
            assert SECRET not in message.body
            self.party.delivered(message.id, subscription=message.details.subscription)
            fact: Any = value_of(message)
            if fact.get("agent") != "tap":
                facts.append({"topic": message.details.topic, **fact})
        return facts

    def topics(self) -> list[str]:
        return [fact["topic"] for fact in self.heard()]


def test_who_comes_and_goes(world: World) -> None:
    tap = Tap(world)
    builder = world.join("builder", take=True)
    joined = tap.heard()[-1]
    assert (joined["topic"], joined["agent"], joined["takes"]) == ("agentd:joined", "builder", True)
    assert isinstance(joined["pid"], int)
    builder.leave()
    left = tap.heard()[-1]
    assert (left["topic"], left["agent"], left["reason"]) == ("agentd:left", "builder", "left")


def test_what_becomes_of_a_message(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world)
    id = planner.send("builder", SECRET)
    builder.delivered(id)
    builder.ask(Ack(0, [id]))
    delivered, acked = tap.heard()
    assert (delivered["topic"], acked["topic"]) == ("agentd:delivered", "agentd:acked")
    for fact in (delivered, acked):
        assert (fact["sender"], fact["to"], fact["lane"], fact["who"]) == ("planner", "builder", "normal", "builder")
        assert (fact["size_bytes"], fact["attempt"]) == (len(SECRET), 1)
    assert delivered["id"] == acked["id"]


def test_an_ack_says_delivered_too(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world)
    builder.ask(Ack(0, [planner.send("builder", SECRET), planner.send("builder", SECRET)]))
    assert sorted(tap.topics()) == ["agentd:acked"] * 2 + ["agentd:delivered"] * 2


def test_dead_with_its_reason(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world)
    builder.ask(Reject(0, planner.send("builder", SECRET), "no such branch"))
    dead = tap.heard()[-1]
    assert (dead["topic"], dead["reason"]) == ("agentd:dead", "no such branch")


def test_expired(world: World) -> None:
    planner, _ = world.join("planner"), world.join("builder", take=True)
    tap = Tap(world, "agentd:expired")
    planner.send("builder", SECRET, ttl=0.05)
    expired: Any = value_of(tap.party.expect(Message))
    assert (expired["to"], expired["state"]) == ("builder", "expired")


def test_nacked_and_delivered_again(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world, "agentd:delivered")
    id = planner.send("builder", SECRET)
    builder.ask(Nack(0, id, "later"))
    builder.delivered(id)
    assert [fact["attempt"] for fact in tap.heard()] == [1, 2]


def test_refused_names_who_and_why(world: World) -> None:
    planner = world.join("planner")
    tap = Tap(world)
    with pytest.raises(Refused):
        planner.ask(Send(0, "nobody", Content.BYTES, SECRET))
    refused = tap.heard()[-1]
    assert (refused["topic"], refused["agent"], refused["verb"]) == ("agentd:refused", "planner", "send")
    assert refused["code"] == "no_such_agent"


def test_a_pattern_chooses(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world, "agentd:acked")
    builder.ask(Ack(0, [planner.send("builder", SECRET)]))
    assert tap.topics() == ["agentd:acked"]


def test_events_are_nobodys_news(world: World) -> None:
    tap = Tap(world)
    planner, other = world.join("planner"), world.join("other")
    other.subscribe("task:*")
    tap.heard()
    planner.publish("task:done", SECRET)
    assert tap.topics() == []


def test_a_slow_tap_has_a_gap_and_harms_nobody(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=100)
    tap = Tap(world, "agentd:acked")
    ids = [planner.send("builder", SECRET) for _ in range(15)]  # worlds.LIMITS: ten on their way
    builder.ask(Ack(0, ids))
    assert len(tap.heard()) == 10
    assert tap.party.expect(LaggedEvent).missed == 5
    assert planner.state(ids[-1]) == "acked"


def test_facts_are_not_remembered(world: World) -> None:
    tap = Tap(world)
    world.join("builder").leave()
    facts = tap.party.so_far(Message)
    assert facts
    for fact in facts:
        assert fact.details is not None
        tap.party.delivered(fact.id, subscription=fact.details.subscription)
        with pytest.raises(Refused, match="no_such_message"):
            tap.party.trace(fact.id)


def test_nobody_else_speaks_there(world: World) -> None:
    planner = world.join("planner")
    for topic in ("agentd:acked", "agentd:mine"):
        with pytest.raises(Refused, match="bad_name"):
            planner.publish(topic, b"x")


def test_who_stops_listening_hears_no_more(world: World) -> None:
    planner, builder = world.join("planner"), world.join("builder", credit=4)
    tap = Tap(world)
    tap.party.leave()
    id = planner.send("builder", SECRET)
    builder.ask(Ack(0, [id]))
    assert planner.state(id) == "acked"


def test_a_wildcard_alone_is_no_wish_for_facts(world: World) -> None:
    tap = Tap(world, "**", "*:*", "*")
    world.join("builder").leave()
    assert tap.topics() == []
