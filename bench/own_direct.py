"""agentd's direct lane as Python has it: agentd._native, without the daemon, which only introduces the two ends.

bytes     Channel.send and Mailbox.receive_bytes
messages  Channel.send and Mailbox.receive: an object for each, with its id, sender and times behind it
Both pairs are of the size that the daemon gives CRITICAL. A flow is Channel.send in a loop into Mailbox.drain_bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import awake

_CRITICAL: Final = 1
_RING_BYTES: Final = 1 << 16
_VERDICT_BYTES: Final = 1 << 14
#: Longer than a chunk: the receiver is never asleep.
_SPIN_NS: Final = 10_000_000_000
_AT_ONCE: Final = 256


def missing() -> str:
    from agentd import _native

    return "" if hasattr(_native, "Channel") else "this build has no direct lanes"


def prepare(home: Path) -> Any:
    """The memory of both directions."""
    from agentd import _native

    return [_native.create_pair(_CRITICAL, number, _RING_BYTES, _VERDICT_BYTES, False) for number in (0, 1)]


def _refuse(error: int, size: int) -> None:
    raise OSError(error, os.strerror(error))


class Bytes(awake.Calls):
    """Bodies alone."""

    def __init__(self, memory: list[int], out: int) -> None:
        from agentd import _native

        def shape(number: int) -> tuple[int, int, int, int, int, int]:
            return memory[number], _CRITICAL, number, _RING_BYTES, _VERDICT_BYTES, os.eventfd(0)

        self.channel = _native.Channel(*shape(out), None, _refuse)
        self.mailbox = _native.Mailbox(_native.Record, print, print, _SPIN_NS)
        self.mailbox.add(_native.Incoming(*shape(1 - out)))
        receive: Any = self.mailbox.receive_bytes  # None only when its time is over, and it has no end here
        super().__init__(self.channel.send, receive)

    def pour(self, bodies: Sequence[bytes], count: int) -> None:
        send = self.channel.send
        left = count
        while left > 0:
            for one in bodies[:left]:
                while True:
                    try:
                        send(one)
                        break
                    except BlockingIOError:
                        continue  # the ring is full
            left -= len(bodies)

    def drain(self) -> list[bytes]:
        return self.mailbox.drain_bytes(_AT_ONCE)


class Messages(Bytes):
    """Objects."""

    def ping(self, first: int, count: int) -> list[int]:
        send, receive, clock = self.channel.send, self.mailbox.receive, perf_counter_ns
        samples = []
        for sequence in range(first, first + count):
            sent = awake.body(sequence)
            start = clock()
            send(sent)
            reply = receive()
            end = clock()
            if reply.body != sent:
                raise awake.wrong(sequence)
            samples.append(end - start)
        return samples

    def echo(self, count: int) -> None:
        send, receive = self.channel.send, self.mailbox.receive
        for _ in range(count):
            send(receive().body)


def open_end(prepared: Any, first: bool, mode: str) -> Bytes:
    return (Messages if mode == "messages" else Bytes)(prepared, 0 if first else 1)
