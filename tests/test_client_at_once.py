"""Who waits for what was just read goes on before the loop turns: what it does there is as it is anywhere."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from daemons import Daemon

from agentd_client import connect, errors

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_a_program_may_end_there(daemon: Daemon, new_loop: type[asyncio.AbstractEventLoop], end: BaseException) -> None:
    async def main() -> None:
        async with connect("me", socket=daemon.socket) as me:

            async def take() -> None:
                await me.receive()
                raise end

            taking = asyncio.create_task(take())
            me.post("me", b"x")
            await asyncio.wait([taking, asyncio.create_task(asyncio.Event().wait())])

    with pytest.raises(type(end)), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_an_error_there_is_the_tasks_own_and_the_connection_lives(
    daemon: Daemon, new_loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def main() -> None:
        async with connect("me", socket=daemon.socket) as me:

            async def fail() -> None:
                await me.receive()
                raise errors.BadRequest("mine")

            failing = asyncio.create_task(fail())
            await asyncio.sleep(0)
            await me.send("me", b"first")
            with pytest.raises(errors.BadRequest, match="mine"):
                await failing
            receipt = await me.send("me", b"second")
            message = await me.receive()
            assert message is not None
            assert message.id == receipt.id

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
