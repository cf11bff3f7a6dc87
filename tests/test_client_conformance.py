"""Conformance of the client: what its users are promised, on both faces, against a daemon that runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from faces import Face, until

from agentd_client import State, errors

LONG = 30.0  # for what must come; nothing waits that long when all is well


async def states(me: Any, id: str) -> list[str]:
    """What a message went through."""
    return [step.state.value for step in (await me.trace(id)).transitions]


# Send and receive.


async def test_a_message_is_sent_received_and_acked(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        receipt = await planner.send("builder", {"pr": 7}, headers={"a": "b"})
        assert (receipt.state, receipt.lane, receipt.route) == (State.ACCEPTED, "normal", "socket")
        message = await builder.receive(timeout=LONG)
        assert (message.id, message.sender, message.value) == (receipt.id, "planner", {"pr": 7})
        assert (message.attempt, message.headers, message.topic, message.re) == (1, {"a": "b"}, None, None)
        await until(lambda: _is(planner, receipt.id, "delivered"))
        await message.ack()
        await message.ack()  # twice does no harm
        assert await builder.receive(timeout=0) is None
        assert await states(planner, receipt.id) == ["accepted", "delivered", "acked"]


async def _is(me: Any, id: str, state: str) -> bool:
    return (await states(me, id))[-1] == state


@pytest.mark.parametrize("wanted", ["accepted", "delivered", "acked"])
async def test_send_answers_the_state_that_was_waited_for(face: Face, wanted: str) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        sending = asyncio.create_task(planner.send("builder", b"x", wait=wanted))
        message = await builder.receive(timeout=LONG)
        if wanted == "acked":
            await until(lambda: _is(builder, message.id, "delivered"))
            assert not sending.done()
            await message.ack()
            await builder.status()
        receipt = await sending
        assert (receipt.id, receipt.state) == (message.id, wanted)
        await message.ack()


@pytest.mark.parametrize("how", ["reject", "nack"])
async def test_a_message_that_ends_dead_is_undelivered_with_its_receipt(face: Face, how: str) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        sending = asyncio.create_task(planner.send("builder", b"x", wait="acked"))
        for _ in range(1 if how == "reject" else 3):
            await getattr(await builder.receive(timeout=LONG), how)("no such target")
        with pytest.raises(errors.Undelivered, match="no such target") as caught:
            await sending
        assert caught.value.receipt.state is State.DEAD


async def test_a_message_that_nobody_takes_expires(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder"):
        with pytest.raises(errors.Undelivered, match="expired") as caught:
            await planner.send("builder", b"x", ttl=0.05, wait="delivered")
        assert caught.value.receipt.state is State.EXPIRED


async def test_a_send_that_waits_too_long_says_what_is_known(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        with pytest.raises(errors.Timeout, match="stays accepted") as caught:
            await planner.send("builder", b"x", wait="acked", timeout=1.0)
        assert caught.value.receipt.state is State.ACCEPTED
        message = await builder.receive(timeout=LONG)
        assert message.id == caught.value.receipt.id


VALUES: list[object] = [
    b"",
    b"\xff\x00",
    "",
    "Grüße \U0001f44b",
    "17",
    None,
    True,
    0,
    2**64 - 1,
    0.1,
    [],
    {"a": [None, "ü"]},
    [[]],
]


async def test_bodies_keep_their_kind(face: Face) -> None:
    async with face.connect("me") as me:
        for value in VALUES:
            await me.send("me", value)
            message = await me.receive(timeout=LONG)
            assert message.value == value and type(message.value) is type(value)
            await message.ack()


@dataclass
class Record:
    """What JSON can hold, field by field."""

    value: object


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)
UNSENDABLE = {
    "an object": object(), "no number": float("nan"), "no number within": {"a": [1, float("inf")]},
    "bytes within": {"a": b"bytes"}, "bytes as a key": {b"a": 1}, "bytes in a set": {b"x"},
    "half a character": "\ud800",
    "bytes in a record": Record(b"x"), "no number in a record": [Record(float("nan"))], "a circle": ENDLESS,
}  # fmt: skip


@pytest.mark.parametrize("name", UNSENDABLE)
async def test_what_can_t_be_sent_without_loss_is_refused_here(face: Face, name: str) -> None:
    value = UNSENDABLE[name]
    async with face.connect("me") as me:
        with pytest.raises(errors.BadBody):
            await me.send("me", value)
        with pytest.raises(errors.BadBody):
            me.post("me", value)


async def test_a_body_of_16_mib_arrives_whole_and_more_is_refused(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        receiving = asyncio.create_task(builder.receive(timeout=LONG))
        await planner.send("builder", b"x" * (16 << 20))
        message = await receiving
        assert len(message.body) == 16 << 20
        await message.ack()
        with pytest.raises(errors.TooLarge, match="limit of 16777216"):
            await planner.send("builder", b"x" * ((16 << 20) + 1))


async def test_order_holds_with_large_bodies_in_between(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        sizes = [10, 1 << 20, 20, 300_000, 30, 5, 2 << 20, 1]
        tickets = [planner.post("builder", b"x" * size) for size in sizes]
        waiting = asyncio.gather(*tickets)
        inbox = builder.inbox(window=4)
        seen = []
        async for message in inbox:
            async with message:
                seen.append(len(message.body))
            if len(seen) == len(sizes):
                break
        await inbox.aclose()
        assert seen == sizes
        ids = [receipt.id for receipt in await waiting]
        assert len(set(ids)) == len(sizes)


async def test_an_unknown_recipient_is_an_error_with_the_nearest_name(face: Face) -> None:
    async with face.connect("builder"), face.connect("planner") as planner:
        with pytest.raises(errors.NoSuchAgent, match="Did you mean builder"):
            await planner.send("biulder", b"x")
        receipt = await planner.send("newcomer", "welcome", allow_absent=True)
        assert "absent" in receipt.note
    async with face.connect("newcomer") as newcomer:
        assert (await newcomer.receive(timeout=LONG)).value == "welcome"


async def test_the_same_key_is_accepted_once(face: Face) -> None:
    async with face.connect("me") as me:
        first = await me.send("me", "once", key="job-7")
        second = await me.send("me", "once", key="job-7")
        assert first.id == second.id and "repeated" in second.note
        assert (await me.look("me")).total == 1


async def test_a_lane_that_is_not_there_is_refused(face: Face) -> None:
    async with face.connect("me") as me:
        for options in ({"priority": "batch"}, {"route": "direct"}):
            with pytest.raises(errors.LaneUnavailable):
                await me.send("me", b"x", **options)
        with pytest.raises(errors.LaneUnavailable):
            await me.request("me", b"x", priority="batch")
        with pytest.raises(errors.LaneUnavailable):
            await me.publish("t", b"x", priority="batch")
        assert (await me.look("me")).total == 0


@pytest.mark.parametrize("options", [{"priority": "low"}, {"durable": True}])
async def test_what_is_kept_is_stored_and_says_so(face: Face, options: dict[str, Any]) -> None:
    async with face.connect("me") as me:
        receipt = await me.send("me", b"x", **options)
        assert receipt.state is State.STORED
        assert receipt.route == ("journal" if "priority" in options else "socket")
        message = await me.receive(timeout=LONG)
        assert message is not None and message.lane == receipt.lane
        await message.ack()
        ticket = me.post("me", b"y", **options)
        assert (await ticket).state is State.STORED
        with pytest.raises(errors.NotOnThisLane):
            await me.publish("t", b"x", **options)


async def test_send_waits_for_room_and_raises_when_its_time_is_over(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        for _ in range(4):
            await planner.send("builder", b"x" * (16 << 20 - 2))
        for _ in range(996):
            planner.post("builder", b"x")
        await planner.status()
        # It tries again until then: the last try is refused, or not answered in time.
        with pytest.raises((errors.Backpressure, errors.Timeout), match=r"inbox is full|not answered in time"):
            await planner.send("builder", "one more", timeout=0.5)
        waiting = asyncio.create_task(planner.send("builder", "one more"))
        message = await builder.receive(timeout=LONG)
        await message.ack()
        assert (await waiting).state is State.ACCEPTED


async def test_a_full_inbox_harms_no_other(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("full"), face.connect("other") as other:
        for _ in range(1000):
            planner.post("full", b"x")
        refused, fine = planner.post("full", b"x"), planner.post("other", "hello")
        assert (await fine).state is State.ACCEPTED
        with pytest.raises(errors.Backpressure):
            await refused
        assert (await other.receive(timeout=LONG)).value == "hello"


# What the receiver makes of it.


async def test_a_clean_exit_acks_an_exception_nacks_an_interrupt_gives_back(face: Face) -> None:
    async with face.connect("me") as me:
        id = (await me.send("me", b"x")).id
        with pytest.raises(ZeroDivisionError):
            async with await me.receive(timeout=LONG):
                raise ZeroDivisionError("broken")
        message = await me.receive(timeout=LONG)
        assert message.attempt == 2
        with pytest.raises(KeyboardInterrupt):
            async with message:
                await me.status()  # the daemon has heard that it was delivered
                raise KeyboardInterrupt
        again = await me.receive(timeout=LONG)
        assert again.attempt == 2
        async with again:
            pass
        await me.status()
        steps = (await me.trace(id)).transitions
        assert [step.note for step in steps if step.state is State.ACCEPTED] == [
            "", "ZeroDivisionError: broken", "given back",
        ]  # fmt: skip
        assert steps[-1].state is State.ACKED


async def test_a_nack_with_after_brings_it_back_no_sooner(face: Face) -> None:
    async with face.connect("me") as me:
        id = (await me.send("me", b"x")).id
        await (await me.receive(timeout=LONG)).nack("later", after=0.2)
        assert (await me.receive(timeout=LONG)).attempt == 2
        await until(lambda: _is(me, id, "delivered"))
        back, again = (await me.trace(id)).transitions[-2:]
        assert again.at - back.at >= 0.2


async def test_nack_and_reject_of_what_is_not_ours_any_more_are_told(face: Face) -> None:
    async with face.connect("me") as me:
        await me.send("me", b"x")
        message = await me.receive(timeout=LONG)
        await me.ack(message.id)
        with pytest.raises(errors.NoSuchMessage, match="acked already"):
            await message.nack("too late")


async def test_an_id_or_its_beginning_is_enough_to_settle(face: Face) -> None:
    async with face.connect("me") as me:
        ids = [(await me.send("me", number)).id for number in range(5)]
        for _ in ids:
            await me.receive(timeout=LONG)
        await me.ack(ids[0][:8])
        await me.nack(ids[1][:8], "later", after=600)
        await me.reject(ids[2][:8], "never")
        await me.give_back(ids[3][:8])
        await me.hold(ids[4][:8], 600)
        assert await me.find(ids[0][:8]) == ids[0]
        assert [(await states(me, id))[-1] for id in ids] == ["acked", "accepted", "dead", "accepted", "delivered"]
        with pytest.raises(errors.NoSuchMessage):
            await me.ack("7777777777777")


async def test_a_held_message_can_be_acked_by_another_process_of_the_agent(face: Face) -> None:
    async with face.connect("me") as me:
        await me.send("me", b"x")
        message = await me.receive(timeout=LONG)
        message.working()
        await me.hold(message.id, 600)
    async with face.connect("me", take=False) as other:
        assert [mail.holder for mail in (await other.look("me")).messages] == ["held"]
        await other.ack(message.id)
        assert (await states(other, message.id))[-1] == "acked"


async def test_dead_letters_are_listed_requeued_and_dropped(face: Face) -> None:
    async with face.connect("me") as me:
        ids = [(await me.send("me", number)).id for number in range(2)]
        for _ in ids:
            await (await me.receive(timeout=LONG)).reject("no")
        assert [(letter.reason, letter.attempts) for letter in (await me.dead("me")).letters] == [("no", 1)] * 2
        assert await me.requeue([ids[0]]) == 1
        assert (await me.receive(timeout=LONG)).id == ids[0]
        assert await me.drop([ids[1]]) == 1
        assert (await me.dead()).total == 0


async def test_a_window_bounds_what_is_unsettled(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        for number in range(6):
            await planner.send("builder", number)
        inbox = builder.inbox(window=2)
        first, second = await anext(inbox), await anext(inbox)
        status = await planner.status()
        assert (status.held, status.waiting) == (2, 4)
        await first.ack()
        third = await anext(inbox)
        assert [first.value, second.value, third.value] == [0, 1, 2]
        assert (await planner.status()).held == 2
        await inbox.aclose()
        await builder.status()
        assert (await planner.look("builder")).total == 5  # two held by the application, three waiting
        assert (await planner.status()).held == 2


async def test_an_inbox_ends_when_its_client_leaves(face: Face) -> None:
    async with face.connect("me") as me:
        inbox = me.inbox()
        await me.send("me", b"x")
        async with await anext(inbox):
            pass
    assert [message async for message in inbox] == []


async def test_leaving_gives_back_what_was_not_seen(face: Face) -> None:
    async with face.connect("planner") as planner:
        async with face.connect("builder") as builder:
            for number in range(3):
                await planner.send("builder", number)
            inbox = builder.inbox(window=3)
            assert (await anext(inbox)).value == 0
        await inbox.aclose()
        async with face.connect("builder") as again:
            assert [(m.value, m.attempt) for m in [await again.receive(timeout=LONG) for _ in range(3)]] == [
                (0, 2), (1, 1), (2, 1),
            ]  # fmt: skip
