"""agentd as a contender: a daemon in a temporary directory, its defaults, its own Python client at both ends.

asyncio, uvloop, blocking   requests by `request` and `reply`; the rate is that of `post` with every 500th message
                            wait="acked" and at most 16 such batches or 2 MiB open, into `inbox(window=8000)` whose
                            reader acks each message. A batch's receipt ends it; any state but `acked` ends the
                            benchmark.

Here are also the things that other benchmarks need of a daemon: agents that only sit there (`Crowd`: connections on the
bare wire, so that no client code is measured), and its counters.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import contender
import msgspec
import process

from agentd.wire import frames, messages

BATCH: Final = 500
OPEN_BATCHES: Final = 16
#: What is under way should stay in the processor's cache: at 1 KiB, 8 MiB of it cost 15 % of the rate.
OPEN_BYTES: Final = 2 << 20
WINDOW: Final = 8000
_ANSWER_BYTES: Final = 1 << 20


def missing() -> str:
    return ""


class Daemon:
    """agentd. `settings` are variables of its environment."""

    def __init__(self, home: Path, settings: Mapping[str, str] = MappingProxyType({}), start_s: float = 10) -> None:
        run = home / "run"
        self.environ = {"AGENTD_RUNTIME_DIR": str(run), "AGENTD_STATE_DIR": str(home / "state"), **settings}
        self.environ["AGENTD_SOCKET"] = self.socket = str(run / "agentd.sock")
        self.environ["XDG_CONFIG_HOME"] = str(home)
        command = [sys.executable, "-P", "-m", "agentd.daemon"]
        log = home / "agentd.log"
        self._child = process.spawn(command, self.environ, log=log)
        self.pid = self._child.pid
        deadline = time.monotonic() + start_s
        while True:
            try:
                Line(self.socket).close()
                return
            except OSError:
                if self._child.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise RuntimeError(f"agentd does not start: {log.read_text()[-1000:]}") from None
                time.sleep(0.02)

    def close(self) -> None:
        process.stop(self._child, grace_s=10)


def start(home: Path) -> Daemon:
    return Daemon(home)


class Line:
    """A connection on the bare wire: one question, one answer. With `name`, a live agent that takes its mail."""

    def __init__(self, path: str, name: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(10)
            self._socket.connect(path)
            self._reader: frames.FrameReader[messages.DaemonMessage] = frames.FrameReader(
                messages.DaemonMessage, _ANSWER_BYTES
            )
            self._writer = frames.FrameWriter()
            self._socket.sendall(bytes([frames.MAGIC]))
            self.call(messages.Hello(messages.VERSION, "bench"))
            if name is not None:
                self.call(messages.Join(1, name, take=True))
        except BaseException:
            self._socket.close()
            raise

    def call(self, question: msgspec.Struct) -> messages.DaemonMessage:
        """The answer to `question`; RuntimeError when it is a refusal."""
        self._writer.push(question)
        self._socket.sendall(self._writer.take())
        while True:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("agentd closed the connection")
            for answer in self._reader.feed(data):
                if isinstance(answer, messages.Error):
                    raise RuntimeError(f"{answer.code}: {answer.message}")
                return answer

    def close(self) -> None:
        self._socket.close()


class Crowd:
    """So many joined agents that do nothing."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        raise_open_files(count + 100)
        self._lines: list[Line] = []
        try:
            self.grow(daemon, count)
        except BaseException:
            self.close()
            raise

    def grow(self, daemon: Daemon, count: int) -> None:
        """Join more, up to `count`."""
        for number in range(len(self._lines), count):
            self._lines.append(Line(daemon.socket, f"idle-{number}"))

    def close(self) -> None:
        while self._lines:
            self._lines.pop().close()


def raise_open_files(wanted: int) -> None:
    """Lift this process's soft limit, which its children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted * 4:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < wanted * 4 else wanted * 4, hard))


class Counters(msgspec.Struct, frozen=True):
    """What a daemon has done so far."""

    accepted: int
    acked: int
    cpu_s: float


def counters(daemon: contender.Server) -> Counters:
    """The daemon's own counts, and its processor time as the kernel has it."""
    line = Line(daemon.environ["AGENTD_SOCKET"])
    try:
        stats = line.call(messages.Stats(1))
    finally:
        line.close()
    assert isinstance(stats, messages.StatsView)
    return Counters(stats.accepted, stats.acked, process.cpu_s(daemon.pid))


class Asynchronous:
    """agentd_client on an event loop."""

    def __init__(self, mode: str) -> None:
        self._mode = mode  # part of every name: modes share a daemon

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
        from agentd_client import connect

        async with connect(f"asker-{self._mode}") as me:
            to = f"answerer-{self._mode}"

            async def request(body: bytes) -> bytes:
                return (await me.request(to, body, timeout=5)).body

            yield request

    async def answer(self, ready: contender.Ready) -> None:
        from agentd_client import connect

        async with connect(f"answerer-{self._mode}") as me:
            inbox = me.inbox(window=64)
            ready()
            async for message in inbox:
                await message.reply(message.body)

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[Callable[[Sequence[bytes]], Awaitable[int]]]:
        from agentd_client import connect

        async with connect(f"poster-{self._mode}") as me:

            async def send(bodies: Sequence[bytes]) -> int:
                to = f"taker-{self._mode}"
                batches: deque[Any] = deque()
                last = len(bodies) - 1
                most = _open_batches(len(bodies[0]))
                for number, body in enumerate(bodies):
                    if number % BATCH != BATCH - 1 and number != last:
                        me.post(to, body)
                        continue
                    batches.append(me.post(to, body, wait="acked"))
                    while len(batches) >= most or (number == last and batches):
                        _check((await batches.popleft()).state)
                return len(bodies)

            yield send

    async def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        from agentd_client import connect

        async with connect(f"taker-{self._mode}") as me:
            inbox = me.inbox(window=WINDOW)
            ready()
            async for message in inbox:
                taken(message.body)
                await message.ack()


class Blocking:
    """agentd_client.blocking."""

    def __init__(self, mode: str) -> None:
        self._mode = mode  # part of every name: modes share a daemon

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        from agentd_client.blocking import connect

        with connect(f"asker-{self._mode}") as me:
            to = f"answerer-{self._mode}"

            def request(body: bytes) -> bytes:
                return me.request(to, body, timeout=5).body

            yield request

    def answer(self, ready: contender.Ready) -> None:
        from agentd_client.blocking import connect

        with connect(f"answerer-{self._mode}") as me:
            inbox = me.inbox(window=64)
            ready()
            for message in inbox:
                message.reply(message.body)

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        from agentd_client.blocking import connect

        with connect(f"poster-{self._mode}") as me:

            def send(bodies: Sequence[bytes]) -> int:
                to = f"taker-{self._mode}"
                batches: deque[Any] = deque()
                last = len(bodies) - 1
                most = _open_batches(len(bodies[0]))
                for number, body in enumerate(bodies):
                    if number % BATCH != BATCH - 1 and number != last:
                        me.post(to, body)
                        continue
                    batches.append(me.post(to, body, wait="acked"))
                    while len(batches) >= most or (number == last and batches):
                        _check(batches.popleft().wait().state)
                return len(bodies)

            yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        from agentd_client.blocking import connect

        with connect(f"taker-{self._mode}") as me:
            inbox = me.inbox(window=WINDOW)
            ready()
            for message in inbox:
                taken(message.body)
                message.ack()


def _open_batches(size_bytes: int) -> int:
    return max(1, min(OPEN_BATCHES, OPEN_BYTES // (BATCH * size_bytes)))


def _check(state: str) -> None:
    if state != "acked":
        raise SystemExit(f"A message ended {state}, not acked")


def ends(mode: str) -> Any:
    return Blocking(mode) if mode == "blocking" else Asynchronous(mode)
