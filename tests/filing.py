"""What the tests of send_file and save share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from daemons import Daemon, wait_until

from agentd import _native
from agentd_client import client, connect

LONG = 30.0
MIB = 1 << 20


def content(size: int, seed: int = 1) -> bytes:
    """Bytes in which no two pieces are alike."""
    words = (size + 7) // 8
    return b"".join((number * 2654435761 + seed).to_bytes(8, "little") for number in range(words))[:size]


def digest(data: bytes) -> str:
    """As a saved file has it."""
    return f"crc32c:{_native.crc32c(data):08x}"


def file(directory: Path, name: str, data: bytes) -> Path:
    """A file to send."""
    path = directory / name
    path.write_bytes(data)
    return path


def open_files() -> list[str]:
    """What this process has open that files and pairs are made of."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return sorted(one for one in found if one.startswith("/") and "agentd.log" not in one and "/dev/" not in one)


def expect_open(before: list[str]) -> None:
    """No more files and pairs are open than then, in a moment."""
    wait_until(lambda: open_files() == before, f"{before} to be all that is open")


@asynccontextmanager
async def two(daemon: Daemon) -> AsyncIterator[tuple[client.Client, client.Client]]:
    """Who receives, and who sends; when both have left, nothing of what they had is open."""
    before = await asyncio.to_thread(open_files)
    async with connect("builder", socket=daemon.socket) as builder, connect("planner", socket=daemon.socket) as me:
        yield builder, me
    await asyncio.to_thread(expect_open, before)


async def offered(builder: client.Client, name: str | None = None) -> Any:
    """The message that offers a file."""
    message: Any = await builder.receive(timeout=LONG)
    assert message is not None and message.file is not None
    assert name is None or message.file.name == name
    return message
