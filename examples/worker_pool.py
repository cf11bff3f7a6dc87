"""A pool of workers that share one inbox, and what becomes of the jobs that nobody can do.

    python examples/worker_pool.py

Three workers take from one name, each job goes to one of them. Some jobs are poison: whoever takes one raises, so it
comes back and is tried again, until its attempts are over and it is a dead letter, with its reason. Then the defect
is mended, the dead letters are put back, and all is done.
"""

from __future__ import annotations

import asyncio
import sys

from agentd_client import Client, connect, errors

JOBS = range(1, 13)
WORKERS = 3
POISON = (4, 9)


class Shop:
    """What the workers share: whether the defect is mended yet, and what is done."""

    def __init__(self) -> None:
        self.mended = False
        self.done: set[int] = set()


async def worker(number: int, shop: Shop) -> None:
    """Takes jobs for ever."""
    async with connect("pool", share=True) as me:
        async for message in me.inbox():
            try:
                async with message:
                    work(message.value, shop)
            except ValueError:
                continue  # it was nacked: somebody will try it again
            print(f"worker {number}: job {message.value}, attempt {message.attempt}", flush=True)


def work(job: int, shop: Shop) -> None:
    """Does one job, if it can be done."""
    if job in POISON and not shop.mended:
        raise ValueError(f"nobody knows how to do {job}")
    shop.done.add(job)


async def until_settled(me: Client) -> int:
    """Come back when every job is done or dead; how many are dead."""
    while True:
        rows = {row.name: row for row in (await me.agents()).agents}
        pool = rows.get("pool")
        if pool is not None and not pool.waiting and not pool.held:
            return pool.dead
        await asyncio.sleep(0.02)


async def main() -> None:
    shop = Shop()
    async with connect("foreman") as me:
        for job in JOBS:
            await me.send("pool", job, allow_absent=True)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker(number, shop)) for number in range(1, WORKERS + 1)]
            dead = await until_settled(me)
            print(f"foreman: {len(shop.done)} done, {dead} dead", flush=True)
            letters = (await me.dead("pool")).letters
            for letter in letters:
                print(f"foreman: {letter.preview}: {letter.reason}", flush=True)
            shop.mended = True
            await me.requeue([letter.id for letter in letters])
            await until_settled(me)
            for task in workers:
                task.cancel()
        print(f"foreman: all {len(shop.done)} are done", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except errors.Unreachable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
