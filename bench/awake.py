"""Two Python processes that pass bodies of 64 B to and fro without ever sleeping, or send in one direction only.

    python awake.py CONTENDER CORE CORE DIRECTORY      told by lines of JSON on stdin, answering on stdout

This process forks before anything is opened; each half opens its end and pins itself to its core. Between two
commands the other half sleeps in read(2); it is awake before the clock runs. {"trips": N} is answered with N round
trips, timed one by one, as [nanoseconds, how often]; each body has a new sequence number and the reply must equal it.
{"flow": N} is answered with messages a second, from before the first send until the other half has taken and counted
all N (it insists on the sequence of the last one of every list), and with how often a half lost its core meanwhile.
{"quiet": N} is answered with the process ids of both halves and how many pages each faulted in N exchanges that keep
no samples; each half calls getrusage(2) directly before the first and after the last, which marks them in a trace.

How a contender sends and receives, in its own best way, is in its module: `prepare` before the fork, `open_end` after.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, Protocol

BODY_BYTES: Final = 64
#: The bodies of a flow, over and over again.
CYCLE: Final = 4096
WARM_UP: Final = 300
#: Exchanges before the ones that count: what the first ones touch stays touched.
_QUIET_WARM_UP: Final = 2000
_NEVER_NS: Final = 5_000_000_000
_PR_SET_PDEATHSIG: Final = 1
_ORDER: Final = struct.Struct("<cq")
_SWALLOWED: Final = struct.Struct("<qq")  # when, and how often the core was lost

#: Contender to the module that adapts it; the part behind the slash is the mode that module is asked for.
MODULES: Final = {
    "agentd/bytes": "own_direct",
    "agentd/messages": "own_direct",
    "agentd/high-bytes": "own_direct",
    "agentd/high-messages": "own_direct",
    "tachyon/zero-copy": "rivals.tachyon",
    "iceoryx2/pub-sub": "rivals.iceoryx",
    "horus/dict": "rivals.horus",
}
INSTALL_HINT: Final = "not installed: make bench-critical installs it"


class End(Protocol):
    """One end, opened in its process. Whoever waits in it spins."""

    def ping(self, first: int, count: int) -> list[int]:
        """That many round trips, checked: how long each took."""

    def echo(self, count: int) -> None:
        """Send that many back."""


class FlowEnd(End, Protocol):
    """An end of a contender that can be asked for a flow."""

    def pour(self, bodies: Sequence[bytes], count: int) -> None:
        """Send that many, as fast as it goes."""

    def drain(self) -> list[bytes]:
        """What is there."""


class Module(Protocol):
    """What a contender's module offers."""

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""

    def prepare(self, home: Path) -> Any:
        """Whatever must exist before there are two processes."""

    def finish(self, prepared: Any) -> None:
        """End what prepare() began."""

    def open_end(self, prepared: Any, first: bool, mode: str) -> End:
        """In its process. Both are called at the same time, so they may wait for each other."""


def module(name: str) -> Module:
    """The module behind a contender."""
    found: Any = importlib.import_module(MODULES[name])
    return found  # type: ignore[no-any-return]


def body(sequence: int) -> bytes:
    """A body that can be told from all others."""
    return sequence.to_bytes(8, "little").ljust(BODY_BYTES, b"\xa5")


def wrong(sequence: int) -> SystemExit:
    """What to raise for a reply that is none."""
    return SystemExit(f"the reply to message {sequence} is not its echo")


class Calls:
    """An end that consists of two calls: send(body), and receive() that spins until there is one."""

    def __init__(self, send: Callable[[bytes], object], receive: Callable[[], bytes]) -> None:
        self._send = send
        self._receive = receive

    def ping(self, first: int, count: int) -> list[int]:
        send, receive, clock = self._send, self._receive, perf_counter_ns
        samples = []
        for sequence in range(first, first + count):
            sent = body(sequence)
            start = clock()
            send(sent)
            reply = receive()
            end = clock()
            if reply != sent:
                raise wrong(sequence)
            samples.append(end - start)
        return samples

    def echo(self, count: int) -> None:
        send, receive = self._send, self._receive
        for _ in range(count):
            send(receive())


def _times_lost() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def _exchange(end: Any, bodies: Sequence[bytes], count: int, first: bool) -> list[int]:
    """That many there and back, checked, and nothing kept of them: our process id and its page faults."""
    send, receive = end.channel.send, end.receiver.receive_bytes
    _faults()  # the pages of this very question are its own, after the fork
    for number in range(-_QUIET_WARM_UP, count):
        if number == 0:
            before = _faults()
        sent = bodies[number % CYCLE]
        if first:
            send(sent)
        if receive() != sent:
            raise wrong(number)
        if not first:
            send(sent)
    faulted = _faults() - before
    return [os.getpid(), faulted]


def _swallow(end: Any, bodies: Sequence[bytes], count: int) -> None:
    """Take that many, and insist on where each list ends."""
    taken = 0
    give_up = perf_counter_ns() + _NEVER_NS
    while taken < count:
        some = end.drain()
        if some:
            taken += len(some)
            if some[-1] != bodies[(taken - 1) % CYCLE]:
                raise SystemExit(f"message {taken - 1} was due, another one came")
        elif perf_counter_ns() > give_up:
            raise SystemExit(f"{count} were sent, {taken} came")


def _other_half(end: Any, wire: socket.socket) -> None:
    bodies = [body(sequence) for sequence in range(CYCLE)]
    while order := wire.recv(_ORDER.size):
        kind, count = _ORDER.unpack(order)
        wire.send(b"!")
        if kind == b"t":
            end.echo(count)
        elif kind == b"q":
            wire.send(_SWALLOWED.pack(*_exchange(end, bodies, count, False)))
        else:
            lost = _times_lost()
            _swallow(end, bodies, count)
            wire.send(_SWALLOWED.pack(perf_counter_ns(), _times_lost() - lost))


def _first_half(end: Any, wire: socket.socket) -> None:
    bodies = [body(sequence) for sequence in range(CYCLE)]
    sequence = 0
    for line in sys.stdin:
        command = json.loads(line)
        answer: object
        if "trips" in command:
            count = command["trips"] + WARM_UP
            wire.send(_ORDER.pack(b"t", count))
            wire.recv(1)
            answer = list(Counter(end.ping(sequence, count)[WARM_UP:]).items())
            sequence += count
        elif "quiet" in command:
            count = command["quiet"]
            wire.send(_ORDER.pack(b"q", count))
            wire.recv(1)
            mine = _exchange(end, bodies, count, True)
            answer = [mine, _SWALLOWED.unpack(wire.recv(_SWALLOWED.size))]
        else:
            count = command["flow"]
            wire.send(_ORDER.pack(b"f", count))
            wire.recv(1)
            lost, start = _times_lost(), perf_counter_ns()
            end.pour(bodies, count)
            ended, others = _SWALLOWED.unpack(wire.recv(_SWALLOWED.size))
            answer = [count * 1e9 / (ended - start), _times_lost() - lost + others]
        print(json.dumps(answer), flush=True)


def main(name: str, first_core: int, last_core: int, home: Path) -> None:
    """Both halves."""
    contender = module(name)
    prepared = contender.prepare(home)
    first_wire, other_wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first = os.fork() != 0
    if not first:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        other_wire, first_wire = first_wire, other_wire
    other_wire.close()
    end = contender.open_end(prepared, first, name.partition("/")[2])
    os.sched_setaffinity(0, {first_core if first else last_core})
    if first:
        first_wire.recv(1)
        print("[]", flush=True)
        try:
            _first_half(end, first_wire)
        finally:
            contender.finish(prepared)
    else:
        first_wire.send(b"!")
        _other_half(end, first_wire)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
