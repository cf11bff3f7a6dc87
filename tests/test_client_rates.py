"""The client over its rate: send and publish wait for room until their time is over, a post says how it ended."""

from __future__ import annotations

import asyncio

import pytest
from daemons import Daemon
from faces import Face, MemoryDaemon

from agentd_client import State, errors

BURST = 20


@pytest.fixture(autouse=True)
def slow(place: Daemon | MemoryDaemon) -> None:
    """Ten messages a second after the burst."""
    place.config(rate={"messages_per_s": 10, "messages_burst": BURST})


async def test_send_waits_for_room(own_face: Face) -> None:
    async with own_face.connect("planner") as me:
        for number in range(BURST + 5):
            assert (await me.send("planner", number)).state is State.ACCEPTED
        assert (await me.look("planner")).total == BURST + 5
        (row,) = (await me.agents()).agents
        assert row.limited >= 1 and row.trouble.startswith("over its rate")


async def test_publish_waits_for_room(own_face: Face) -> None:
    async with own_face.connect("planner") as me:
        for number in range(BURST + 5):
            assert (await me.publish("t", number)).reached == 0


async def test_a_send_without_time_to_wait_says_why(own_face: Face) -> None:
    async with own_face.connect("planner") as me:
        for number in range(BURST):
            await me.send("planner", number)
        with pytest.raises(errors.RateLimited, match="planner sends more than 10 messages a second") as caught:
            await me.send("planner", "one more", timeout=0.05)
        assert caught.value.retry_after is not None and caught.value.retry_after > 0
        assert caught.value.exit_status == 75


async def test_of_many_posts_one_is_refused_and_the_others_wait(own_face: Face) -> None:
    async with own_face.connect("planner") as me:
        tickets = [me.post("planner", number) for number in range(BURST + 5)]
        ends = await asyncio.gather(*(_end(ticket) for ticket in tickets))
        assert sorted(map(str, ends)) == ["accepted"] * (BURST + 4) + ["rate_limited"]
        assert (await me.look("planner")).total == BURST + 4


async def _end(ticket: object) -> str:
    try:
        return (await ticket).state  # type: ignore[misc, no-any-return]
    except errors.RateLimited as error:
        return error.code


async def test_others_do_not_wait(own_face: Face) -> None:
    async with own_face.connect("runaway") as runaway, own_face.connect("quiet") as quiet:
        tickets = [runaway.post("runaway", number) for number in range(BURST + 5)]
        await tickets[0]
        for number in range(10):
            await quiet.send("quiet", number, timeout=30)
            message = await quiet.receive(timeout=30)
            assert message.value == number
            await message.ack()
        rows = (await quiet.agents()).agents
        assert [row.name for row in rows if row.trouble] == ["runaway"]
        assert sorted([await _end(ticket) for ticket in tickets])[-1] == "rate_limited"
