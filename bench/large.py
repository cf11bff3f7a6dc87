"""A part of high.py: large bodies that hold nobody up, loans that nobody copies, bursts that ring once.

hold   `channel.send` of 16 MiB in asyncio: for how long it holds the sender's loop, beside a memcpy of the same body
loan   a hand-over of memory that is filled already: from 64 KiB to 16 MiB it should take the same time
burst  1,000 records within a burst() to a receiver that sleeps: what the sender asked of the kernel, by strace
The two ends are large_ends.py's, both in asyncio and asleep before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import chunks
import process
import quiet
import report
import table
from python_ends import PythonEnds
from sampler import Sampler

HELD_BYTES: Final = 16 << 20
LOANED_BYTES: Final = (64 << 10, 1 << 20, 16 << 20)
HELD_US: Final = 50
FLAT: Final = 1.25
BURST: Final = 1000
PROGRAM: Final = Path(__file__).with_name("large_ends.py")
#: What "hold" is answered with.
HELD: Final = (
    "send of a large body: the call",
    "send of a large body: loop held",
    "send of a large body: taken",
    "memcpy",
)
#: How many are one chunk.
_HOLDS: Final = 4
_LOANS: Final = 8
_BURSTS: Final = 5
_ATTACH_S: Final = 0.5

Play = Callable[..., dict[tuple[str, str], list[chunks.Chunk[Any]]]]


class Large:
    """What the runs gave."""

    def __init__(self, result: report.Report, home: Path, seconds: float, play: Play) -> None:
        self._result = result
        self._home = home
        self._seconds = seconds
        self._play = play
        self._p50_us = table.Table()
        self._samples: dict[table.Row, Sampler] = {}
        self._rung: list[float] = []
        self._why = ""

    def measure(self, run: int) -> None:
        """One run, with fresh processes."""
        end = PythonEnds("large", self._home / f"{run}-large", program=PROGRAM)
        try:
            turns: dict[str, Callable[[], Any]] = {"hold": lambda: end.ask({"hold": [HELD_BYTES, _HOLDS]})}
            for size_bytes in LOANED_BYTES:
                turns[_loan_of(size_bytes)] = _loan(end, size_bytes)
            for (what, regime), kept in self._play(
                turns, max(chunks.MIN_KEPT, round(self._seconds / chunks.CHUNK_S))
            ).items():
                answers = [answer for chunk in kept for answer in chunk.result]
                if what == "hold":
                    for name, some in zip(HELD, zip(*answers, strict=True), strict=True):
                        self._add(run, HELD_BYTES, name, regime, list(some))
                else:
                    self._add(run, 0, what, regime, answers)
            self._count_calls(end, run)
        finally:
            end.close()

    def _add(self, run: int, size_bytes: int, name: str, regime: str, took_ns: list[int]) -> None:
        self._samples.setdefault((size_bytes, regime, name), Sampler()).extend(took_ns)
        self._p50_us.add(run, size_bytes, {(name, regime): Sampler(took_ns).summary().p50_us})

    def _count_calls(self, end: PythonEnds, run: int) -> None:
        strace = shutil.which("strace")
        if strace is None:
            self._why = "strace is not installed: apt-get install strace"
            return
        _, pid, _ = end.about
        for turn in range(_BURSTS):
            log = self._home / f"{run}-{turn}-strace"
            child = process.spawn([strace, "-f", "-ttt", "-o", str(log), "-p", str(pid)], log=log.with_suffix(".err"))
            try:
                time.sleep(_ATTACH_S)
                if child.poll() is not None:
                    self._why = f"strace can't attach here: {log.with_suffix('.err').read_text().strip()[-200:]}"
                    return
                end.ask({"burst": BURST})
            finally:
                process.stop(child)
            counts = quiet.between_marks(log.read_text().splitlines(), [pid])
            self._rung.append(counts["io_uring_enter"])

    def figures(self) -> None:
        """All of it, into the report."""
        for (size_bytes, regime, name), by_run in self._p50_us.rows():
            summary = self._samples[size_bytes, regime, name].summary()
            more = {"size_bytes": size_bytes, "regime": regime, "verified": summary.count, "summary": summary}
            self._result.figure("p50", name, "µs", by_run, **more)
        if self._rung:
            self._result.figure(f"submissions of a burst of {BURST:,}", "high", "", self._rung, verified=BURST)

    def judge(self) -> None:
        """The promises."""
        _, held, _, memcpy = HELD
        size = report.size(HELD_BYTES)
        self._result.at_most(f"{size}: the sender's loop is held", HELD_US, self._p50_us.of(held), "µs")
        ratios = self._p50_us.ratios(HELD_BYTES, held, memcpy)
        self._result.at_most(f"{size}: the sender's loop is held, of memcpy()", 0.1, ratios, "×")
        least, most = _loan_of(LOANED_BYTES[0]), _loan_of(LOANED_BYTES[-1])
        self._result.at_most(f"{most} handed over, of a {least}", FLAT, self._p50_us.ratios(0, most, least), "×")
        self._result.at_most(f"a burst of {BURST:,} to one that sleeps, submissions", 1, self._rung, reason=self._why)


def _loan_of(size_bytes: int) -> str:
    return f"loan of {report.size(size_bytes)}"


def _loan(end: PythonEnds, size_bytes: int) -> Callable[[], Any]:
    return lambda: end.ask({"loan": [size_bytes, _LOANS]})
