"""A board of who is how far: workers publish their progress, the board subscribes and draws a line for each.

    python examples/progress_board.py            (until all are done)
    agentctl publish progress:mine '{"done": 3, "of": 10}'     (anybody may)

A board that is too slow is not waited for: it has a gap, is told how many events it missed (`Lagged`), and goes on with
the newest, which is all that a board needs.
"""

from __future__ import annotations

import asyncio
import sys

from agentd_client import Client, connect, errors

TASKS = {"compile": 20, "test": 50, "document": 10}
WIDTH = 30


async def work(me: Client, name: str, steps: int) -> None:
    """Something in so many steps."""
    for step in range(steps + 1):
        await me.publish(f"progress:{name}", {"done": step, "of": steps})
        await asyncio.sleep(0.01)


async def board(ready: asyncio.Event) -> None:
    """A line for each change of a tenth, until everything is done."""
    shown: dict[str, int] = {}
    async with connect("board") as me, me.subscribe("progress:*") as events:
        ready.set()
        while any(shown.get(name) != 10 for name in TASKS):
            try:
                event = await anext(events)
            except errors.Lagged as gap:
                print(f"(missed {gap.missed} events)", flush=True)
                continue
            name = str(event.topic).partition(":")[2]
            tenth = 10 * event.value["done"] // max(1, event.value["of"])
            if shown.get(name) != tenth:
                shown[name] = tenth
                print(f"{name:10} {'#' * (WIDTH * tenth // 10):{WIDTH}} {10 * tenth:3} %", flush=True)


async def main() -> None:
    ready = asyncio.Event()
    async with connect("workers") as me, asyncio.TaskGroup() as group:
        group.create_task(board(ready))
        await ready.wait()  # an event goes to who subscribes by then
        for name, steps in TASKS.items():
            group.create_task(work(me, name, steps))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except errors.Unreachable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
