"""agentd's direct lanes from Python: a daemon that introduces the two ends, and its own client at both of them.

bytes     channel.send and receiver.receive_bytes
messages  channel.send and receiver.receive: an object for each message, which can be asked for all that is known of it
high-...  the same on the high lane, else it is the critical one
Receivers look for longer than a chunk takes before they sleep. A flow is channel.send in a loop into drain_bytes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import awake
import own

from agentd.wire.errors import AgentdError, Backpressure
from agentd_client import blocking

_AT_ONCE: Final = 256
_DEADLINE_S: Final = 10.0
_NAMES: Final = ("first", "other")


def missing() -> str:
    return ""


def prepare(home: Path) -> own.Daemon:
    """The daemon."""
    settings = home / "agentd" / "config.toml"
    settings.parent.mkdir()
    settings.write_text("[direct]\nspin_us = 1000000.0\n")
    return own.Daemon(home)


def finish(prepared: own.Daemon) -> None:
    prepared.close()


class Bytes(awake.Calls):
    """Bodies alone."""

    def __init__(self, socket: str, name: str, peer: str, lane: str) -> None:
        self._open = ExitStack()
        me = self._open.enter_context(blocking.connect(name, socket=socket))
        self.receiver = self._open.enter_context(me.receiver(lane))
        self.channel = self._channel(me, peer, lane)
        receive: Any = self.receiver.receive_bytes  # None only when its time is over, and it has no end here
        super().__init__(self.channel.send, receive)

    def _channel(self, me: blocking.Client, peer: str, lane: str) -> blocking.Channel:
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                return self._open.enter_context(me.channel(peer, lane))
            except AgentdError:  # it is not there yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def pour(self, bodies: Sequence[bytes], count: int) -> None:
        send = self.channel.send
        left = count
        while left > 0:
            for one in bodies[:left]:
                while True:
                    try:
                        send(one)
                        break
                    except Backpressure:
                        continue  # the ring is full
            left -= len(bodies)

    def drain(self) -> list[bytes]:
        return self.receiver.drain_bytes(_AT_ONCE)


class Messages(Bytes):
    """Objects."""

    def ping(self, first: int, count: int) -> list[int]:
        send, clock = self.channel.send, perf_counter_ns
        receive: Any = self.receiver.receive
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
        send = self.channel.send
        receive: Any = self.receiver.receive
        for _ in range(count):
            send(receive().body)


def open_end(prepared: own.Daemon, first: bool, mode: str) -> Bytes:
    name, peer = _NAMES if first else reversed(_NAMES)
    lane = "high" if mode.startswith("high-") else "critical"
    return (Messages if mode.endswith("messages") else Bytes)(prepared.socket, name, peer, lane)
