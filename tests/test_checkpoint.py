"""What outlives an orderly stop, and what does not."""

from __future__ import annotations

import pytest
from fakes import WALL_OFFSET, World

from agentd.hub import checkpoint
from agentd.hub.notices import notice
from agentd.wire.errors import BadRequest, NoSuchAgent, NoSuchMessage
from agentd.wire.messages import Message, Notice, State

ACCEPTED, STORED, DELIVERED, ACKED = State.ACCEPTED, State.STORED, State.DELIVERED, State.ACKED
EXPIRED, DEAD = State.EXPIRED, State.DEAD
DAY_S = 86400.0


@pytest.fixture
def world() -> World:
    return World(journal=True)


def test_names_survive_and_their_age_goes_on(world: World) -> None:
    world.leave(world.join("a"))
    world.join()
    for _ in range(29):  # a machine that is switched off every night
        world.after(DAY_S)
        world.restart()
    assert set(world.hub.agents.by_name) == {"a"}
    assert world.hub.agents.get("a").seen == 1000.0
    world.after(DAY_S)
    with pytest.raises(NoSuchAgent):
        world.hub.agents.get("a")


def test_mail_survives_with_its_id_attempts_and_order(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    first, second = world.send(sender, "taker", b"1"), world.send(sender, "taker", b"2")
    world.delivered(taker, first)
    world.nack(taker, first)
    world.restart()
    taker = world.join("taker", credit=9)
    assert [(m.id, m.body, m.attempt, m.sender) for m in taker.told(Message)] == [
        (first, b"1", 2, "sender"),
        (second, b"2", 1, "sender"),
    ]
    assert world.story(first) == [ACCEPTED, DELIVERED, ACCEPTED, STORED]
    assert world.ack(taker, first, second) == 2


def test_what_became_of_it_outlives_a_crash(world: World) -> None:
    """Also without a checkpoint: attempts, the order, a delay, an ack."""
    sender = world.join("sender")
    world.leave(world.join("taker"))
    nacked, later, acked, waiting = (world.send(sender, "taker", body) for body in (b"n", b"l", b"a", b"w"))
    taker = world.join("taker", credit=4)
    world.delivered(taker, nacked, later, acked)
    world.nack(taker, nacked)
    world.nack(taker, later, after_s=60)
    world.ack(taker, acked)
    world.end_turn()
    world.crash()
    taker = world.join("taker", credit=9)
    assert [(m.id, m.attempt) for m in taker.told(Message)] == [(nacked, 2), (waiting, 1)]
    world.after(60)
    assert [(m.id, m.attempt) for m in taker.told(Message)][2:] == [(later, 2)]
    assert world.story(acked) == [ACCEPTED, STORED, DELIVERED, ACKED]


def test_a_held_message_stays_held_and_can_still_be_acked(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.hold(taker, id, 600)
    world.restart()
    assert world.story(id) == [ACCEPTED, DELIVERED]
    assert not world.join("taker", credit=1).told(Message)
    assert world.ack(world.join("taker", take=False), id) == 1


def test_a_hold_ends_in_its_time_and_counts_an_attempt(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.hold(taker, id, 600)
    world.restart()
    taker = world.join("taker", credit=1)
    world.after(599)
    assert not taker.told(Message)
    world.after(1)
    assert [(m.id, m.attempt) for m in taker.told(Message)] == [(id, 2)]


def test_a_delay_goes_on(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.nack(taker, id, after_s=60)
    world.restart()
    taker = world.join("taker", credit=1)
    assert not taker.told(Message)
    world.after(60)
    assert [(m.id, m.attempt) for m in taker.told(Message)] == [(id, 2)]


def test_a_key_is_accepted_once_over_a_restart(world: World) -> None:
    world.join("taker")
    id = world.send(world.join("sender"), "taker", b"x", key="k")
    world.restart()
    assert world.send(world.join("sender"), "taker", b"x", key="k") == id


def test_no_id_is_used_twice(world: World) -> None:
    sender, _ = world.join("sender"), world.join("taker")
    id = world.send(sender, "taker")
    world.restart()
    assert world.send(world.join("sender"), "taker") == id + 1


def test_mail_that_expired_while_nothing_ran_ends_as_expired(world: World) -> None:
    sender, _ = world.join("sender"), world.join("taker")
    gone, later = world.send(sender, "taker", ttl=60), world.send(sender, "taker", ttl=600)
    world.now += 30
    world.restart()
    assert world.state(gone) is STORED
    world.now += 60
    world.restart()
    world.after(0)
    assert world.state(gone) is EXPIRED
    world.after(400)
    assert world.state(later) is STORED
    world.after(200)
    assert world.state(later) is EXPIRED


def test_dead_letters_survive_with_their_reason(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x")
    world.reject(taker, id, "hopeless")
    world.restart()
    entry = world.entry(id)
    assert entry.state is DEAD
    assert world.hub.dead.reason(entry) == "hopeless"
    world.hub.inboxes.requeue(entry, world.now, "me")
    assert world.join("taker", credit=1).bodies() == [b"x"]


def test_a_request_becomes_a_message_whose_reply_goes_to_the_inbox(world: World) -> None:
    asker, taker = world.join("asker"), world.join("taker", credit=1)
    world.request(asker, "taker", timeout=600)
    (message,) = taker.told(Message)
    world.hold(taker, message.id, 600)  # taken on by an agent that comes and goes
    world.leave(taker)
    world.restart()
    taker, asker = world.join("taker", credit=1), world.join("asker", credit=1)
    details = world.entry(message.id).message.details
    assert details is not None and details.reply_by is None
    world.reply(taker, message.id, b"done")
    assert asker.bodies() == [b"done"]


def test_a_request_that_nobody_was_sent_does_not_outlive_its_asker(world: World) -> None:
    asker, _ = world.join("asker"), world.join("taker")
    world.request(asker, "taker")
    world.restart()
    assert world.hub.agents.get("taker").count == 0


def test_what_ended_and_who_had_no_name_are_forgotten(world: World) -> None:
    sender, taker = world.join(), world.join("taker", credit=1)
    id = world.send(sender, "taker")
    world.ack(taker, id)
    world.restart()
    with pytest.raises(NoSuchMessage):
        world.entry(id)
    assert set(world.hub.agents.by_name) == {"taker"}


def test_times_are_kept_as_those_of_the_wall(world: World) -> None:
    sender, _ = world.join("sender"), world.join("taker")
    id = world.send(sender, "taker")
    for session in list(world.hub.sessions):
        world.hub.leave(session, world.now, "stop")
    (placed,) = checkpoint.collect(world.hub, 1).mail
    assert placed.transitions[0].at == 1000.0 + WALL_OFFSET
    world.restart()
    assert world.entry(id).trail[0][1] == pytest.approx(1000.0)


def test_room_is_charged_as_before(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    world.send(sender, "taker", bytes(100))
    world.reject(taker, world.send(sender, "taker", bytes(10)) - 1)
    before = taker.agent
    world.restart()
    after = world.hub.agents.get("taker")
    assert (after.count, after.bytes, after.dead_bytes) == (before.count, before.bytes, before.dead_bytes)
    assert world.hub.inboxes.bytes == after.bytes


def test_a_file_that_was_cut_short_or_changed_is_refused_whole(world: World) -> None:
    sender, _ = world.join("sender"), world.join("taker")
    world.send(sender, "taker", b"x")
    for session in list(world.hub.sessions):
        world.hub.leave(session, world.now, "stop")
    file = checkpoint.encode(checkpoint.collect(world.hub, 1))
    assert checkpoint.decode(file).mail[0].position
    for length in range(len(file)):
        with pytest.raises(BadRequest):
            checkpoint.decode(file[:length])
    for bit in range(8 * len(file)):
        changed = bytearray(file)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadRequest):
            checkpoint.decode(bytes(changed))


def test_whatever_is_read_was_expected(world: World) -> None:
    """Some at a time: what a disk brings ahead has to fit into memory."""
    positions = list(range(1, 2502))
    placed = [checkpoint.Placed(position, 1, []) for position in positions]
    data = checkpoint.encode(checkpoint.Checkpoint(checkpoint.FORMAT, 3000, 1, [], placed[:2400], placed[2400:]))
    expected: list[int] = []
    read: list[int] = []

    def expect(some: list[int]) -> None:
        assert read == expected and len(some) <= 1000
        expected.extend(some)

    def damaged(position: int) -> None:
        read.append(position)
        assert position in expected

    assert checkpoint.recover(data, damaged, iter([]), expect).missing == len(positions)
    assert read == expected == positions


def test_what_was_announced_stays_announced(world: World) -> None:
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    on_its_way, waiting = world.send(sender, "taker", b"1"), world.send(sender, "taker", b"2")
    assert news(world) == 1
    world.leave(taker)
    world.restart()
    assert world.hub.agents.get("taker").announced == waiting > on_its_way
    assert news(world) == 1  # the one that its taker never saw
    world.restart()
    assert news(world) == 0


def news(world: World) -> int:
    """How many messages for taker a hook announces that tells somebody."""
    hook = world.join()
    fresh = notice(world.hub, hook, Notice(0, "taker")).fresh
    hook.announced = None  # as `leave` does
    world.leave(hook)
    return fresh


def test_an_answer_that_is_kept_is_in_it_while_its_asker_has_not_acked_it() -> None:
    """Also of an asker that takes no mail: what its responder was told is stored comes back."""
    world = World(journal=True)
    asker, responder = world.join("asker", take=False), world.join("responder", credit=1)
    world.request(asker, "responder", b"?")
    (asked,) = responder.told(Message)
    id = world.reply(responder, asked.id, b"!", durable=True)
    assert world.state(id) is State.STORED
    assert [placed.position for placed in checkpoint.collect(world.hub, 99).mail] == [world.entry(id).position]
