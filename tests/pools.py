"""A pair with a pool and both of its ends, for the tests of large bodies."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from agentd import _native

RING: Final = 1 << 20
VERDICTS: Final = 8192
PAGE: Final = 4096
POOL: Final = 64 * PAGE
RING_AT: Final = 12288 + VERDICTS
BLOCKS_AT: Final = RING_AT + RING + PAGE
INLINE: Final = 16 << 10
POOLED: Final = 16  # a record's flag


class Refused(Exception):
    """By the channel: errno and size."""


class Taken(_native.Record):
    __slots__ = ()


def refuse(error: int, size: int) -> None:
    raise Refused(errno.errorcode[error], size)


def bell() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


class Ends:
    """A pair, both ends of it, and the mailbox of its receiver."""

    def __init__(self, pool: int = POOL, ring: int = RING) -> None:
        self.shape = (2, 7, ring, VERDICTS, pool)
        self.fd = _native.create_pair(*self.shape, False)
        self.channel = self.sender()
        self.incoming: Any = self.receiver()
        self.over: list[Any] = []
        self.mailbox = _native.Mailbox(Taken, self.over.append, self.over.append, 0)
        self.mailbox.add(self.incoming)

    def sender(self) -> _native.Channel:
        return _native.Channel(self.fd, *self.shape, bell(), lambda body: (1, b"encoded"), refuse)

    def receiver(self) -> _native.Incoming:
        return _native.Incoming(self.fd, *self.shape, bell())

    def take(self) -> Any:
        return self.mailbox.take()

    def close(self) -> None:
        self.mailbox.close()
        self.incoming.close()
        self.channel.close()
        os.close(self.fd)


def blocks_of(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512
