"""tachyon-ipc: a ring in shared memory, in its fastest mode: both ends work in the ring itself, under its guards.

A bus has one producer, who listens, and one consumer, who connects. The echo writes what it received straight from one
ring's memory into the other's.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import awake

_CAPACITY: Final = 1 << 16
_DEADLINE_S: Final = 10.0


def missing() -> str:
    try:
        importlib.import_module("tachyon")
    except ImportError:
        return awake.INSTALL_HINT
    return ""


def prepare(home: Path) -> Any:
    return home


def finish(prepared: Any) -> None:
    pass


class Guards:
    """Both buses of one end."""

    def __init__(self, home: Path, first: bool) -> None:
        self._tachyon: Any = importlib.import_module("tachyon")
        there, back = str(home / "there"), str(home / "back")
        if first:
            self._out, self._in = self._listen(there), self._connect(back)
        else:
            self._in, self._out = self._connect(there), self._listen(back)

    def _listen(self, path: str) -> Any:
        bus = self._tachyon.TachyonBus()
        bus.listen(socket_path=path, capacity=_CAPACITY)
        return bus

    def _connect(self, path: str) -> Any:
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            bus = self._tachyon.TachyonBus()
            try:
                bus.connect(socket_path=path)
                return bus
            except OSError:  # not there yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def ping(self, first: int, count: int) -> list[int]:
        acquire_tx, flush, acquire_rx, clock = (
            self._out.acquire_tx,
            self._out.flush,
            self._in.acquire_rx,
            perf_counter_ns,
        )
        samples = []
        for sequence in range(first, first + count):
            sent = awake.body(sequence)
            start = clock()
            with acquire_tx(awake.BODY_BYTES) as room:
                with memoryview(room) as view:
                    view[:] = sent
                room.actual_size = awake.BODY_BYTES
            flush()
            with acquire_rx() as found, memoryview(found) as view:
                end = clock()
                if view != sent:
                    raise awake.wrong(sequence)
            samples.append(end - start)
        return samples

    def echo(self, count: int) -> None:
        acquire_tx, flush, acquire_rx = self._out.acquire_tx, self._out.flush, self._in.acquire_rx
        for _ in range(count):
            with acquire_rx() as found, memoryview(found) as view, acquire_tx(awake.BODY_BYTES) as room:
                with memoryview(room) as copy:
                    copy[:] = view
                room.actual_size = awake.BODY_BYTES
            flush()


def open_end(prepared: Any, first: bool, mode: str) -> Guards:
    return Guards(prepared, first)
