"""Conformance: who takes whose mail. Each behaviour holds in the hub, and through the daemon's socket on both faces."""

from __future__ import annotations

import pytest
from parties import value_of
from worlds import World

from agentd.wire.bodies import Content
from agentd.wire.messages import (
    Agents,
    Error,
    Forget,
    Hello,
    Join,
    Leave,
    Message,
    Receive,
    Reject,
    Send,
    Status,
    Subscribe,
)


def test_nothing_is_said_before_hello(world: World) -> None:
    party = world.stranger()
    party.tell(Status(7))
    error = party.expect(Error, cid=7)
    assert error.code == "bad_request" and "hello" in error.message
    with pytest.raises(EOFError):
        party.expect(Message)


def test_another_version_is_told_so_in_a_sentence(world: World) -> None:
    party = world.stranger()
    party.tell(Hello(99, "future 3"))
    error = party.expect(Error, cid=0)
    assert error.code == "version_mismatch"
    assert "future 3 speaks protocol version 99" in error.message and error.hint


def test_looking_needs_no_name_and_talking_does(world: World) -> None:
    party = world.connect()
    assert party.ask(Agents(0)).agents == []
    error = party.refused_send("builder", b"x")
    assert error.code == "bad_request" and "needs an agent" in error.message


def test_an_agent_takes_the_mail_of_its_name(world: World) -> None:
    builder, planner = world.join("builder", take=True), world.join("planner")
    id = planner.send("builder", "hello")
    message = builder.take()
    assert (message.id, message.sender, value_of(message), message.attempt) == (id, "planner", "hello", 1)


def test_who_joins_without_take_only_sends(world: World) -> None:
    taker, child = world.join("builder", take=True), world.join("builder")
    assert child.refusal(Receive(0, 1)).code == "not_permitted"
    child.send("builder", "from a child of mine")
    assert taker.take().sender == "builder"


def test_a_second_taker_is_refused_by_name_with_the_first_ones_process(world: World) -> None:
    world.join("builder", take=True)
    error = world.connect().refusal(Join(0, "builder", True))
    assert error.code == "name_in_use"
    assert "builder" in error.message and "pid " in error.message and "--replace" in error.hint


def test_after_a_refused_join_the_connection_can_join_under_another_name(world: World) -> None:
    world.join("builder", take=True)
    party = world.connect()
    assert party.refusal(Join(0, "builder", True)).code == "name_in_use"
    assert party.ask(Join(0, "builder-2", True)).name == "builder-2"


def test_agents_that_share_take_turns(world: World) -> None:
    first = world.join("worker", take=True, share=True, credit=10)
    second = world.join("worker", take=True, share=True, credit=10)
    boss = world.join("boss")
    for number in range(6):
        boss.send("worker", number)
    assert [value_of(first.arrives()) for _ in range(3)] == [0, 2, 4]
    assert [value_of(second.arrives()) for _ in range(3)] == [1, 3, 5]


def test_sharing_needs_the_consent_of_both(world: World) -> None:
    world.join("alone", take=True)
    assert world.connect().refusal(Join(0, "alone", True, True)).code == "name_in_use"
    world.join("together", take=True, share=True)
    assert world.connect().refusal(Join(0, "together", True, False)).code == "name_in_use"


def test_who_replaces_takes_over_and_the_other_is_told(world: World) -> None:
    old = world.join("builder", take=True)
    planner = world.join("planner")
    id = planner.send("builder", "work")
    assert old.take().id == id
    new = world.join("builder", take=True, replace=True)
    error = old.expect(Error, cid=0)
    assert error.code == "name_in_use" and "taken over" in error.message
    assert old.refusal(Receive(0, 1)).code == "not_permitted"
    again = new.take()
    assert (again.id, again.attempt) == (id, 2)  # the old one had seen it
    old.send("planner", "I still send")


def test_what_the_old_taker_had_not_seen_costs_no_attempt(world: World) -> None:
    old = world.join("builder", credit=1)
    world.join("planner").send("builder", "work")
    old.arrives()
    assert world.join("builder", take=True, replace=True).take().attempt == 1


def test_those_who_share_are_not_displaced_by_one_more(world: World) -> None:
    first = world.join("worker", take=True, share=True)
    world.join("worker", take=True, share=True, replace=True)
    assert first.so_far(Error) == []


def test_an_anonymous_agent_sends_and_can_be_answered_while_it_waits_only(world: World) -> None:
    builder = world.join("builder", take=True)
    nobody = world.join()
    assert nobody.name.startswith("anonymous.")
    call = nobody.request("builder", "may I?")
    asked = builder.take()
    assert asked.sender == nobody.name
    builder.reply(asked.id, "yes")
    assert value_of(nobody.answer(call).message) == "yes"
    nobody.send("builder", "thanks")
    thanks = builder.take()
    with pytest.raises(Exception, match="absent"):
        builder.reply(thanks.id, "welcome")
    error = builder.refused_send(nobody.name, "welcome")
    assert error.code == "no_such_agent" and "no name of its own" in error.message


def test_nobody_takes_mail_without_a_name(world: World) -> None:
    assert world.connect().refusal(Join(0, None, True)).code == "bad_request"


def test_the_names_of_anonymous_agents_are_reserved(world: World) -> None:
    assert world.connect().refusal(Join(0, "anonymous.x")).code == "bad_name"


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 255, "..", "-"])
def test_names_that_may_be(world: World, name: str) -> None:
    assert world.join(name, take=True).name == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a:b", "x" * 256, "a\n", "*"])
def test_names_that_may_not_be(world: World, name: str) -> None:
    assert world.connect().refusal(Join(0, name)).code == "bad_name"


def test_one_connection_is_one_agent(world: World) -> None:
    party = world.join("builder")
    assert party.refusal(Join(0, "planner")).code == "bad_request"


def test_an_unknown_recipient_is_an_error_with_the_nearest_name(world: World) -> None:
    world.join("builder")
    error = world.join("planner").refused_send("bulider", b"x")
    assert error.code == "no_such_agent" and not error.retryable
    assert "bulider" in error.message and "Did you mean builder?" in error.hint


def test_allow_absent_leaves_mail_for_one_who_was_never_there(world: World) -> None:
    planner = world.join("planner")
    run = planner.accepted(planner.start_send("newcomer", "welcome", allow_absent=True))
    assert "absent" in run.note
    assert value_of(world.join("newcomer", take=True).take()) == "welcome"


def test_a_known_name_keeps_its_mail_while_nobody_takes_it(world: World) -> None:
    planner = world.join("planner")
    builder = world.join("builder", take=True)
    builder.leave()
    for number in range(3):
        planner.send("builder", number)
    assert [mail.state for mail in planner.inbox("builder").messages] == ["stored"] * 3
    back = world.join("builder", take=True)
    assert [value_of(back.take()) for _ in range(3)] == [0, 1, 2]


def test_leaving_gives_back_what_was_held(world: World) -> None:
    planner = world.join("planner")
    first = world.join("builder", take=True)
    id = planner.send("builder", "work")
    assert first.take().id == id
    first.leave()
    assert planner.story(id) == ["accepted", "delivered", "accepted"]
    assert world.join("builder", take=True).take().attempt == 2


def test_what_is_said_after_leaving_is_not_done(world: World) -> None:
    observer = world.join("observer")
    party = world.connect()
    party.tell(Leave(1), Join(2, "ghost", True), Subscribe(3, "**"), Send(4, "observer", Content.TEXT, b"boo"))
    party.answer(1)
    assert [row.name for row in observer.ask(Agents(0)).agents] == ["observer"]
    assert observer.publish("any").reached == 0


def test_the_agents_in_trouble_come_first(world: World) -> None:
    world.join("aaa", take=True)
    sick, planner = world.join("sick", take=True), world.join("planner")
    planner.send("sick", "hopeless")
    sick.ask(Reject(0, sick.take().id, "no"))
    rows = planner.ask(Agents(0)).agents
    assert rows[0].name == "sick" and "1 dead letter" in rows[0].trouble
    assert [row.live for row in rows] == [True, True, False]


def test_a_name_is_forgotten_at_its_users_wish_and_only_without_mail(world: World) -> None:
    planner = world.join("planner")
    assert planner.refusal(Forget(0, "planner")).code == "not_permitted"
    planner.send("later", b"x", allow_absent=True)
    assert planner.refusal(Forget(0, "later")).code == "not_permitted"
    owner = world.join("later", take=True)
    owner.ack(owner.take().id)
    owner.leave()
    planner.ask(Forget(0, "later"))
    assert planner.refused_send("later", b"x").code == "no_such_agent"
    assert planner.refusal(Forget(0, "later")).code == "no_such_agent"


def test_no_more_names_than_the_limit(world: World) -> None:
    planner = world.join("n0")
    for number in range(1, 60):
        planner.send(f"n{number}", b"x", allow_absent=True)
    error = world.connect().refusal(Join(0, "one-more"))
    assert error.code == "limit_reached" and error.retryable
    assert planner.refused_send("one-more", b"x", allow_absent=True).code == "limit_reached"
    world.join()  # who has no name needs none


def test_a_first_message_that_is_refused_makes_no_name_known(world: World) -> None:
    planner = world.join("planner")
    assert planner.refused_send("big", "x" * ((16 << 20) + 1), allow_absent=True).code == "too_large"
    assert planner.refused_send("big", b"x", allow_absent=True, hops=99).code == "too_many_hops"
    assert [row.name for row in planner.ask(Agents(0)).agents] == ["planner"]
