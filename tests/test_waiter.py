"""What a sleeping coroutine is woken by, and what a receive() leaves behind that was served by a ring."""

import asyncio

import pytest
from daemons import Daemon

from agentd_client import State, connect
from agentd_client._waiter import Waiter

LONG = 20.0


async def test_at_once_means_before_it_returns() -> None:
    waiter = Waiter()
    seen: list[str] = []

    async def sleeper() -> None:
        await waiter
        seen.append("awake")

    task = asyncio.create_task(sleeper())
    await asyncio.sleep(0)
    seen.append("before")

    def ring() -> None:
        waiter.settle_at_once()
        seen.append("after")

    asyncio.get_running_loop().call_soon(ring)
    await task
    assert seen == ["before", "awake", "after"]
    assert waiter.settled


async def test_who_does_not_wait_yet_need_not() -> None:
    waiter = Waiter()
    asyncio.get_running_loop().call_soon(waiter.settle_at_once)
    await asyncio.sleep(0)
    await waiter
    waiter.settle()  # once more does no harm
    assert waiter.settled


async def test_its_time_can_be_over() -> None:
    waiter = Waiter()
    await waiter.until(asyncio.get_running_loop().time() + 0.01)
    assert not waiter.settled


@pytest.mark.parametrize("settled", [False, True])
async def test_it_can_be_cancelled(settled: bool) -> None:
    waiter = Waiter()
    task = asyncio.create_task(waiter.until(None))
    await asyncio.sleep(0)
    task.cancel()
    if settled:
        waiter.settle()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_mail_that_nobody_waits_for_any_more_goes_back(daemon: Daemon) -> None:
    async with connect("planner", socket=daemon.socket) as planner:
        async with connect("builder", socket=daemon.socket) as first:
            for _ in range(2):
                waiting = asyncio.create_task(first.receive())
                await asyncio.sleep(0.02)
                await planner.send("builder", "urgent", priority="critical", timeout=LONG)
                urgent = await waiting
                assert urgent is not None
                assert urgent.value == "urgent"
            assert first.conversation.mail.granted  # for a moment
            await planner.send("builder", "not urgent")
            await asyncio.sleep(0.1)
            assert not first.conversation.mail.buffer  # it is agentd's again
            assert not first.conversation.mail.granted
            view = await planner.look("builder")
            assert [(mail.state, mail.holder) for mail in view.messages] == [(State.ACCEPTED, "")]
            message = await first.receive(timeout=LONG)
            assert message is not None
            assert (message.value, message.attempt) == ("not urgent", 1)
            await message.ack()
