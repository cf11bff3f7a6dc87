"""What two ends that are both awake gave, by run, regime and contender: critical.py's, and high.py's beside it.

A ratio to the floor is that of a chunk to the two floors around it, each by the mean of its middle half; a run's is the
median of its chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import chunks
import core
import report
import table
from sampler import Tally, median

SMALL_BYTES: Final = 64
LARGE_BYTES: Final = 4096
#: Of these a block or record has LARGE_BYTES.
LARGE: Final = ("large", "memcpy")


class Results:
    """What the runs gave. `units` has what is no round trip: "ns" of its sender's time, or things a second."""

    def __init__(self, result: report.Report, floor: core.Core, units: Mapping[str, str]) -> None:
        self._result = result
        self._units = units
        self.smoke = result.smoke
        self._floor = floor
        self._dropped = self._total = self._disturbed = 0
        self._tallies: dict[tuple[str, str], Tally] = {}
        self.p50_ns = table.Table()
        self.p999 = table.Table()  # as a multiple of the median
        self.of_floor = table.Table()
        self.over_floor_ns = table.Table()
        self.values = table.Table()

    def play(
        self, turns: Mapping[str, Callable[[], chunks.R]], count: int
    ) -> dict[tuple[str, str], list[chunks.Chunk[chunks.R]]]:
        """The chunks worth keeping by contender and regime. A smoke run judges nothing and keeps all."""
        kept: dict[tuple[str, str], list[chunks.Chunk[chunks.R]]] = {}
        for name, done in chunks.alternate(turns, count, self._floor).items():
            self._total += len(done)
            for chunk in done:
                if self.smoke or chunk.kept:
                    regime = "any" if self.smoke else chunk.before.regime
                    kept.setdefault((name, regime), []).append(chunk)
                else:
                    self._dropped += 1
        return {key: some for key, some in kept.items() if len(some) >= chunks.MIN_KEPT}

    def trips(self, run: int, turns: Mapping[str, Callable[[], Tally]], count: int, floor: str) -> None:
        """One run of these round trips. `floor` is what to call the floor beside them."""
        floors: dict[str, list[float]] = {}
        for (name, regime), kept in self.play(turns, count).items():
            tally, ratios, above_ns = Tally(), [], []
            for chunk in kept:
                floor_ns = (chunk.before.cacheline_ns + chunk.after.cacheline_ns) / 2
                floors.setdefault(regime, []).append(floor_ns)
                one_way_ns = chunk.result.middle() / 2
                ratios.append(one_way_ns / floor_ns)
                above_ns.append(one_way_ns - floor_ns)
                tally.add(chunk.result.items())
            self._tallies.setdefault((name, regime), Tally()).add(tally.items())
            p50_ns = tally.rank(0.5) / 2
            key = (name, regime)
            self.p50_ns.add(run, SMALL_BYTES, {key: p50_ns})
            self.p999.add(run, SMALL_BYTES, {key: tally.rank(0.999) / 2 / p50_ns})
            self.of_floor.add(run, SMALL_BYTES, {key: median(ratios)})
            self.over_floor_ns.add(run, SMALL_BYTES, {key: median(above_ns)})
        for regime, found in floors.items():
            self.p50_ns.add(run, SMALL_BYTES, {(floor, regime): median(found)})

    def rates(self, run: int, turns: Mapping[str, Callable[[], float]], count: int) -> None:
        """One run of these."""
        for (name, regime), kept in self.play(turns, count).items():
            size_bytes = LARGE_BYTES if name in LARGE else SMALL_BYTES
            values = [chunk.result for chunk in kept if not math.isnan(chunk.result)]
            self._disturbed += len(kept) - len(values)
            if values:
                self.values.add(run, size_bytes, {(name, regime): median(values)})

    def figures(self) -> None:
        """All of it, into the report."""
        for (size_bytes, regime, name), by_run in self.p50_ns.rows():
            tally = self._tallies.get((name, regime))
            more = {"summary": tally.summary(2), "verified": len(tally)} if tally else {}
            self._result.figure("one way p50", name, "ns", by_run, size_bytes=size_bytes, regime=regime, **more)
        for (size_bytes, regime, name), by_run in self.values.rows():
            unit = self._units[name]
            what = "cost to the sender" if unit == "ns" else "rate"
            self._result.figure(what, name, unit, by_run, size_bytes=size_bytes, regime=regime)
        self._result.notes.append(
            f"{self._dropped} of {self._total} chunks dropped: the cache-line floor moved by more than 20 % meanwhile; "
            f"{self._disturbed} rates and costs, for an end lost its core to other programs"
        )
