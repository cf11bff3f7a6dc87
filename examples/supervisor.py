"""A supervisor with an urgent stop: workers count, and stop in the middle of their work when they are told to.

    python examples/supervisor.py

Starts two workers as processes of their own, and stops them one after the other as soon as they work. A worker looks
at its stop between two steps of its work, not between two jobs, so nobody waits for a long job to end; what it had in
hand goes back, and the one that is still there takes it.
"""

from __future__ import annotations

import asyncio
import sys

from agentd_client import Client, Message, connect, errors

JOBS = 4
STEPS = 40
STEP_S = 0.05


async def worker(name: str) -> None:
    """Takes jobs until it is stopped."""
    stop = asyncio.Event()
    async with connect(name) as control, connect("jobs", share=True) as me:
        listening = asyncio.create_task(hear_stop(control, stop))
        taking = asyncio.create_task(take_jobs(me, name))
        await stop.wait()
        taking.cancel()  # a message that is cancelled goes back, and somebody else takes it
        listening.cancel()
        await asyncio.gather(taking, listening, return_exceptions=True)
    print(f"{name}: stopped", flush=True)


async def hear_stop(control: Client, stop: asyncio.Event) -> None:
    """The stop comes to the worker's own name, past everything that waits for `jobs`."""
    async for message in control.inbox():
        async with message:
            if message.value == "stop":
                stop.set()


async def take_jobs(me: Client, name: str) -> None:
    """One after the other."""
    async for message in me.inbox():
        async with message:
            await work(message, name)


async def work(message: Message, name: str) -> None:
    """Something long, in steps."""
    for step in range(STEPS):
        if step % 10 == 0:
            message.working()
        await asyncio.sleep(STEP_S)
    print(f"{name}: {message.value} is done", flush=True)


async def halt(me: Client, name: str) -> None:
    """The urgent stop: on the critical lane it comes before the job in hand is done. `agentctl halt` is another way."""
    await me.send(name, "stop", priority="critical", wait="acked", timeout=10)


async def supervise() -> None:
    """Starts the workers, gives them work, stops them."""
    names = ["worker-1", "worker-2"]
    processes = [await asyncio.create_subprocess_exec(sys.executable, __file__, name) for name in names]
    try:
        async with connect("supervisor") as me:
            for job in range(JOBS):
                await me.send("jobs", f"job {job}", allow_absent=True)
            await until_busy(me, len(names))
            await halt(me, names[0])
            await processes[0].wait()
            print("supervisor: worker-1 is gone, its job is back", flush=True)
            await halt(me, names[1])
            await processes[1].wait()
            rows = {row.name: row for row in (await me.agents()).agents}
            print(f"supervisor: {rows['jobs'].waiting} jobs wait for the next start", flush=True)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def until_busy(me: Client, workers: int) -> None:
    """Come back when each of so many has a job in hand."""
    while True:
        if any(row.name == "jobs" and row.held == workers for row in (await me.agents()).agents):
            return
        await asyncio.sleep(STEP_S)


if __name__ == "__main__":
    try:
        asyncio.run(worker(sys.argv[1]) if len(sys.argv) > 1 else supervise())
    except errors.Unreachable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
