"""Agents: names, who may take their mail, and when they are forgotten."""

from __future__ import annotations

import pytest
from fakes import FakeSession, World

from agentd.wire.errors import (
    BadName,
    BadRequest,
    LimitReached,
    NameInUse,
    NoSuchAgent,
    NotPermitted,
    ShuttingDown,
)
from agentd.wire.messages import Error, Join, State

DAY_S = 86400.0


@pytest.fixture
def world() -> World:
    return World()


def test_a_second_session_cannot_take_the_mail_but_may_send_under_the_name(world: World) -> None:
    first = world.join("planner")
    with pytest.raises(NameInUse, match=f"taken by pid {first.pid}"):
        world.join("planner")
    child = world.join("planner", take=False)
    assert child.name == "planner"
    assert world.hub.agents.get("planner").takers == [first]


def test_a_refused_join_leaves_nothing_behind(world: World) -> None:
    world.join("planner")
    second = FakeSession()
    with pytest.raises(NameInUse):
        world.hub.join(second, Join(1, "planner", True), world.now)
    assert second not in world.hub.sessions
    assert len(world.hub.agents.get("planner").sessions) == 1
    world.hub.join(second, Join(2, "other", True), world.now)
    assert second.name == "other"


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_a_name_is_shared_only_if_all_its_sessions_share_it(world: World, first: bool, second: bool) -> None:
    world.join("team", share=first)
    with pytest.raises(NameInUse):
        world.join("team", share=second)
    world.join("all", share=True)
    world.join("all", share=True)
    assert len(world.hub.agents.get("all").takers) == 2


def test_a_session_that_takes_over_gets_the_mail_and_the_other_is_told(world: World) -> None:
    sender, old = world.join("sender"), world.join("planner", credit=2)
    seen, _ = world.send(sender, "planner", b"1"), world.send(sender, "planner", b"2")
    world.delivered(old, seen)
    new = world.join("planner", replace=True, credit=5)
    assert new.mail() == [(b"1", 2), (b"2", 1)]
    (told,) = old.told(Error)
    assert (told.cid, told.code) == (0, "name_in_use")
    assert f"taken over by pid {new.pid}" in told.message
    world.send(old, "planner", b"3")  # it may go on sending
    assert new.bodies() == [b"1", b"2", b"3"]
    world.leave(old)
    assert world.hub.agents.get("planner").live


def test_taking_over_ends_no_request_that_waits(world: World) -> None:
    asker, old = world.join("asker"), world.join("planner", credit=1)
    out, waiting = world.request(asker, "planner", b"1"), world.request(asker, "planner", b"2")
    new = world.join("planner", replace=True, credit=5)
    assert asker.told(Error) == []
    for cid, id in ((out, 1 << 32), (waiting, (1 << 32) + 1)):
        world.reply(new, id, b"yes")
        assert asker.answer(cid).message.body == b"yes"
    assert old.held == {}


def test_taking_over_together_displaces_only_who_does_not_share(world: World) -> None:
    shares = world.join("team", share=True)
    also = world.join("team", share=True, replace=True)
    assert world.hub.agents.get("team").takers == [shares, also]
    alone = world.join("team", replace=True)
    assert world.hub.agents.get("team").takers == [alone]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 256, "anonymous.x", "a:b", "a\n"])
def test_a_bad_name_is_refused(world: World, name: str) -> None:
    with pytest.raises(BadName):
        world.join(name)
    with pytest.raises(BadName):
        world.send(world.join(), name, allow_absent=True)
    assert world.hub.agents.named == 0


def test_nobody_can_pass_for_an_agent_without_a_name_or_leave_it_mail(world: World) -> None:
    anonymous = world.join()
    with pytest.raises(BadName):
        world.join(anonymous.name)
    with pytest.raises(BadName):
        world.send(world.join("sender"), anonymous.name, allow_absent=True)
    assert anonymous.agent.count == 0


def test_one_connection_is_one_session(world: World) -> None:
    session = world.join("planner")
    with pytest.raises(BadRequest, match="has joined as planner already"):
        world.hub.join(session, Join(2, "other", True), world.now)


def test_who_has_no_name_has_no_inbox_and_is_forgotten_when_it_leaves(world: World) -> None:
    with pytest.raises(BadRequest):
        world.hub.join(FakeSession(), Join(1, None, True), world.now)
    one, two = world.join(), world.join()
    assert one.name != two.name
    with pytest.raises(NoSuchAgent):
        world.send(two, one.name)
    world.leave(one)
    world.leave(two)
    assert not world.hub.agents.by_name
    assert not world.hub.sessions


def test_an_unknown_name_is_an_error_with_the_nearest_known_one(world: World) -> None:
    sender, _ = world.join("sender"), world.join("builder")
    with pytest.raises(NoSuchAgent, match="No agent buildr is known") as refused:
        world.send(sender, "buildr")
    assert "Did you mean builder?" in refused.value.hint


def test_mail_for_an_unknown_name_is_kept_if_its_sender_allows_it(world: World) -> None:
    sender = world.join("sender")
    id = world.send(sender, "future", b"x", allow_absent=True)
    assert world.state(id) is State.ACCEPTED
    assert world.join("future", credit=1).bodies() == [b"x"]


def test_names_are_bounded_and_forgetting_one_makes_room() -> None:
    world = World(max_names=2)
    world.join("a")
    b = world.join("b")
    with pytest.raises(LimitReached, match="2 names are known"):
        world.join("c")
    with pytest.raises(LimitReached):
        world.send(b, "c", allow_absent=True)
    world.join()  # who has no name takes no room
    world.leave(b)
    world.hub.agents.forget("b")
    world.join("c")
    assert world.hub.agents.named == 2


def test_only_a_name_that_is_neither_live_nor_has_mail_can_be_forgotten(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker")
    with pytest.raises(NotPermitted, match="taker is live"):
        world.hub.agents.forget("taker")
    id = world.send(sender, "taker")
    world.leave(taker)
    with pytest.raises(NotPermitted, match="has 1 message"):
        world.hub.agents.forget("taker")
    world.ack(world.join("taker", take=False), id)
    for session in list(world.hub.agents.get("taker").sessions):
        world.hub.leave(session, world.now, "gone")
    world.hub.agents.forget("taker")
    with pytest.raises(NoSuchAgent):
        world.hub.agents.forget("taker")
    assert id not in world.hub.receipts.entries


def test_a_name_is_forgotten_thirty_days_after_it_was_last_used(world: World) -> None:
    world.leave(world.join("a"))
    world.after(20 * DAY_S)
    world.leave(world.join("a", take=False))
    world.after(29 * DAY_S)
    assert world.hub.agents.get("a").name == "a"
    world.after(1 * DAY_S)
    assert not world.hub.agents.by_name
    assert len(world.hub.deadlines) == 0


def test_a_name_with_mail_is_not_forgotten(world: World) -> None:
    sender = world.join("sender")
    world.leave(world.join("a"))
    id = world.send(sender, "a")
    world.after(100 * DAY_S)
    assert world.state(id) is State.ACCEPTED
    assert world.hub.agents.get("a").count == 1


def test_mail_that_expired_counts_as_use_of_the_name(world: World) -> None:
    sender = world.join("sender")
    world.leave(world.join("a"))
    world.after(29 * DAY_S)
    world.send(sender, "a", ttl=60)
    world.after(60)
    world.after(29 * DAY_S)
    assert world.hub.agents.get("a").count == 0
    world.after(1 * DAY_S)
    with pytest.raises(NoSuchAgent):
        world.hub.agents.get("a")


def test_forgotten_names_leave_no_deadline(world: World) -> None:
    for _ in range(10):
        world.leave(world.join("a"))
        world.hub.agents.forget("a")
    assert len(world.hub.deadlines) == 0


def test_while_stopping_nobody_new_may_take_mail(world: World) -> None:
    world.hub.router.draining = True
    with pytest.raises(ShuttingDown):
        world.join("a")
    world.join("a", take=False)


def test_leaving_twice_is_harmless(world: World) -> None:
    session = world.join("a")
    world.leave(session)
    world.leave(session)
    assert world.hub.agents.get("a").sessions == []
