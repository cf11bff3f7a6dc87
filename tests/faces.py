"""Both faces of the client behind one: a test is written once, with await, and runs on either.

The asyncio client is itself. A blocking client gets a thread of its own, as it wants, in which each of its calls runs;
what must not wait there (post, inbox, subscribe, working) is not awaited here either.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from daemons import PATIENCE_S

from agentd_client import blocking, client, testing
from agentd_client.testing import MemoryHub

_AT_ONCE = {"post", "inbox", "subscribe", "working", "done"}
_NAMES = {"aclose": "close"}
_FACES = (blocking.Client, blocking.Message, blocking.Ticket, blocking.Inbox, blocking.Subscription)
_END = object()
_Calls: TypeAlias = "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class _Thread:
    """Runs what it is given, in order. A daemon thread: a call that hangs must not hang the tests' exit."""

    def __init__(self) -> None:
        self._calls: _Calls = queue.SimpleQueue()
        threading.Thread(target=_run, args=(self._calls,), daemon=True).start()

    def submit(self, action: Callable[[], Any]) -> Future[Any]:
        """Have it run."""
        future: Future[Any] = Future()
        self._calls.put((future, action))
        return future

    def __del__(self) -> None:
        self._calls.put(None)


def _run(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        future, action = call
        try:
            future.set_result(action())
        except BaseException as error:  # whatever it is, it is the caller's
            future.set_exception(error)
        del call, future, action


class Driven:
    """Something of the blocking face, as if it were the asyncio face's."""

    def __init__(self, thread: _Thread, thing: Any) -> None:
        self._thread = thread
        self._thing = thing

    def _wrapped(self, value: Any) -> Any:
        return Driven(self._thread, value) if isinstance(value, _FACES) else value

    async def _call(self, action: Callable[[], Any]) -> Any:
        return self._wrapped(await asyncio.wrap_future(self._thread.submit(action)))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, _NAMES.get(name, name))
        if not callable(value):
            return self._wrapped(value)
        if name in _AT_ONCE:
            return lambda *given, **more: self._wrapped(
                self._thread.submit(lambda: value(*given, **more)).result(PATIENCE_S)
            )
        return lambda *given, **more: self._call(lambda: value(*given, **more))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._call(self._thing.wait).__await__()

    async def __aenter__(self) -> Driven:
        await self._call(self._thing.__enter__)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._call(lambda: self._thing.__exit__(*exception))

    def __aiter__(self) -> Driven:
        return self

    async def __anext__(self) -> Any:
        item = await self._call(lambda: next(self._thing, _END))
        if item is _END:
            raise StopAsyncIteration
        return item


class Face:
    """How to make clients of one face, for one daemon or one hub in memory."""

    def __init__(self, kind: str, place: Path | MemoryHub) -> None:
        self.kind = kind
        self._place = place

    def connect(self, name: str | None = None, **how: Any) -> Any:
        """A client, for `async with`."""
        how.setdefault("socket", self._place)
        if self.kind == "asyncio":
            return client.connect(name, **how)
        return Driven(_Thread(), blocking.connect(name, **how))


class MemoryDaemon:
    """A hub in memory with a daemon's handles."""

    def __init__(self) -> None:
        self.socket = testing.memory().__enter__()  # it takes a socket's place
        self.socket.stop()

    def start(self) -> None:
        """It runs."""
        self.socket.start()

    def stop(self) -> None:
        """As SIGTERM."""
        self.socket.stop()

    def kill(self) -> None:
        """As SIGKILL."""
        self.socket.crash()

    def close(self) -> None:
        """The end."""
        self.socket.__exit__()

    def config(self, **sections: dict[str, Any]) -> None:
        """Other limits, from before the first client comes."""
        self.close()
        self.socket = testing.memory(
            *(f"{section}.{name}={value}" for section, table in sections.items() for name, value in table.items())
        ).__enter__()


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Come back when the condition, awaited, holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"waited {PATIENCE_S:.0f} s in vain: {what or condition}")
        await asyncio.sleep(0.005)
