"""agentd's high lane as a contender: its daemon introduces the two ends, which then talk by their channels.

asyncio, uvloop   `channel.send` and `async for message in me.inbox()`: both ends sleep in their loops
blocking          `channel.send` and `receiver("high").receive`: a thread that looks for a while before it sleeps, as it
                  comes (`direct.spin_us`); what is answered sooner than that, is while both ends are awake

A request is a message each way. The rate counts what the receiver's own code has; a full ring is tried again. Large
bodies are looked at where they lie, by `view()`, as those of the others are; small ones are copied, by `body`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import contender
import ends as roles
import own

from agentd.wire.errors import AgentdError, Backpressure

_LANE: Final = "high"
_DEADLINE_S: Final = 10.0


def missing() -> str:
    return ""


def start(home: Path) -> own.Daemon:
    return own.Daemon(home)


class Asynchronous:
    """On an event loop."""

    def __init__(self, mode: str) -> None:
        self._mode = mode  # part of every name: modes share a daemon

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
        from agentd_client import connect

        async with connect(f"asker-{self._mode}") as me, me.channel(f"answerer-{self._mode}", _LANE) as channel:
            inbox = me.inbox()
            held = ExitStack()  # of the reply before

            async def request(body: bytes) -> bytes:
                held.close()
                channel.send(body)
                message = await anext(inbox)
                await message.ack()
                return _kept(message, held)

            with held:
                yield request

    async def answer(self, ready: contender.Ready) -> None:
        from agentd_client import connect

        async with AsyncExitStack() as opened:
            me = await opened.enter_async_context(connect(f"answerer-{self._mode}"))
            inbox = me.inbox()
            ready()
            channel: Any = None
            async for message in inbox:
                if channel is None:
                    channel = await opened.enter_async_context(me.channel(message.sender, _LANE))
                _pass_on(message, channel.send)
                await message.ack()

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Callable[[Sequence[bytes]], Awaitable[int]]]:
        from agentd_client import connect

        async with connect(f"poster-{self._mode}") as me, me.channel(f"taker-{self._mode}", _LANE) as channel:

            async def send(bodies: Sequence[bytes]) -> int:
                for body in bodies:
                    while True:
                        try:
                            position = channel.send(body)
                            break
                        except Backpressure:
                            await asyncio.sleep(0)
                await channel.delivered(position)
                return len(bodies)

            yield send

    async def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        from agentd_client import connect

        async with connect(f"taker-{self._mode}") as me:
            inbox = me.inbox(window=64)
            ready()
            async for message in inbox:
                _pass_on(message, taken)
                await message.ack()


class Blocking:
    """On a thread."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        from agentd_client import blocking

        with blocking.connect("asker") as me, me.receiver(_LANE) as receiver, ExitStack() as opened:
            channel = _channel(me, "answerer", opened)
            held = opened.enter_context(ExitStack())  # of the reply before

            def request(body: bytes) -> bytes:
                held.close()
                channel.send(body)
                return _kept(receiver.receive(), held)

            yield request

    def answer(self, ready: contender.Ready) -> None:
        from agentd_client import blocking

        with blocking.connect("answerer") as me, me.receiver(_LANE) as receiver, ExitStack() as opened:
            ready()
            channel: Any = None
            while True:
                message: Any = receiver.receive()
                if channel is None:
                    channel = _channel(me, message.sender, opened)
                _pass_on(message, channel.send)

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        from agentd_client import blocking

        with blocking.connect("poster") as me, ExitStack() as opened:
            channel = _channel(me, "taker", opened)

            def send(bodies: Sequence[bytes]) -> int:
                for body in bodies:
                    while True:
                        try:
                            position = channel.send(body)
                            break
                        except Backpressure:
                            time.sleep(0)
                channel.delivered(position)
                return len(bodies)

            yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        from agentd_client import blocking

        with blocking.connect("taker") as me, me.receiver(_LANE) as receiver:
            ready()
            while True:
                message: Any = receiver.receive()
                _pass_on(message, taken)
                message.ack()


def _pass_on(message: Any, use: Callable[[Any], object]) -> None:
    if message.size < roles.LARGE_BYTES:
        use(message.body)
    else:
        with message.view() as body:
            use(body)


def _kept(message: Any, held: ExitStack) -> bytes:
    """Until `held` is closed."""
    body: bytes = message.body if message.size < roles.LARGE_BYTES else held.enter_context(message.view())
    return body  # a view will do


def _channel(me: Any, to: str, opened: ExitStack) -> Any:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return opened.enter_context(me.channel(to, _LANE))
        except AgentdError:  # it is not there yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def ends(mode: str) -> Asynchronous | Blocking:
    return Blocking() if mode == "blocking" else Asynchronous(mode)
