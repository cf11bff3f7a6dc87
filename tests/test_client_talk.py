"""Conformance of the client: names, requests and topics, on both faces."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from faces import Face, until

from agentd_client import errors

LONG = 30.0


# Names.


async def test_a_name_has_one_taker(face: Face) -> None:
    async with face.connect("builder"):
        with pytest.raises(errors.NameInUse, match=f"pid {os.getpid()}") as caught:
            async with face.connect("builder"):
                pytest.fail("two take the mail of one name")
        assert "--replace" in caught.value.hint
        async with face.connect("builder", take=False) as sender:
            await sender.send("builder", "sending is free")
            with pytest.raises(errors.NotPermitted):
                await sender.receive(timeout=0)


async def test_who_share_a_name_take_turns(face: Face) -> None:
    async with face.connect("worker", share=True) as first, face.connect("worker", share=True) as second:
        taking = [asyncio.create_task(one.receive(timeout=LONG)) for one in (first, second)]
        async with face.connect("boss") as boss:
            for number in range(2):
                await boss.send("worker", number)
        assert sorted([(await one).value for one in taking]) == [0, 1]


async def test_a_name_taken_over_while_connected_goes_on_sending(face: Face) -> None:
    async with face.connect("builder") as old:
        await old.send("builder", "work")
        assert (await old.receive(timeout=LONG)).attempt == 1
        waiting = asyncio.create_task(old.receive(timeout=LONG))
        async with face.connect("builder", replace=True) as new:
            with pytest.raises(errors.NameInUse, match="taken over"):
                await waiting
            with pytest.raises(errors.NameInUse):
                await old.receive(timeout=0)
            message = await new.receive(timeout=LONG)
            assert (message.value, message.attempt) == ("work", 2)
            await old.send("builder", "I still send")
            assert (await new.receive(timeout=LONG)).sender == "builder"


async def test_without_a_name_one_sends_and_is_answered(face: Face) -> None:
    async with face.connect() as nobody, face.connect("builder") as builder:
        asking = asyncio.create_task(nobody.request("builder", "may I?"))
        asked = await builder.receive(timeout=LONG)
        assert asked.sender.startswith("anonymous.") and asked.wants_reply
        await asked.reply("yes")
        assert (await asking).value == "yes"
        with pytest.raises(errors.NotPermitted):
            await nobody.receive(timeout=0)
        await nobody.send("builder", "thanks")
        with pytest.raises(errors.Absent):
            await (await builder.receive(timeout=LONG)).reply("welcome")


async def test_the_name_of_the_parent_is_only_sent_as(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTD_AGENT", "parent")
    async with face.connect("parent") as parent, face.connect() as child:
        await child.send("parent", "done")
        assert child.name == "parent"
        with pytest.raises(errors.NotPermitted):
            await child.receive(timeout=0)
        assert (await parent.receive(timeout=LONG)).sender == "parent"


async def test_a_name_that_is_none_is_refused_before_anything_is_said(face: Face) -> None:
    for name in ("", "a b", "anonymous.x", "x" * 256):
        with pytest.raises(errors.BadName):
            async with face.connect(name):
                pytest.fail("it is no name")


async def test_agents_are_listed_and_forgotten(face: Face) -> None:
    async with face.connect("planner") as planner:
        await planner.send("later", b"x", allow_absent=True)
        rows = {row.name: (row.live, row.waiting) for row in (await planner.agents()).agents}
        assert rows == {"planner": (True, 0), "later": (False, 1)}
        with pytest.raises(errors.NotPermitted):
            await planner.forget("later")
        with pytest.raises(errors.NoSuchAgent):
            await planner.forget("nobody")


# Requests.


async def test_a_request_is_answered_with_thread_and_hops(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        asking = asyncio.create_task(planner.request("builder", {"q": 1}, headers={"h": "1"}))
        asked = await builder.receive(timeout=LONG)
        assert (asked.value, asked.headers, asked.hops) == ({"q": 1}, {"h": "1"}, 0)
        await asked.reply({"a": 2})
        answer = await asking
        assert (answer.value, answer.sender, answer.re, answer.thread, answer.hops) == (
            {"a": 2}, "builder", asked.id, asked.id, 1,
        )  # fmt: skip
        view = await builder.trace(asked.id)
        assert view.transitions[-1].state.value == "acked"


async def test_a_reply_works_after_the_ack_and_goes_to_the_inbox(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        id = (await planner.send("builder", "job")).id
        message = await builder.receive(timeout=LONG)
        await message.ack()
        await message.reply("done")
        late = await planner.receive(timeout=LONG)
        assert (late.value, late.re) == ("done", id)
        await late.ack()


async def test_nobody_to_answer_is_said_at_once(face: Face) -> None:
    async with face.connect("planner") as planner:
        with pytest.raises(errors.NoResponder, match="No agent builder"):
            await planner.request("builder", "?", timeout=600)
        async with face.connect("builder"):
            pass
        with pytest.raises(errors.NoResponder, match="absent"):
            await planner.request("builder", "?", timeout=600)


@pytest.mark.parametrize("taken", [True, False])
async def test_a_responder_that_leaves_ends_the_request(face: Face, taken: bool) -> None:
    async with face.connect("planner") as planner:
        async with face.connect("builder") as builder:
            asking = asyncio.create_task(planner.request("builder", "?", timeout=600))
            await until(lambda: _mail(builder, 1))
            if taken:
                await builder.receive(timeout=LONG)
        with pytest.raises(errors.NoResponder):
            await asking


async def _mail(me: Any, count: int) -> bool:
    return bool((await me.look("builder")).total == count)


async def test_a_request_times_out_and_its_late_reply_is_mail(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        asking = asyncio.create_task(planner.request("builder", "?", timeout=1.0))
        asked = await builder.receive(timeout=LONG)
        with pytest.raises(errors.Timeout):
            await asking
        await asked.reply("sorry")
        late = await planner.receive(timeout=LONG)
        assert (late.value, late.re) == ("sorry", asked.id)
        await late.ack()


async def test_a_rejected_request_says_why(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder") as builder:
        asking = asyncio.create_task(planner.request("builder", "?"))
        await (await builder.receive(timeout=LONG)).reject("I only build")
        with pytest.raises(errors.Rejected, match="I only build"):
            await asking


async def test_two_that_answer_everything_are_stopped_by_the_hops(face: Face) -> None:
    async def answer_all(me: Any) -> int:
        count = 0
        async for message in me.inbox():
            try:
                await message.reply("and you?")
            except errors.TooManyHops:
                await message.ack()
                return count
            count += 1
        return count

    async with face.connect("ping") as ping, face.connect("pong") as pong:
        await ping.send("pong", "how are you?")
        tasks = [asyncio.create_task(answer_all(one)) for one in (ping, pong)]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [await task for task in done] == [16]
        async with face.connect() as operator:  # ends the other's wait, which has nothing to come
            await operator.send("ping" if tasks[1] in done else "pong", b"", hops=32)
        await asyncio.wait(waiting)


# Topics.


async def test_events_reach_those_who_subscribe(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("a") as first:
        async with first.subscribe("task:*") as events:
            receipt = await planner.publish("task:created", {"id": 7})
            assert (receipt.reached, receipt.refused) == (1, [])
            event = await anext(events)
            assert (event.topic, event.sender, event.value) == ("task:created", "planner", {"id": 7})
            assert (await planner.publish("other:created", b"x")).reached == 0
            await until(lambda: _delivered(first, receipt.id))
        await first.status()
        assert (await planner.publish("task:created", b"x")).reached == 0


async def _delivered(me: Any, id: str) -> bool:
    return bool((await me.trace(id)).state.value == "delivered")


async def test_a_gap_raises_lagged_at_its_place_and_the_subscription_goes_on(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("slow") as slow, slow.subscribe("t") as events:
        for number in range(13):
            receipt = await planner.publish("t", number)
        assert (receipt.reached, receipt.refused) == (0, ["slow"])
        assert [(await anext(events)).value for _ in range(10)] == list(range(10))
        with pytest.raises(errors.Lagged) as caught:
            await anext(events)
        assert caught.value.missed == 3
        await planner.publish("t", "after")
        assert (await anext(events)).value == "after"


async def test_what_is_no_topic_or_pattern_is_refused(face: Face) -> None:
    async with face.connect() as me:
        for topic in ("", "a b", "agentd:joined", "task:*"):
            with pytest.raises(errors.BadName):
                await me.publish(topic, b"x")
        with pytest.raises(errors.BadName):
            me.subscribe("a**")
        for kind, given in ((errors.BadRequest, {"start": "all"}), (errors.BadName, {"name": "a b"})):
            with pytest.raises(kind):
                async with me.subscribe("t", **given):
                    pytest.fail("there can be none")


# Many at once.


async def test_many_senders_and_each_message_once(face: Face) -> None:
    async with face.connect("builder") as builder:

        async def send_all(name: str) -> None:
            async with face.connect(name) as me:
                for number in range(20):
                    await me.send("builder", [name, number])

        sending = asyncio.gather(*(send_all(f"s{number}") for number in range(10)))
        seen: dict[str, list[int]] = {}
        inbox = builder.inbox(window=8)
        async for message in inbox:
            async with message:
                name, number = message.value
                seen.setdefault(name, []).append(number)
            if sum(map(len, seen.values())) == 200:
                break
        await inbox.aclose()
        await sending
        assert seen == {f"s{number}": list(range(20)) for number in range(10)}
