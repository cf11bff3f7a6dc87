"""Both faces of the client: messages for later, also over the end of the daemon."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from daemons import Daemon
from faces import Face, MemoryDaemon

from agentd_client import errors


@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=-5))])
async def test_a_time_is_a_datetime_or_a_number(face: Face, zone: timezone | None) -> None:
    at = datetime.now(zone) + timedelta(seconds=3600)
    async with face.connect("planner", take=True) as me:
        for given in (at, at.timestamp()):
            receipt = await me.send("planner", "later", at=given)
            assert receipt.state == "stored"
            view = await me.trace(receipt.id)
            assert view.until == pytest.approx(at.timestamp(), abs=0.01)
            await me.ack(receipt.id)


async def test_it_comes_later(face: Face) -> None:
    async with face.connect("planner") as me:
        receipt = await me.send("planner", "later", delay=0.3)
        await me.send("planner", "at once")
        came = [await me.receive(timeout=60) for _ in range(2)]
        assert [message.value for message in came] == ["at once", "later"]
        assert came[1].id == receipt.id
        for message in came:
            await message.ack()


async def test_a_direct_lane_keeps_nothing_for_later(face: Face, lane: str) -> None:
    async with face.connect("planner") as me:
        with pytest.raises(errors.NotOnThisLane):
            await me.send("planner", "x", priority=lane, delay=1.0)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_it_outlives_the_daemon(own_face: Face, place: Daemon | MemoryDaemon, end: str) -> None:
    async with own_face.connect("planner", take=False) as me:
        id = (await me.send("builder", "later", delay=0.5, allow_absent=True)).id
        far = (await me.send("builder", "far", delay=3600.0)).id
    getattr(place, end)()
    place.start()
    async with own_face.connect("builder") as builder:
        message: Any = await builder.receive(timeout=60)
        assert (message.id, message.value, message.attempt) == (id, "later", 1)
        view = await builder.trace(far)
        assert view.until is not None and view.state == "stored"


@pytest.mark.parametrize("asked", [{"wait": "stored"}, {"level": "mapped"}, {"level": "synced", "wait": "stored"}])
async def test_stored_is_answered_or_refused(face: Face, asked: dict[str, Any]) -> None:
    async with face.connect("planner") as me:
        for how in ({"priority": "low"}, {"durable": True}):
            assert (await me.send("planner", "x", **how, **asked)).state == "stored"
            ticket = me.post("planner", "x", **how, **asked)
            assert (await ticket).state == "stored"
        with pytest.raises(errors.BadRequest, match="not kept"):
            await me.send("planner", "x", **asked)
        with pytest.raises(errors.NotOnThisLane):
            await me.send("planner", "x", priority="high", **asked)
        for _ in range(4):
            await (await me.receive(timeout=60)).ack()
