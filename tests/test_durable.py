"""Durable subscriptions in the hub: who gets which event, what comes back, what is a gap, what outlives a restart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from fakes import FakeSession, World

from agentd.hub import views
from agentd.hub.agents import Agent
from agentd.wire.bodies import Content
from agentd.wire.errors import (
    AgentdError,
    BadName,
    BadRequest,
    Busy,
    DiskFull,
    NoSuchMessage,
    NotPermitted,
    ShuttingDown,
)
from agentd.wire.messages import (
    LaggedEvent,
    Message,
    Options,
    Priority,
    Receipt,
    Send,
    State,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from agentd.wire.names import id_text

STORED, DELIVERED, ACKED, EXPIRED = State.STORED, State.DELIVERED, State.ACKED, State.EXPIRED


@pytest.fixture
def world() -> World:
    return World(journal=True, max_attempts=3)


def sub(world: World, name: str = "ci") -> Agent:
    return world.hub.agents.get(f"sub:{name}")


def ids(session: FakeSession) -> list[int]:
    """Of all that it was sent."""
    return [message.id for message in session.told(Message)]


def settle_all(world: World, session: FakeSession) -> None:
    for id in ids(session):
        world.ack(session, id)
    world.end_turn()
    session.clear()


def test_events_wait_for_whoever_subscribes_under_the_name(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "build:*", "ci")
    world.leave(one)
    receipts = [world.publish(publisher, "build:done", b"%d" % number) for number in range(3)]
    assert [(receipt.state, receipt.reached) for receipt in receipts] == [(STORED, 1)] * 3
    world.publish(publisher, "other", b"x")
    two = world.join("two")
    number = world.subscribe(two, "build:*", "ci")
    assert two.bodies() == [b"0", b"1", b"2"]
    details = [message.details for message in two.told(Message)]
    assert [(d.topic, d.subscription, d.event) for d in details if d] == [
        ("build:done", number, receipt.id) for receipt in receipts
    ]


def test_what_was_acked_is_gone_and_what_was_not_comes_back(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    for number in range(4):
        world.publish(publisher, "t", b"%d" % number)
    first, second, third, _ = ids(one)
    world.ack(one, first)
    world.delivered(one, second)
    world.nack(one, third)
    world.leave(one)
    two = world.join("two")
    world.subscribe(two, "t", "ci")
    assert two.mail() == [(b"1", 2), (b"2", 2), (b"3", 1)]


def test_subscribers_take_turns_and_each_settles_its_own(world: World) -> None:
    publisher, one, two = world.join("publisher"), world.join("one"), world.join("two")
    world.subscribe(one, "t", "ci")
    world.subscribe(two, "t", "ci")
    for number in range(6):
        assert world.publish(publisher, "t", b"%d" % number).reached == 1
    assert sorted(one.bodies() + two.bodies()) == [b"%d" % number for number in range(6)]
    assert len(one.bodies()) == len(two.bodies()) == 3
    settle_all(world, one)
    settle_all(world, two)
    assert sub(world).count == 0 and sub(world).tally.acked == 6


def test_each_subscription_has_a_copy_of_its_own(world: World) -> None:
    publisher, one, two, live = (world.join(name) for name in ("publisher", "one", "two", "live"))
    world.subscribe(one, "t", "a")
    world.subscribe(two, "**", "b")
    plain = world.subscribe(live, "t")
    receipt = world.publish(publisher, "t", b"x")
    assert (receipt.state, receipt.reached) == (STORED, 3)
    assert len({receipt.id, *ids(one), *ids(two)}) == 3 and ids(live) == [receipt.id]
    world.reject(one, ids(one)[0])
    assert world.state(ids(two)[0]) is STORED
    assert len(sub(world, "a").dead) == 1 and not sub(world, "b").dead
    world.hub.topics.delivered(live, plain, [receipt.id], world.now)
    assert world.state(receipt.id) is DELIVERED
    notes = [note for _, _, who, note in world.entry(receipt.id).trail if who.startswith("sub:")]
    assert len(notes) == 2 and all("kept for it as" in note for note in notes)


def test_a_window_bounds_what_a_subscriber_has_unsettled(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci", window=2)
    for number in range(5):
        world.publish(publisher, "t", b"%d" % number)
    assert one.bodies() == [b"0", b"1"]
    world.ack(one, ids(one)[0])
    assert one.bodies() == [b"0", b"1", b"2"]
    world.nack(one, ids(one)[1], after_s=60.0)
    assert one.bodies() == [b"0", b"1", b"2", b"3"]
    world.give_back(one, ids(one)[3])
    assert one.bodies()[4:] == [b"3"]
    world.hold(one, ids(one)[4], 60.0)
    assert one.bodies()[5:] == [b"4"]


def test_after_the_last_attempt_it_is_a_dead_letter_that_can_be_requeued(world: World) -> None:
    publisher = world.join("publisher")
    for _ in range(3):
        one = world.join("one")
        world.subscribe(one, "t", "ci")
        if not sub(world).count:
            world.publish(publisher, "t", b"x")
        world.delivered(one, ids(one)[0])
        world.leave(one, "killed")
    (letter,) = sub(world).dead.values()
    assert views.dead(world.hub, 1, "sub:ci", 10).letters[0].to == "sub:ci"
    one = world.join("one")
    world.subscribe(one, "t", "ci")
    world.hub.inboxes.requeue(letter, world.now, "me")
    assert one.mail() == [(b"x", 1)]


def test_a_hold_outlives_the_subscriber_and_another_may_ack_it(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    world.publish(publisher, "t", b"x")
    (id,) = ids(one)
    world.hold(one, id, 60.0)
    world.leave(one)
    two = world.join("two")
    world.subscribe(two, "t", "ci")
    assert two.bodies() == []
    assert world.ack(two, id) == 1
    assert world.state(id) is ACKED


def test_who_does_not_subscribe_settles_nothing(world: World) -> None:
    publisher, one, other = world.join("publisher"), world.join("one"), world.join("other")
    world.subscribe(one, "t", "ci")
    world.subscribe(other, "t", "else")
    world.publish(publisher, "t", b"x")
    for verb in (world.ack, world.nack, world.reject):
        with pytest.raises(NoSuchMessage, match="addressed to sub:ci"):
            verb(other, ids(one)[0])
    with pytest.raises(BadRequest, match="is an event"):
        world.reply(one, ids(one)[0])
    mine = ids(other)[0]
    with pytest.raises(NoSuchMessage):
        world.ack(other, ids(one)[0], mine)  # what can be done is
    assert world.state(mine) is ACKED


def test_another_pattern_under_the_same_name_is_refused_and_names_both(world: World) -> None:
    session = world.join("one")
    world.subscribe(session, "build:*", "ci")
    with pytest.raises(BadRequest, match=r"ci is to build:\*, not to test:\*"):
        world.subscribe(session, "test:*", "ci")
    assert len(session.cursors) == 1


@pytest.mark.parametrize("name", ["", "sub:ci", "a b", "agentd", "anonymous.a"])
def test_names_that_may_not_be(world: World, name: str) -> None:
    with pytest.raises(BadName):
        world.subscribe(world.join("one"), "t", name)
    assert set(world.hub.agents.by_name) == {"one"}


def test_what_happens_in_the_daemon_is_not_kept(world: World) -> None:
    session = world.join("one")
    with pytest.raises(BadRequest):
        world.subscribe(session, "agentd:*", "ci")
    world.subscribe(session, "**", "ci")
    world.leave(world.join("two"))
    assert sub(world).count == 0


def test_nobody_can_be_a_subscription_or_send_to_one(world: World) -> None:
    session = world.join("one")
    world.subscribe(session, "t", "ci")
    calls: list[Any] = [
        lambda: world.join("sub:ci"),
        lambda: world.send(session, "sub:ci", b"x"),
        lambda: world.send(session, "sub:ci", b"x", allow_absent=True),
        lambda: world.send(session, "sub:ci", b"x", durable=True),
        lambda: world.request(session, "sub:ci", b"x"),
    ]
    for call in calls:
        with pytest.raises(AgentdError):
            call()
    assert world.hub.router.send_some(session, [Send(1, "sub:ci", Content.BYTES, b"", None)], 0, 1, world.now) == 0
    with pytest.raises(AgentdError):
        verb = Send(1, "sub:ci", Content.BYTES, b"", Options(priority=Priority.CRITICAL))
        world.hub.router.prepare(session, verb, verb.options or Options(), world.now)
    assert sub(world).count == 0


def test_a_full_one_refuses_by_name_and_its_subscriber_is_told_of_the_gap() -> None:
    world = World(journal=True, inbox__max_messages=2)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    world.leave(one)
    live = world.join("live")
    plain = world.subscribe(live, "t")
    refused = [world.publish(publisher, "t", b"%d" % number).refused for number in range(4)]
    assert refused == [[], [], ["sub:ci"], ["sub:ci"]]
    world.hub.topics.delivered(live, plain, ids(live), world.now)
    assert "2 sends refused" in views.agents(world.hub, 1, world.now).agents[0].trouble
    world.subscribe(one := world.join("one"), "t", "ci")
    assert [type(message) for message in one.everything()][-3:] == [Message, Message, LaggedEvent]
    assert one.bodies() == [b"0", b"1"] and one.told(LaggedEvent)[0].missed == 2
    settle_all(world, one)
    world.publish(publisher, "t", b"x")
    assert not one.told(LaggedEvent)


def test_a_full_disk_makes_a_gap_that_is_told_at_once_where_somebody_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    number = world.subscribe(one, "t", "ci")

    def full(body: bytes, *, wait: bool = False) -> int:
        raise DiskFull("There is no room")

    with monkeypatch.context() as patch:
        patch.setattr(world.journal, "append", full)
        receipt = world.publish(publisher, "t", b"x")
    assert (receipt.state, receipt.reached, receipt.refused) == (State.ACCEPTED, 0, ["sub:ci"])
    assert world.state(receipt.id) is EXPIRED
    assert [(lagged.subscription, lagged.missed) for lagged in one.told(LaggedEvent)] == [(number, 1)]


def test_while_the_disk_is_behind_a_publisher_is_refused_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, one, live = world.join("publisher"), world.join("one"), world.join("live")
    world.subscribe(one, "t", "a")
    world.subscribe(one, "t", "b")
    world.subscribe(live, "t")
    waited: list[bool] = []

    def behind(body: bytes, *, wait: bool = False) -> int:
        waited.append(wait)
        if not wait and len(waited) == 1:
            raise Busy("The disk is slower")
        return append(body)

    assert world.journal is not None
    append = world.journal.append
    next_id = world.hub.receipts.next_id
    with monkeypatch.context() as patch:
        patch.setattr(world.journal, "append", behind)
        with pytest.raises(Busy):
            world.publish(publisher, "t", b"x")
        assert world.hub.receipts.next_id == next_id and not one.bodies() and not live.bodies()
        assert world.publish(publisher, "t", b"x").reached == 3
    assert waited == [False, False, True]
    assert not one.told(LaggedEvent)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_it_outlives_the_daemon_with_its_events(world: World, how: str) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    for number in range(3):
        world.publish(publisher, "t", b"%d" % number)
    first, second, _ = ids(one)
    world.ack(one, first)
    world.nack(one, second, after_s=60.0)
    world.end_turn()
    getattr(world, how)()
    assert world.hub.durables.matching("t") == (sub(world),)
    assert world.publish(world.join("publisher"), "t", b"3").state is STORED
    two = world.join("two")
    world.subscribe(two, "t", "ci")
    assert two.mail() == [(b"2", 1), (b"3", 1)]
    with pytest.raises(BadRequest):
        world.subscribe(two, "u", "ci")
    world.after(61)
    assert two.mail()[2:] == [(b"1", 2)]


def test_a_gap_outlives_the_daemon_too() -> None:
    for how, missed in (("restart", 2), ("crash", -1)):
        world = World(journal=True, inbox__max_messages=1)
        publisher, one = world.join("publisher"), world.join("one")
        world.subscribe(one, "t", "ci")
        world.leave(one)
        for number in range(3):
            world.publish(publisher, "t", b"%d" % number)
        getattr(world, how)()
        one = world.join("one")
        world.subscribe(one, "t", "ci")
        assert [lagged.missed for lagged in one.told(LaggedEvent)] == [missed]
        assert one.bodies() == [b"0"]
        world.crash()
        world.subscribe(one := world.join("one"), "t", "ci")
        assert not one.told(LaggedEvent), "told once"


def test_it_is_known_until_somebody_ends_it(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    with pytest.raises(NotPermitted, match="subscribed to by one"):
        world.hub.unsubscribe(one, Unsubscribe(1, 0, "ci"), world.now)
    world.reject(one, world.publish(publisher, "t", b"dead").id + 1)
    world.leave(one)
    world.publish(publisher, "t", b"x")
    waiting = next(iter(sub(world).waiting))
    with pytest.raises(NotPermitted, match="agentctl unsubscribe ci"):
        world.hub.agents.forget("sub:ci")
    world.after(100 * 86400.0)
    assert world.hub.unsubscribe(publisher, Unsubscribe(1, 0, "ci"), world.now) == 1  # the event's time is over
    assert world.story(waiting)[-1] is EXPIRED if waiting in world.hub.receipts.entries else True
    assert world.publish(publisher, "t", b"x").reached == 0
    with pytest.raises(BadRequest, match="no durable subscription ci"):
        world.hub.unsubscribe(publisher, Unsubscribe(1, 0, "ci"), world.now)
    world.crash()
    assert "sub:ci" not in world.hub.agents.by_name


def test_events_have_a_limit_of_age_which_a_restart_does_not_move() -> None:
    world = World(journal=True, topics__keep_s=100.0)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    world.leave(one)
    world.publish(publisher, "t", b"old")
    world.after(60)
    world.publish(publisher, "t", b"new")
    world.crash()
    world.after(41)
    two = world.join("two")
    world.subscribe(two, "t", "ci")
    assert two.bodies() == [b"new"]


def test_two_cursors_of_one_session_settle_what_each_holds(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    first, second = world.subscribe(one, "t", "ci", window=1), world.subscribe(one, "t", "ci", window=1)
    for number in range(4):
        world.publish(publisher, "t", b"%d" % number)
    assert [m.details.subscription for m in one.told(Message) if m.details] == [first, second]
    world.ack(one, *reversed(ids(one)))
    assert sorted(one.bodies()) == [b"0", b"1", b"2", b"3"]
    world.hub.unsubscribe(one, Unsubscribe(1, first), world.now)
    assert len(sub(world).takers) == 1


def test_a_stalled_subscriber_is_sent_nothing_and_goes_on_later(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    one.stalled = True
    world.publish(publisher, "t", b"x")
    assert one.bodies() == []
    assert "does not read its socket" in views.agents(world.hub, 1, world.now).agents[0].trouble
    one.stalled = False
    for taker in one.all_takers():
        world.hub.inboxes.pump(taker.agent)
    assert one.bodies() == [b"x"]


def past(world: World) -> tuple[FakeSession, list[int]]:
    """Somebody had four events, one of them on another topic, and is done with some; when each was published."""
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "**", "other")
    found = []
    for number in range(4):
        found.append(world.publish(publisher, "x" if number == 2 else "t", b"%d" % number).id)
        world.after(60.0)
    world.ack(one, *ids(one)[:3])
    world.end_turn()
    return publisher, found


@pytest.mark.parametrize(
    ("start", "bodies"),
    [("all", [b"0", b"1", b"3"]), ("-130s", [b"3"]), ("-3m", [b"1", b"3"]), ("-1d", [b"0", b"1", b"3"]), ("-1s", [])],
)
def test_a_new_one_begins_with_what_is_on_record(world: World, start: str, bodies: list[bytes]) -> None:
    publisher, events = past(world)
    two = world.join("two")
    world.subscribe(two, "t", "ci", start=start)
    world.publish(publisher, "t", b"live")
    world.hub.inboxes.pause(sub(world), on=False)
    assert not two.bodies(), "nothing before all of the past is there"
    world.after(0.1)
    world.end_turn()
    assert two.bodies() == [*bodies, b"live"] and ids(two) == sorted(ids(two))
    found = [message.details.event for message in two.told(Message) if message.details]
    assert found[:-1] == [events[int(body)] for body in bodies]
    assert [sorted(world.state(id) for id in ids(two))] == [[STORED] * (len(bodies) + 1)]


def test_a_start_can_be_an_event_which_is_the_first(world: World) -> None:
    _, events = past(world)
    world.subscribe(two := world.join("two"), "**", "ci", start=id_text(events[1]))
    world.after(0.1)
    assert two.bodies() == [b"1", b"2", b"3"]


def test_what_several_had_comes_once_and_what_all_is_recorded_of_too() -> None:
    world = World(journal=True)
    world.hub.receipts.journal.is_all_recorded = True
    publisher, one = world.join("publisher"), world.join("one")
    world.publish(publisher, "t", b"before")
    for name in ("a", "b"):
        world.subscribe(one, "t", name)
    world.publish(publisher, "t", b"x")
    world.subscribe(two := world.join("two"), "t", "ci", start="all")
    world.after(0.1)
    assert two.bodies() == [b"before", b"x"]


def test_the_past_takes_half_an_inbox_and_the_rest_is_a_gap_before_what_comes_now() -> None:
    world = World(journal=True, inbox__max_messages=6, max_events=100)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "other")
    for number in range(5):
        world.publish(publisher, "t", b"%d" % number)
    world.subscribe(two := world.join("two"), "t", "ci", start="all")
    settle_all(world, one)
    world.publish(publisher, "t", b"live")
    world.after(0.1)
    told = [message for message in two.everything() if isinstance(message, LaggedEvent | Message)]
    kinds = [message.missed if isinstance(message, LaggedEvent) else message.body for message in told]
    assert kinds == [b"0", b"1", b"2", 2, b"live"]


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_daemon_that_dies_while_one_is_made_leaves_nothing_of_it(world: World, how: str) -> None:
    publisher, _ = past(world)
    world.subscribe(world.join("two"), "t", "ci", start="all")
    world.publish(publisher, "t", b"live")
    getattr(world, how)()
    assert "sub:ci" not in world.hub.agents.by_name
    world.subscribe(two := world.join("two"), "t", "ci", start="all")
    world.after(0.1)
    assert two.bodies() == [b"0", b"1", b"3", b"live"]
    world.crash()
    world.subscribe(two := world.join("two"), "t", "ci")
    assert two.bodies() == [b"0", b"1", b"3", b"live"], "once, also from the journal that has both"


def test_the_past_is_put_in_some_at_a_time() -> None:
    world = World(journal=True)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "other")
    for number in range(100):
        world.publish(publisher, "t", b"%3d" % number + bytes(1000))
    world.subscribe(two := world.join("two"), "t", "ci", start="all")
    counts = []
    while sub(world).paused:
        world.after(0.01)
        counts.append(sub(world).count)
    steps = [after - before for before, after in pairwise([0, *counts])]
    assert max(steps) < 30 and sum(steps) == 100
    assert [int(body[:3]) for body in two.bodies()] == list(range(100))


def test_one_that_is_paused_while_it_is_made_stays_so(world: World) -> None:
    past(world)
    world.subscribe(two := world.join("two"), "t", "ci", start="all")
    for on in (True, False, True):
        world.hub.inboxes.pause(sub(world), on=on)
    world.after(0.1)
    assert sub(world).paused and sub(world).count == 3 and not two.bodies()
    world.hub.inboxes.pause(sub(world), on=False)
    assert two.bodies() == [b"0", b"1", b"3"]


def test_one_that_is_ended_or_left_while_it_is_made(world: World) -> None:
    past(world)
    two = world.join("two")
    number = world.subscribe(two, "t", "ci", start="all")
    world.hub.unsubscribe(two, Unsubscribe(1, number), world.now)
    world.hub.unsubscribe(two, Unsubscribe(1, 0, "ci"), world.now)
    world.after(0.1)
    assert "sub:ci" not in world.hub.agents.by_name
    number = world.subscribe(two, "t", "ci", start="all")
    world.leave(two)
    world.after(0.1)
    assert sub(world).count == 3 and not sub(world).paused


def test_what_can_not_be_read_or_kept_is_a_gap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    past(world)
    assert world.journal is not None
    with monkeypatch.context() as patch:
        patch.setattr(world.journal, "look_back", lambda take, then: then("it is broken"))
        world.subscribe(two := world.join("two"), "t", "ci", start="all")
        world.after(0.1)
    assert [lagged.missed for lagged in two.told(LaggedEvent)] == [-1] and not two.bodies()

    def full(body: bytes, *, wait: bool = False, level: object = None) -> int:
        raise DiskFull("There is no room")

    with monkeypatch.context() as patch:
        patch.setattr(world.journal, "append", full)
        world.subscribe(three := world.join("three"), "t", "more", start="all")
        world.after(0.1)
    assert [lagged.missed for lagged in three.told(LaggedEvent)] == [3] and not three.bodies()


def test_a_stuck_subscriber_is_named_and_its_inbox_is_bounded() -> None:
    world = World(journal=True, inbox__max_messages=3)
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci", window=1)
    refused = [world.publish(publisher, "t", b"%d" % number).refused for number in range(5)]
    assert refused == [[], [], [], ["sub:ci"], ["sub:ci"]]
    world.after(61.0)
    row = views.agents(world.hub, 1, world.now).agents[0]
    assert (row.name, row.live, row.pid) == ("sub:ci", True, one.pid)
    assert "takes nothing: oldest waits 61 s" in row.trouble and "inbox full" in row.trouble


def test_a_resumed_one_says_that_its_start_is_passed_over(world: World) -> None:
    one = world.join("one")
    world.subscribe(one, "t", "ci")
    world.hub.subscribe(one, Subscribe(99, "t", "-5m", "ci"), world.now)
    (told,) = [subscribed for subscribed in one.told(Subscribed) if subscribed.cid == 99]
    assert "goes on where it was" in told.note


def test_none_is_made_while_the_daemon_stops(world: World) -> None:
    session = world.join("one")
    world.hub.router.draining = True
    with pytest.raises(ShuttingDown):
        world.subscribe(session, "t", "ci")
    assert world.subscribe(session, "t")


def test_an_answer_comes_when_the_journal_has_the_copies(world: World) -> None:
    publisher, one = world.join("publisher"), world.join("one")
    world.subscribe(one, "t", "ci")
    book, world.journal = world.journal, None  # nothing is told of what is written
    with pytest.raises(ValueError, match="not enough"):
        world.publish(publisher, "t", b"x")
    assert one.bodies() == [b"x"]
    world.journal = book
    world.end_turn()
    (receipt,) = publisher.told(Receipt)
    assert receipt.state is STORED
