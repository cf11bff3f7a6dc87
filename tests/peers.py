"""Agents in processes of their own, to be killed or stopped: each runs one of the functions at the end of this file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentd_client import connect, errors


class Peer:
    """A process that says what it does, a line each."""

    def __init__(self, socket: Path, role: str, *arguments: str, under: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*under, sys.executable, "-P", __file__, role, str(socket), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """What it says next; empty when it has ended."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).strip()

    def tell(self, line: str) -> None:
        """Have it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT, SIGKILL."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """The test is over."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def peer(socket: Path, role: str, *arguments: str, under: Sequence[str] = ()) -> Iterator[Peer]:
    """One, until the test is over; it has said that it is ready. under: what starts it, with its own arguments."""
    one = Peer(socket, role, *arguments, under=under)
    try:
        assert one.line() == "ready"
        yield one
    finally:
        one.close()


def say(text: str) -> None:
    """To the test."""
    print(text, flush=True)


async def _heard() -> str:
    return str(await asyncio.to_thread(sys.stdin.readline)).strip()


async def sink(socket: str, name: str, lane: str) -> None:
    """Has a ring, and takes nothing out of it until it is told how many: then it says each, and acks none."""
    async with connect(name, socket=socket) as me:
        with me.receiver(lane) as receiver:
            say("ready")
            while count := int(await _heard() or 0):
                for _ in range(count):
                    message = await asyncio.to_thread(receiver.receive, 20.0)
                    say("nothing" if message is None else message.body.decode())


async def worker(socket: str, name: str, lane: str) -> None:
    """Takes what comes, acks it, and says it."""
    async with connect(name, socket=socket) as me:
        with me.receiver(lane) as receiver:
            say("ready")
            while (message := await asyncio.to_thread(receiver.receive, 60.0)) is not None:
                message.ack()
                say(message.body.decode())


async def source(socket: str, name: str, lane: str, to: str, count: str) -> None:
    """Writes so many numbers into a channel, says so, and stays."""
    async with connect(name, socket=socket) as me, me.channel(to, lane) as channel:
        say("ready")
        await _heard()
        for number in range(int(count)):
            channel.send(str(number))
        say("written")
        await _heard()


async def counter(socket: str, name: str) -> None:
    """Takes what comes, in its inbox, for ever."""
    async with connect(name, socket=socket) as me:
        say("ready")
        async for message in me.inbox(window=64):
            await message.ack()


async def saver(socket: str, name: str, directory: str) -> None:
    """Saves the file that comes, says when it has begun, and stays there until it is killed."""
    async with connect(name, socket=socket) as me:
        say("ready")
        message = await me.receive()

        def saving(done: int, total: int) -> None:
            say("saving")
            sys.stdin.readline()

        await message.save(directory, progress=saving)  # type: ignore[union-attr]


async def filer(socket: str, name: str, to: str, path: str) -> None:
    """Sends a file."""
    async with connect(name, socket=socket) as me:
        say("ready")
        await me.send_file(to, path)


async def flood(socket: str, name: str, lane: str, to: str) -> None:
    """Writes into a channel as fast as it can, until it is killed."""
    async with connect(name, share=True, socket=socket) as me, me.channel(to, lane) as channel:
        say("ready")
        while True:
            try:
                channel.send(b"x" * 100)
            except errors.Backpressure:
                await asyncio.sleep(0)


async def pours(socket: str, name: str, to: str) -> None:
    """Writes large bodies into a channel as fast as it can, until it is killed."""
    async with connect(name, socket=socket) as me, me.channel(to, "high") as channel:
        say("ready")
        while True:
            try:
                channel.send(b"p" * (8 << 20))
            except errors.Backpressure:
                pass
            await asyncio.sleep(0)


async def hoards(socket: str, name: str) -> None:
    """Has a view of each of four messages, says so, and gives none back."""
    async with connect(name, socket=socket) as me:
        say("ready")
        views = []
        while (message := await me.receive(timeout=20.0)) is not None:
            views.append(message.view())
            if len(views) == 4:
                say("4")


if __name__ == "__main__":
    os.environ.pop("AGENTD_AGENT", None)
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
