"""A part of critical.py and high.py: what a wake-up takes in asyncio, beside a bare eventfd and beside a busy thread.

The wakes themselves are sleeper.py's. A ratio is that of two medians of the same run and regime, whose wakes took turns
one by one. Beside a computing thread nothing is promised: it keeps the interpreter, 5 ms at a time unless on_critical()
has shortened that. Only the critical lane is asked for that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import chunks
import report
import table
from python_ends import PythonEnds
from sampler import Sampler

WAYS: Final = ("inbox", "receive")
BUSY_WAYS: Final = ("inbox", "on_critical")
BOUND: Final = 1.25
BODY_BYTES: Final = 64
PROGRAM: Final = Path(__file__).with_name("sleeper.py")
#: A pair of wakes takes 7 ms and more: so many are one chunk.
_A_CHUNK: Final = 6
_PAUSE_MS: Final = (2, 5)
#: Beside a computing thread a wake takes up to three of its turns.
_BUSY_PAUSE_MS: Final = (15, 30)
_BUSY_WAKES_A_S: Final = 40
_BUSY: Final = " beside a computing thread"

Wakes = tuple[list[int], list[int]]  # agentd's and the eventfd's, in nanoseconds
Play = Callable[..., dict[tuple[str, str], list[chunks.Chunk[Wakes]]]]


class Asleep:
    """What the runs gave."""

    def __init__(self, result: report.Report, lane: str, home: Path, seconds: float, play: Play) -> None:
        self._result = result
        self._lane = lane
        self._home = home
        self._seconds = seconds
        self._play = play
        self._p50_us = table.Table()
        self._samples: dict[tuple[str, str], Sampler] = {}

    def measure(self, run: int) -> None:
        """One run, with fresh processes."""
        home, seconds = self._home, self._seconds
        with ExitStack() as undo:
            ends = {}
            for way in WAYS:
                ends[way] = PythonEnds(f"{self._lane}/{way}", home / f"{run}-asleep-{way}", program=PROGRAM)
                undo.callback(ends[way].close)
            turns = {way: _turn(end, _A_CHUNK, False) for way, end in ends.items()}
            for (way, regime), kept in self._play(
                turns, max(chunks.MIN_KEPT, round(2 * seconds / chunks.CHUNK_S))
            ).items():
                ours: list[int] = []
                bare: list[int] = []
                for chunk in kept:
                    ours += chunk.result[0]
                    bare += chunk.result[1]
                self._add(run, way, regime, ours)
                self._add(run, f"eventfd beside {way}", regime, bare)
        for way in BUSY_WAYS if self._lane == "critical" else ():
            end = PythonEnds(f"{self._lane}/{way}", home / f"{run}-busy-{way}", program=PROGRAM)
            try:
                ours, bare = _turn(end, max(3, round(seconds * _BUSY_WAKES_A_S)), True)()
            finally:
                end.close()
            self._add(run, way + _BUSY, "any", ours)
            self._add(run, f"eventfd beside {way}{_BUSY}", "any", bare)

    def _add(self, run: int, name: str, regime: str, wakes_ns: list[int]) -> None:
        sampler = Sampler(wakes_ns)
        self._samples.setdefault((name, regime), Sampler()).extend(wakes_ns)
        self._p50_us.add(run, BODY_BYTES, {(name, regime): sampler.summary().p50_us})

    def figures(self) -> None:
        """All of it, into the report."""
        for (size_bytes, regime, name), by_run in self._p50_us.rows():
            samples = self._samples[name, regime]
            more = {"summary": samples.summary(), "verified": len(samples)}
            self._result.figure("wake p50", name, "µs", by_run, size_bytes=size_bytes, regime=regime, **more)

    def judge(self) -> None:
        """The promise."""
        for way in WAYS:
            ratios = self._p50_us.ratios(BODY_BYTES, way, f"eventfd beside {way}")
            what = f"wake of a sleeping coroutine, {way}, of eventfd and future"
            self._result.at_most(what, BOUND, ratios, "×")


def _turn(end: PythonEnds, wakes: int, beside: bool) -> Callable[[], Wakes]:
    def turn() -> Wakes:
        pause_ms = _BUSY_PAUSE_MS if beside else _PAUSE_MS
        ours, bare = end.ask({"wakes": wakes, "pause_ms": pause_ms, "beside": beside})
        return ours, bare

    return turn
