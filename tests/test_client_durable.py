"""Conformance of the client: durable subscriptions, on both faces, in a daemon and in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from daemons import Daemon
from faces import Face, MemoryDaemon, until

from agentd_client import State, errors

LONG = 30.0


async def waiting(client: Any, name: str = "sub:ci") -> tuple[int, int, int]:
    """What waits, is held, is dead."""
    (row,) = [row for row in (await client.agents()).agents if row.name == name]
    return row.waiting, row.held, row.dead


async def test_asking_for_the_next_is_done_with_the_last(face: Face) -> None:
    async with face.connect("boss") as boss, face.connect() as one:
        async with one.subscribe("build:*", name="ci") as events:
            receipts = [await boss.publish("build:done", number) for number in range(3)]
            assert [(receipt.state, receipt.reached) for receipt in receipts] == [(State.STORED, 1)] * 3
            for receipt in receipts[:2]:
                event = await anext(events)
                assert (event.topic, event.event, event.sender) == ("build:done", receipt.id, "boss")
            assert event.value == 1
            assert await waiting(boss) == (1, 1, 0)
        await until(lambda: _is(waiting(boss), (1, 0, 0)), "for the last to be acked on leaving")
        async with one.subscribe("build:*", name="ci") as events:
            assert ((event := await anext(events)).value, event.attempt) == (2, 1)


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


async def test_an_exception_brings_it_again_and_an_interrupt_counts_no_attempt(face: Face) -> None:
    async with face.connect("boss") as boss, face.connect() as one:
        for error, attempt in ((ValueError("no"), 1), (asyncio.CancelledError(), 2), (None, 2)):
            try:
                async with one.subscribe("t", name="ci") as events:
                    if attempt == 1:
                        await boss.publish("t", "x")
                    event = await anext(events)
                    assert event.attempt == attempt
                    if error is not None:
                        raise error
            except (ValueError, asyncio.CancelledError):
                pass
        await until(lambda: _is(waiting(boss), (0, 0, 0)))
        states = [(step.state.value, step.note) for step in (await boss.trace(event.id)).transitions]
        assert ("stored", "ValueError: no") in states and states[-1][0] == "acked"


async def test_its_own_verbs_settle_an_event_too(face: Face) -> None:
    async with face.connect("boss") as boss, face.connect() as one:
        async with one.subscribe("t", name="ci", window=4) as events:
            for number in range(4):
                await boss.publish("t", number)
            await (await anext(events)).ack()
            await (await anext(events)).nack("later", after=600)
            await (await anext(events)).reject("never")
            event = await anext(events)
            with pytest.raises(errors.BadRequest, match="Events take no reply"):
                await event.reply("x")
        await until(lambda: _is(waiting(boss), (1, 0, 1)))


async def test_who_share_a_name_share_the_events(face: Face) -> None:
    async with (
        face.connect("boss") as boss,
        face.connect("a") as a,
        face.connect("b") as b,
        a.subscribe("t", name="ci") as first,
        b.subscribe("t", name="ci") as second,
    ):
        for number in range(4):
            await boss.publish("t", number)
        got = [(await anext(events)).value for events in (first, second, first, second)]
        assert sorted(got) == [0, 1, 2, 3]


async def test_ending_one_gives_up_what_waits(face: Face) -> None:
    async with face.connect("boss") as boss, face.connect() as one:
        async with one.subscribe("t", name="ci"):
            with pytest.raises(errors.NotPermitted):
                await boss.unsubscribe("ci")
        for number in range(3):
            await boss.publish("t", number)
        assert await boss.unsubscribe("ci") == 3
        with pytest.raises(errors.BadRequest, match="no durable subscription ci"):
            await boss.unsubscribe("ci")


async def test_what_can_not_be_is_refused(face: Face) -> None:
    async with face.connect() as me:
        with pytest.raises(errors.BadRequest):
            async with me.subscribe("t", start="all"):
                pytest.fail("events that were not kept")
        with pytest.raises(errors.BadName):
            async with me.subscribe("t", name="a b"):
                pytest.fail("no name")
        async with me.subscribe("t", name="ci") as events:
            assert events.note == ""
        async with me.subscribe("t", start="-5m", name="ci") as events:
            assert "goes on where it was" in events.note


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_is_ridden_out_without_a_gap(own_face: Face, place: Daemon | MemoryDaemon, how: str) -> None:
    async with own_face.connect("boss") as boss, own_face.connect() as one:
        async with one.subscribe("t", name="ci", window=8) as events:
            for number in range(4):
                assert (await boss.publish("t", number)).state is State.STORED
            seen = [(await anext(events)).value, (event := await anext(events)).value]
            assert seen == [0, 1]
            await asyncio.to_thread(getattr(place, how))
            await asyncio.to_thread(place.start)
            await boss.publish("t", 4, timeout=LONG)
            while seen[-1] != 4:
                event = await anext(events)
                seen.append(event.value)
            assert sorted(set(seen)) == [0, 1, 2, 3, 4]
            fresh = [value for place, value in enumerate(seen) if value not in seen[:place]]
            assert fresh == [0, 1, 2, 3, 4], "at least once, in order"
        await until(lambda: _is(waiting(boss), (0, 0, 0)))


async def test_events_wait_across_a_kill_while_nobody_is_there(own_face: Face, place: Daemon | MemoryDaemon) -> None:
    async with own_face.connect() as one:
        async with one.subscribe("t", name="ci"):
            pass
        for number in range(3):
            assert (await one.publish("t", number)).state is State.STORED
    await asyncio.to_thread(place.kill)
    await asyncio.to_thread(place.start)
    async with own_face.connect() as two, two.subscribe("t", name="ci") as events:
        assert [(await anext(events)).value for _ in range(3)] == [0, 1, 2]
