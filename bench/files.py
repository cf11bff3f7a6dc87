"""A part of high.py: a file of 1 GiB from disk to disk, beside sendfile(2) into a Unix socket and splice(2) out of it.

The two take turns, and a ratio is of two that followed one another: one of them takes longer than the cores keep their
places, so there is no regime. The two ends are file_ends.py's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import report
from python_ends import PythonEnds
from sampler import median

FILE_BYTES: Final = 1 << 30
SMOKE_BYTES: Final = 8 << 20
TURNS: Final = 7
HELD_US: Final = 1000
PROGRAM: Final = Path(__file__).with_name("file_ends.py")
_WHAT: Final = "a file, disk to disk"


class Files:
    """What the runs gave."""

    def __init__(self, result: report.Report, home: Path) -> None:
        self._result = result
        self._home = home
        self._size, self._turns = (SMOKE_BYTES, 1) if result.smoke else (FILE_BYTES, TURNS)
        self._rates: dict[str, list[float]] = {"agentd": [], "sendfile and splice": []}
        self._ratios: list[float] = []
        self._held_us: dict[str, list[float]] = {"sender": [], "receiver": []}

    def measure(self, run: int) -> None:
        """One run, with fresh processes."""
        end = PythonEnds("files", self._home / f"{run}-files", program=PROGRAM)
        try:
            end.ask({"make": self._size})
            ours, floors, ratios, held = [], [], [], []
            for turn in range(-1, self._turns):  # the first is no figure: it finds nothing ready
                took_ns, *held_ns = end.ask({"agentd": 0})
                (floor_ns,) = end.ask({"sendfile": 0})
                if turn < 0:
                    continue
                ours.append(self._size / took_ns)
                floors.append(self._size / floor_ns)
                ratios.append(floor_ns / took_ns)
                held.append(held_ns)
        finally:
            end.close()
        for by_run, values in zip(self._rates.values(), (ours, floors), strict=True):
            by_run.append(median(values))
        self._ratios.append(median(ratios))
        for longest_us, held_ns in zip(self._held_us.values(), zip(*held, strict=True), strict=True):
            longest_us.append(max(held_ns) / 1000)

    def figures(self) -> None:
        """All of it, into the report."""
        verified = len(self._ratios) * self._turns
        for name, rates in self._rates.items():
            self._result.figure(_WHAT, name, "GB/s", rates, size_bytes=self._size, verified=verified)
        for name, longest_us in self._held_us.items():
            self._result.figure("longest callback", f"agentd, {name}", "µs", longest_us, size_bytes=self._size)

    def judge(self) -> None:
        """The promises."""
        size = report.size(FILE_BYTES)
        self._result.at_least(f"file of {size}: rate, of sendfile and splice", 1, self._ratios, "×")
        for name, longest_us in self._held_us.items():
            self._result.at_most(f"file of {size}: the {name}'s loop is held, at most", HELD_US, longest_us, "µs")
