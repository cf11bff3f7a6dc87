"""Conformance: `choose` says what becomes of a message before there is one. Each case is rehearsed, then done."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from parties import Party
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Agents,
    ChoiceView,
    Choose,
    Error,
    Kind,
    Level,
    Message,
    Options,
    Pause,
    Priority,
    Publish,
    Request,
    Route,
    Send,
    State,
    Stats,
    Status,
)
from agentd.wire.names import id_text

ROUTES = (None, *Route)


def foretold(party: Party, to: str, size: int, kind: Kind, options: Options | None) -> Any:
    """Lane and route, or the error, as choose says it."""
    view = party.ask(Choose(0, to, size, kind, options))
    assert isinstance(view, ChoiceView)
    if view.refusal is None:
        assert view.row and view.reason and view.unless
        return view.lane, view.route
    assert view.route is None and not view.unless and view.reason == view.refusal.message
    return view.refusal.code, view.refusal.message, view.refusal.hint, view.refusal.retryable


def happened(party: Party, taker: Party, to: str, body: bytes, kind: Kind, options: Options | None) -> Any:
    """The same, by doing it."""
    verbs: dict[Kind, Any] = {
        Kind.SEND: Send(0, to, Content.TEXT, body, options),
        Kind.REQUEST: Request(0, to, Content.TEXT, body, 600.0, options),
        Kind.PUBLISH: Publish(0, to, Content.TEXT, body, options),
    }
    cid = party.say(verbs[kind])
    party.ask(Status(0))  # then it was accepted or refused
    error = next((one for one in party.unread if isinstance(one, Error) and one.cid == cid), None)
    if error is not None:
        party.unread.remove(error)
        return error.code, error.message, error.hint, error.retryable
    if kind is not Kind.REQUEST:
        answer = party.answer(cid)
        return answer.lane, answer.route
    asked = taker.expect(Message, body=body)
    taker.reply(asked.id, "yes")
    party.answer(cid)
    return asked.lane, Route.SOCKET


def parties(world: World) -> tuple[Party, Party]:
    """Who sends, and who is live; `gone` is absent."""
    taker = world.join("taker", credit=1000)
    world.join("gone", take=True).leave()
    return world.join("planner"), taker


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("priority", Priority)
def test_what_is_foretold_happens(world: World, priority: Priority, kind: Kind) -> None:
    sender, taker = parties(world)
    cases = itertools.product((None, True), ROUTES, ("taker", "gone", "nobody"), (False, True))
    for number, (durable, route, to, allow_absent) in enumerate(cases):
        options = Options(priority, durable, route=route, allow_absent=allow_absent)
        to = f"{to}-{number}" if to == "nobody" else to  # whom nobody has got to know by the case before
        body = b"%d" % number
        told = foretold(sender, to, len(body), kind, options)
        assert told == happened(sender, taker, to, body, kind, options), (durable, route, to, allow_absent)


@pytest.mark.parametrize(
    "options",
    [
        None,
        Options(),
        Options(wait=State.DELIVERED),
        Options(wait=State.DEAD),
        Options(ttl=600.0),
        Options(key="k"),
        Options(headers={"a": "b" * 70_000}),
        Options(headers={"a": "b"}),
        Options(hops=33),
        Options(delay=600.0),
        Options(level=Level.MAPPED),
        Options(Priority.LOW, level=Level.SYNCED, wait=State.STORED),
        Options(wait=State.STORED, delay=600.0),
        Options(Priority.HIGH, level=Level.MAPPED),
        Options(Priority.LOW, at=1e9),
        Options(at=1e11),
        Options(delay=1.0, at=1e9),
        Options(Priority.HIGH, delay=1.0),
        Options(Priority.CRITICAL, key="k"),
        Options(Priority.CRITICAL, hops=33),
        Options(Priority.CRITICAL, headers={"a": "b"}, ttl=600.0),
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_what_else_is_asked_for_is_had_or_refused_alike(world: World, kind: Kind, options: Options | None) -> None:
    sender, taker = parties(world)
    for to in ("taker", "gone", "nobody", "no name"):
        told = foretold(sender, to, 1, kind, options)
        assert told == happened(sender, taker, to, b"x", kind, options), to


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.CRITICAL])
def test_a_body_that_is_too_large_is_so_before_it_travels(own_world: World, kind: Kind, priority: Priority) -> None:
    sender, taker = parties(own_world)
    for size in (16 << 20, (16 << 20) + 1):
        body = b"x" * size
        told = foretold(sender, "taker", size, kind, Options(priority))
        if size > 16 << 20 and (kind is Kind.SEND or priority is Priority.NORMAL):
            assert told[0] == "too_large"
        if kind is Kind.SEND:
            assert told == happened(sender, taker, "taker", body, kind, Options(priority))


def test_nothing_has_changed(world: World) -> None:
    sender, taker = parties(world)
    taker.so_far(Message)

    def everything() -> Any:
        agents = sender.ask(Agents(0)).agents
        stats = sender.ask(Stats(0, agents=True))
        return (
            [(row.name, row.live, row.waiting, row.held, row.refused, row.limited) for row in agents],
            [(flow.name, flow.sent, flow.refused, flow.depth) for flow in (*stats.lanes, *stats.agents)],
            (stats.accepted, stats.published, stats.refused, stats.traced),
        )

    before = everything()
    for kind, priority, to in itertools.product(Kind, Priority, ("taker", "gone", "nobody")):
        for options in (None, Options(priority, allow_absent=True), Options(priority, durable=True)):
            foretold(sender, to, 5, kind, options)
    assert everything() == before
    assert taker.so_far(Message) == []


def test_a_daemon_that_stops_says_so(own_world: World) -> None:
    sender, taker = parties(own_world)
    sender.send("taker", "is held")
    taker.arrives()
    with own_world.stopping(sender):
        for kind in Kind:
            assert foretold(sender, "taker", 1, kind, None)[0] == "shutting_down"


def test_what_a_sender_would_wait_for_is_no_refusal(world: World) -> None:
    sender = world.join("planner")
    world.join("gone", take=True).leave()
    for number in range(1000):  # worlds.LIMITS
        sender.start_send("gone", number)
    sender.so_far(Message)
    view = sender.ask(Choose(0, "gone", 1))
    assert (view.row, view.refusal) == ("kept", None)
    assert view.unless[1:] == ["gone's inbox has no room for this now; send waits for some"]
    assert sender.refused_send("gone").code == "backpressure"


def test_a_pause_and_a_used_key_are_said(world: World) -> None:
    sender, _ = parties(world)
    sender.ask(Pause(0, "taker"))
    assert sender.ask(Choose(0, "taker", 1)).unless[1].startswith("taker is paused now; it is given this when")
    urgent = sender.ask(Choose(0, "taker", 1, options=Options(Priority.CRITICAL)))
    assert urgent.unless[1] == "taker is paused now; this waits until it is resumed"
    sender.ask(Pause(0, "taker", on=False))
    id = sender.send("taker", "x", key="once")
    assert sender.ask(Choose(0, "taker", 2, options=Options(key="once"))).refusal.code == "bad_request"
    (_, used) = sender.ask(Choose(0, "taker", 1, options=Options(key="once"))).unless
    assert used == f"this key was accepted before; the answer is about message {id_text(id)}"


def test_only_who_has_joined_may_ask(world: World) -> None:
    assert world.connect().refusal(Choose(0, "taker", 1)).code == "bad_request"
