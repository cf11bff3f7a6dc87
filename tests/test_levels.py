"""How surely a message is kept before its sender is told `stored`, message by message; and waiting for that."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from fakes import World
from test_journal_turns import Place, Slow, disk, places

from agentd.hub.asked import check_direct
from agentd.wire.bodies import Content
from agentd.wire.errors import AgentdError, BadRequest, NotOnThisLane
from agentd.wire.messages import Accepted, Level, Options, Priority, Send, State

__all__ = ["disk", "places"]  # fixtures

ACCEPTED, STORED, ACKED = State.ACCEPTED, State.STORED, State.ACKED
MAPPED, SYNCED = Level.MAPPED, Level.SYNCED


def send(place: Place, level: Level | None, **options: Any) -> int:
    cid = place.sender.next_cid()
    verb = Send(cid, "sink", Content.BYTES, b"x", Options(Priority.LOW, allow_absent=True, level=level, **options))
    place.world.hub.router.send(place.sender, verb, place.world.now)
    return cid


@pytest.mark.parametrize("setting", Level)
async def test_each_is_told_when_its_own_level_is_reached(
    places: Callable[..., Place], disk: Slow, setting: Level
) -> None:
    place = places(level=setting.value)
    synced, mapped, default = send(place, SYNCED), send(place, MAPPED), send(place, None)
    assert place.told() == []
    place.end_turn()
    early = [mapped, default] if setting is MAPPED else [mapped]
    assert place.told() == early
    disk.end()
    assert sorted(place.told()) == sorted([*early, synced] if setting is MAPPED else [mapped, synced, default])


async def test_what_is_to_be_synced_is_though_all_others_need_it_not(places: Callable[..., Place], disk: Slow) -> None:
    """Also one that comes while a sync is under way that does not have it: nothing else has to come for the next."""
    place = places(level="mapped")
    send(place, MAPPED)
    place.end_turn()
    await disk.begins()
    cid = send(place, SYNCED)
    place.end_turn()
    disk.end()
    assert cid not in place.told()
    disk.end()
    assert cid in place.told()


async def test_several_in_one_breath_have_one_answer(places: Callable[..., Place], disk: Slow) -> None:
    place = places()
    send(place, None)  # now somebody of that name is known
    place.end_turn()
    disk.end()
    place.sender.clear()
    options = Options(Priority.LOW, level=MAPPED)
    first = place.sender.next_cid()
    verbs = [Send(first + n, "sink", Content.BYTES, b"x", options) for n in range(10)]
    assert place.world.hub.router.send_some(place.sender, verbs, 0, 10, place.world.now) == 10
    place.end_turn()
    (answer,) = place.sender.told(Accepted)
    assert (answer.cid, answer.count, answer.state) == (first, 10, STORED)


@pytest.mark.parametrize("how", [{"priority": Priority.LOW}, {"durable": True}, {"delay": 60.0}, {"to": "absent"}])
@pytest.mark.parametrize("asked", [{"level": MAPPED}, {"wait": STORED}, {"level": SYNCED, "wait": STORED}])
def test_what_is_kept_has_a_level_and_may_be_waited_for(how: dict[str, Any], asked: dict[str, Any]) -> None:
    world = World(journal=True)
    sender = world.join("sender")
    world.join("taker")
    world.leave(world.join("absent"))
    world.send(sender, **({"to": "taker"} | how | asked))
    (answer,) = sender.told(Accepted)
    assert answer.state is STORED


@pytest.mark.parametrize("asked", [{"level": MAPPED}, {"level": SYNCED}, {"wait": STORED}])
def test_what_is_not_kept_has_none(asked: dict[str, Any]) -> None:
    world = World(journal=True)
    sender, taker = world.join("sender"), world.join("taker", credit=1)
    id = world.send(sender, "taker", b"x", key="k")
    world.request(sender, "taker")
    asking: list[tuple[type[AgentdError], Callable[[], object]]] = [
        (BadRequest, lambda: world.send(sender, "taker", **asked)),
        (BadRequest, lambda: world.send(sender, "taker", b"x", key="k", **asked)),
        (BadRequest, lambda: world.reply(taker, id, **asked)),
        (BadRequest, lambda: world.request(sender, "taker", **asked)),
        (BadRequest, lambda: world.publish(sender, "a:b", **asked)),
        (NotOnThisLane, lambda: check_direct(Options(Priority.HIGH, **asked))),
    ]
    for error, ask in asking:
        with pytest.raises(error):
            ask()
    assert world.state(id) is ACCEPTED


async def test_a_key_that_is_said_again_is_answered_when_it_is_stored(places: Callable[..., Place], disk: Slow) -> None:
    place = places()
    first, again = send(place, None, key="k"), send(place, None, key="k", wait=STORED)
    place.end_turn()
    assert place.told() == []
    disk.end()
    assert place.told() == [first, again]
    later = send(place, None, key="k", wait=STORED)
    assert place.told() == [first, again, later]


async def test_a_key_that_is_said_again_has_the_level_it_asks_for(places: Callable[..., Place], disk: Slow) -> None:
    """That the kernel has it is not what the second wants to know."""
    place = places()
    first = send(place, MAPPED, key="k")
    place.end_turn()
    assert place.told() == [first]
    again, default = send(place, SYNCED, key="k", wait=STORED), send(place, None, key="k", wait=STORED)
    place.end_turn()
    assert place.told() == [first]
    disk.end()
    assert place.told() == [first, again, default]


async def test_once_nothing_more_is_stored_a_key_that_is_said_again_is_refused(
    places: Callable[..., Place], disk: Slow
) -> None:
    place = places()
    send(place, None, key="k")
    place.end_turn()
    disk.end(OSError(errno.EIO, "broken"))
    again = send(place, None, key="k", wait=STORED)
    assert place.sender.error(again).code == "journal_failed"


async def test_what_the_last_start_left_is_stored_at_every_level(places: Callable[..., Place], disk: Slow) -> None:
    place = places()
    send(place, SYNCED, key="k")
    place.end_turn()
    disk.end()
    place.journal.close(place.world.hub, place.world.now)
    place.journal.failed, disk.begun = "closed", 0
    place = places()
    again = send(place, SYNCED, key="k", wait=STORED)
    assert place.told() == [again]
