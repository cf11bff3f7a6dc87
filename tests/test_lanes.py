"""Lanes: a closed one refuses by name, and nothing goes another way; durable and a route are had or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import World

from agentd.hub.router import Router
from agentd.lanes.choice import Lanes
from agentd.lanes.closed import ClosedLane
from agentd.lanes.normal import NormalLane
from agentd.wire.bodies import Content
from agentd.wire.errors import LaneUnavailable
from agentd.wire.messages import Options, Priority, Publish, Reply, Request, Route, Send

CLOSED = [Priority.CRITICAL, Priority.HIGH, Priority.LOW, Priority.BATCH]


def lanes(router: Router) -> Lanes:
    return Lanes([NormalLane(router), *(ClosedLane(priority, f"no {priority.value} here") for priority in CLOSED)])


@pytest.fixture
def world() -> World:
    return World()


def test_without_options_a_message_goes_the_normal_way(world: World) -> None:
    chosen = lanes(world.hub.router)
    for options in (None, Options(), Options(route=Route.SOCKET), Options(durable=False)):
        assert chosen.choose("send", options).priority is Priority.NORMAL


@pytest.mark.parametrize("priority", CLOSED)
@pytest.mark.parametrize("verb", ["send", "request", "reply", "publish"])
def test_a_closed_lane_refuses_each_verb_with_its_reason(world: World, priority: Priority, verb: str) -> None:
    for options in (Options(priority=priority), Options(priority=priority, durable=True, route=Route.DIRECT)):
        with pytest.raises(LaneUnavailable, match=f"lane {priority.value} .* no {priority.value} here"):
            lanes(world.hub.router).choose(verb, options)


@pytest.mark.parametrize("priority", CLOSED)
def test_what_comes_to_a_closed_lane_all_the_same_is_refused(world: World, priority: Priority) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker")
    lane = lanes(world.hub.router).by_priority[priority]
    calls: list[Callable[[], object]] = [
        lambda: lane.send(sender, Send(9, "taker", Content.TEXT, b""), world.now),
        lambda: lane.request(sender, Request(9, "taker", Content.TEXT, b"", 1.0), world.now),
        lambda: lane.reply(taker, Reply(9, id, Content.TEXT, b""), world.now),
        lambda: lane.publish(sender, Publish(9, "t", Content.TEXT, b""), world.now),
    ]
    for refused in calls:
        with pytest.raises(LaneUnavailable, match=f"lane {priority.value} .* no {priority.value} here"):
            refused()
    assert set(world.hub.receipts.entries) == {id}


def test_the_normal_lane_carries_each_verb(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    lane = lanes(world.hub.router).choose("send", None)
    lane.send(sender, Send(2, "taker", Content.TEXT, b"1"), world.now)
    lane.request(sender, Request(3, "taker", Content.TEXT, b"2", 1.0), world.now)
    lane.reply(taker, Reply(2, world.accepted(sender, 2) + 1, Content.TEXT, b"3"), world.now)
    lane.publish(sender, Publish(4, "t", Content.TEXT, b"4"), world.now)
    assert taker.bodies() == [b"1", b"2"]
    assert sender.answer(3).message.body == b"3"


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAYED, Route.JOURNAL])
def test_a_route_that_cannot_be_had_is_refused(world: World, route: Route) -> None:
    with pytest.raises(LaneUnavailable, match=f"goes by socket, not {route.value}"):
        lanes(world.hub.router).choose("send", Options(route=route))


def test_every_lane_is_shown_with_its_state_and_reason(world: World) -> None:
    shown = {view.lane: (view.open, view.reason) for view in lanes(world.hub.router).views()}
    assert set(shown) == set(Priority)
    assert shown[Priority.NORMAL] == (True, "the Unix socket")
    assert shown[Priority.HIGH] == (False, "no high here")
