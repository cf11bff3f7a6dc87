"""Two processes, and one large file from the first to the second, again and again; files.py drives it.

    python file_ends.py LANE/HOW CORE CORE DIRECTORY      told by lines of JSON on stdin, answering on stdout

{"make": SIZE}   write the file that is sent; it stays in the page cache
{"agentd": 0}    `send_file` and `save`, an asyncio loop at either end: [nanoseconds from the call until the sender has
                 the receipt; the longest that a callback held the sender's loop; the receiver's]
{"sendfile": 0}  the floor: sendfile(2) into a Unix socket, and splice(2) out of it through a pipe into a file, with a
                 blocking process at either end: [nanoseconds until the receiver has said that it has all]

What arrives is a new file each time, compared with the first and gone before the next begins: so little waits to be
written back that the kernel does not start with it. Just before, another file of that size was written and removed: a
virtual machine's host may take memory that is free, and giving it back would be most of the time. agentd computes a
checksum at both ends meanwhile, the floor none.
"""

from __future__ import annotations

import asyncio
import fcntl
import filecmp
import json
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, BinaryIO, Final

import halves
import own

import agentd_client

_NAME: Final = "receiver"
_PIPE_BYTES: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031
_BLOCK_BYTES: Final = 1 << 20
_ANSWER_S: Final = 30
#: In the shared memory: how long a callback held the receiver's loop.
_HELD: Final = 0


def _saved(home: Path, how: str) -> Path:
    return home / f"saved-{how}"


async def _receive(path: str, home: Path, words: memoryview) -> None:
    async with agentd_client.connect(_NAME, socket=path) as me:
        async for message in me.inbox():
            with halves.longest_callback() as longest_ns:
                await message.save(_saved(home, "agentd"))
            words[_HELD] = longest_ns[0]
            await message.ack()


def _splice(stream: socket.socket, home: Path) -> None:
    """The floor's receiver: each file begins with its size and is answered with a byte."""
    out, into = os.pipe()
    fcntl.fcntl(into, _F_SETPIPE_SZ, _PIPE_BYTES)
    while head := stream.recv(8, socket.MSG_WAITALL):
        left = int.from_bytes(head, "little")
        file = os.open(_saved(home, "sendfile"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        while left:
            filled = os.splice(stream.fileno(), into, min(left, _PIPE_BYTES))
            left -= filled
            while filled:
                filled -= os.splice(out, file, filled)
        os.close(file)
        stream.sendall(b".")


class Sender:
    """The half that is asked."""

    def __init__(self, me: Any, stream: socket.socket, home: Path, words: memoryview) -> None:
        self._me, self._stream, self._home, self._words = me, stream, home, words
        self._path = home / "sent"
        self._size = 0

    async def make(self, size_bytes: int) -> int:
        with self._path.open("wb") as file:
            self._fill(file, size_bytes)
            os.fsync(file.fileno())  # its write-back is over before anything is measured
        self._size = size_bytes
        return size_bytes

    def _fill(self, file: BinaryIO, size_bytes: int) -> None:
        block = os.urandom(_BLOCK_BYTES)
        for number in range(size_bytes // _BLOCK_BYTES):
            file.write(number.to_bytes(8, "little") + block[8:])
        file.flush()

    def _warm(self) -> None:
        scratch = self._home / "scratch"
        with scratch.open("wb") as file:
            self._fill(file, self._size)
        scratch.unlink()

    def _check(self, how: str) -> None:
        saved = _saved(self._home, how)
        if not filecmp.cmp(self._path, saved, shallow=False):
            raise SystemExit(f"{how}: the file that came is another")
        saved.unlink()

    async def agentd(self, _: int) -> list[int]:
        self._warm()
        with halves.longest_callback() as longest_ns:
            start = perf_counter_ns()
            await self._me.send_file(_NAME, self._path, timeout=_ANSWER_S)
            took_ns = perf_counter_ns() - start
        await asyncio.sleep(0.05)  # the receiver writes down what held its loop
        self._check("agentd")
        return [took_ns, longest_ns[0], self._words[_HELD]]

    async def sendfile(self, _: int) -> list[int]:
        self._warm()
        with self._path.open("rb") as file:
            start = perf_counter_ns()
            self._stream.sendall(self._size.to_bytes(8, "little"))
            sent = 0
            while sent < self._size:
                sent += os.sendfile(self._stream.fileno(), file.fileno(), sent, self._size - sent)
            self._stream.recv(1)
            took_ns = perf_counter_ns() - start
        self._check("sendfile")
        return [took_ns]

    async def run(self) -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            ((what, wanted),) = json.loads(line).items()
            print(json.dumps(await getattr(self, what)(wanted)), flush=True)


async def _send(path: str, stream: socket.socket, home: Path, words: memoryview, pids: list[int]) -> None:
    async with agentd_client.connect("sender", socket=path) as me:
        async with AsyncExitStack() as opened:
            await halves.channel(me, _NAME, "high", opened)  # it is there
        print(json.dumps(pids), flush=True)
        await Sender(me, stream, home, words).run()


def main(home: Path) -> None:
    """Both halves; the second has a child of its own for the floor. None is bound to a core: the kernel copies in
    threads of its own meanwhile, which share the cores with them."""
    daemon = own.Daemon(home)
    words = halves.words()
    here, there = socket.socketpair()
    receiver_pid = halves.split()
    if not receiver_pid:
        here.close()
        if halves.split():
            there.close()
            asyncio.run(_receive(daemon.socket, home, words))
        else:
            _splice(there, home)
        return
    there.close()
    try:
        asyncio.run(_send(daemon.socket, here, home, words, [daemon.pid, os.getpid(), receiver_pid]))
    finally:
        daemon.close()


if __name__ == "__main__":
    main(Path(sys.argv[4]))
