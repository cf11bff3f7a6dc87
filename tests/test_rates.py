"""Rates: what the bucket gives, what it costs, who is named, and for how long."""

from __future__ import annotations

import pytest
from fakes import FakeSession, World
from hypothesis import given
from hypothesis import strategies as st

from agentd.hub import views
from agentd.hub.rates import LATELY_S, Bucket, Lately
from agentd.wire.errors import Backpressure, NoSuchAgent, RateLimited
from agentd.wire.messages import AgentView, State

RATES = st.floats(0.01, 1e6)
BURSTS = st.integers(1, 1000)
STEPS = st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(0, 50)), min_size=1, max_size=40)


def take(bucket: Bucket, now: float) -> bool:
    """Take one if there is room."""
    if not bucket.has_room(now):
        return False
    bucket.spend()
    return True


# The bucket by itself.


@given(RATES, BURSTS, STEPS)
def test_in_no_span_of_time_does_a_bucket_give_more_than_its_burst_and_its_rate(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    now = 1000.0
    bucket = Bucket(rate, burst, now)
    given_at: list[float] = []
    for pause, count in steps:
        now += pause
        given_at += [now for _ in range(count) if take(bucket, now)]
        assert bucket.room <= burst
    for first, start in enumerate(given_at):
        for last in range(first, len(given_at)):
            assert last - first + 1 <= burst + rate * (given_at[last] - start) + 1e-3


@given(RATES, BURSTS, st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20))
def test_a_bucket_gives_all_that_it_may(rate: float, burst: int, pauses: list[float]) -> None:
    """Whoever is refused has had the whole burst, or all that came in since it had it; and there is room after the wait
    that it is told."""
    now, left = 1000.0, float(burst)
    bucket = Bucket(rate, burst, now)
    for pause in pauses:
        now += pause
        left = min(float(burst), left + pause * rate)
        count = 0
        while take(bucket, now):
            count += 1
        assert left - 1 - 1e-3 <= count <= left + 1e-3
        left -= count
        later = Bucket(rate, burst, now)
        later.room = bucket.room
        assert later.has_room(now + bucket.wait_s() * 1.000001)


@given(st.floats(0.0, 1e9), st.integers(1, 10_000))
def test_without_a_rate_there_is_no_limit(now: float, count: int) -> None:
    bucket = Bucket(0.0, 1, now)
    assert all(take(bucket, now) for _ in range(count))


def test_after_a_quiet_minute_trouble_is_over_and_counted_anew() -> None:
    lately = Lately()
    assert lately.seen(0.0) == 0
    for at in (1.0, 50.0, 100.0):
        lately.note(at)
    assert lately.seen(100.0 + LATELY_S) == 3
    assert lately.seen(100.1 + LATELY_S) == 0
    lately.note(1000.0)
    assert lately.seen(1000.0) == 1


# An agent over its rate.


@pytest.fixture
def world() -> World:
    return World(messages_per_s=10.0, messages_burst=5, events_per_s=2.0, events_burst=3, max_topics=2)


def row(world: World, name: str) -> AgentView:
    (found,) = [row for row in views.agents(world.hub, 1, world.now).agents if row.name == name]
    return found


def test_a_burst_is_accepted_and_then_as_much_as_the_rate(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1000)
    for _ in range(5):
        world.send(sender, "taker")
    with pytest.raises(RateLimited, match="sender sends more than 10 messages a second, after a burst of 5") as caught:
        world.send(sender, "taker")
    assert caught.value.retry_after == pytest.approx(0.1)
    assert len(taker.mail()) == 5
    world.after(0.301)
    for _ in range(3):
        world.send(sender, "taker")
    with pytest.raises(RateLimited):
        world.send(sender, "taker")


def test_every_way_of_saying_something_new_costs_the_same(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1000)
    id = world.send(taker, "sender")
    world.send(sender, "taker")
    world.send(sender, "taker", ttl=5.0)
    world.request(sender, "taker")
    world.publish(sender, "t")
    world.reply(sender, id)
    for one_more in (
        lambda: world.send(sender, "taker"),
        lambda: world.send(sender, "taker", ttl=5.0),
        lambda: world.request(sender, "taker"),
        lambda: world.publish(sender, "t"),
        lambda: world.reply(sender, id),
    ):
        with pytest.raises(RateLimited):
            one_more()
    before = len(world.hub.receipts.entries)
    assert before == 6  # nothing is half done


def test_what_settles_costs_nothing(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1000)
    ids = [world.send(sender, "taker") for _ in range(5)]
    for _ in range(20):
        world.ack(taker, *ids)
        world.hub.inboxes.receive(taker, 1)
    world.send(taker, "sender")


def test_a_refusal_costs_as_much_as_a_message(world: World) -> None:
    sender = world.join("sender")
    for _ in range(5):
        with pytest.raises(NoSuchAgent):
            world.send(sender, "nobody")
    with pytest.raises(RateLimited):
        world.send(sender, "nobody")


def test_all_sessions_of_an_agent_share_its_rate_and_nobody_elses(world: World) -> None:
    first, second, other = world.join("sender"), world.join("sender", take=False), world.join("other")
    for _ in range(3):
        world.send(first, "other")
    for _ in range(2):
        world.send(second, "other")
    for session in (first, second):
        with pytest.raises(RateLimited):
            world.send(session, "other")
    world.leave(second)
    with pytest.raises(RateLimited):
        world.send(world.join("sender", take=False), "other")  # coming again makes no room
    world.send(other, "sender")


def test_what_a_dead_process_said_is_done_and_its_agent_owes_for_it(world: World) -> None:
    dying, taker = world.join("sender"), world.join("taker", credit=1000)
    dying.gone = True
    for _ in range(25):
        world.send(dying, "taker")
    for number in range(25):
        world.send(dying, "taker", ttl=60) if number % 2 else world.publish(dying, "t")
    assert len(taker.mail()) == 37
    world.leave(dying)
    again = world.join("sender")
    world.after(4.4)
    with pytest.raises(RateLimited):
        world.send(again, "taker")
    world.after(0.2)
    world.send(again, "taker")


# Topics.


def test_a_topic_has_a_rate_of_its_own(world: World) -> None:
    world = World(events_per_s=2.0, events_burst=3)
    sender = world.join("sender")
    for _ in range(3):
        world.publish(sender, "fast")
    with pytest.raises(RateLimited, match="sender publishes more than 2 events a second on fast, after a burst of 3"):
        world.publish(sender, "fast")
    world.publish(sender, "slow")
    world.publish(world.join("other"), "fast")
    world.after(0.5)
    world.publish(sender, "fast")


def test_changing_the_topic_is_no_way_around_the_rate() -> None:
    world = World(events_per_s=1.0, events_burst=3, max_topics=10)
    sender = world.join("sender")
    published = 0
    for number in range(1000):
        try:
            world.publish(sender, f"t{number}")
            published += 1
        except RateLimited:
            pass
    assert published == 10 + 3
    assert sender.agent.topic_buckets is not None and len(sender.agent.topic_buckets.by_topic) == 10
    world.after(60.0)  # all of them are full again, and make room
    world.publish(sender, "new")
    assert list(sender.agent.topic_buckets.by_topic) == ["new"]


def test_an_event_over_the_rate_of_its_topic_takes_nothing_from_the_agents(world: World) -> None:
    sender, _ = world.join("sender"), world.join("taker", credit=9)
    for _ in range(3):
        world.publish(sender, "t")
    for _ in range(5):
        with pytest.raises(RateLimited):
            world.publish(sender, "t")
    world.send(sender, "taker")
    world.send(sender, "taker")


# Who is named.


def overrun(world: World, session: FakeSession) -> None:
    with pytest.raises(RateLimited):
        for _ in range(100):
            world.publish(session, "t")


def test_who_is_over_its_rate_is_shown_first_for_a_minute(world: World) -> None:
    world.join("a-quiet-one")
    sick = world.join("b-sick", credit=9)
    runaway = world.join("z-runaway")
    world.reject(sick, world.send(runaway, "b-sick"), "no")
    overrun(world, runaway)
    world.after(3.0)
    rows = views.agents(world.hub, 1, world.now).agents
    assert [row.name for row in rows] == ["z-runaway", "b-sick", "a-quiet-one"]
    assert (rows[0].trouble, rows[0].limited) == ("over its rate 3 s ago", 1)
    assert (rows[2].trouble, rows[2].limited) == ("", 0)
    world.after(LATELY_S)
    assert row(world, "z-runaway").trouble == "" and row(world, "z-runaway").limited == 0


def test_a_runaway_without_a_name_is_shown_too(world: World) -> None:
    world.join("quiet")
    nobody = world.join()
    assert [row.name for row in views.agents(world.hub, 1, world.now).agents] == ["quiet"]
    overrun(world, nobody)
    assert [row.name for row in views.agents(world.hub, 1, world.now).agents] == [nobody.name, "quiet"]


def test_refusals_of_a_full_inbox_are_trouble_for_a_minute() -> None:
    world = World(inbox__max_messages=2)
    sender, taker = world.join("sender"), world.join("taker", credit=9)
    ids = [world.send(sender, "taker") for _ in range(2)]
    for _ in range(4):
        with pytest.raises(Backpressure):
            world.send(sender, "taker")
    world.after(5.0)
    assert row(world, "taker").trouble == "inbox full, 4 sends refused, the last 5 s ago"
    assert row(world, "taker").refused == 4
    world.ack(taker, *ids)
    assert world.state(ids[0]) is State.ACKED
    world.after(LATELY_S)
    assert row(world, "taker").trouble == "" and row(world, "taker").refused == 0


def test_what_an_agent_has_under_way_is_shown() -> None:
    world = World()
    asker, responder = world.join("asker"), world.join("responder", credit=9)
    child = world.join("asker", take=False)
    for session in (asker, child, child):
        world.request(session, "responder")
        world.subscribe(session, "t")
    world.subscribe(responder, "t")
    assert (row(world, "asker").requests, row(world, "asker").subscriptions) == (3, 3)
    assert (row(world, "responder").requests, row(world, "responder").subscriptions) == (0, 1)
