"""The HIGH lane, measured: beside the bare cache line and CRITICAL where both ends are awake, beside the cheapest that
the kernel offers where the receiver sleeps.

What critical.py says of chunks, floors, regimes and ratios holds here. --only picks parts, separated by commas:

core        in C, awake: a pair of HIGH's size beside one of CRITICAL's, one way and what a record costs its sender
python      from Python, awake: a thread that looks into the lane, for bodies and for messages (own_direct.py)
doorbells   in C, asleep: one and 32 receivers rung for by write(2), and through the engine (doorbells.py)
asleep      from Python, asleep: asyncio to asyncio, beside an eventfd and a future (asleep.py)
bodies      from Python, asleep: 64 B, 64 KiB and 1 MiB beside pyzmq, zenoh and iceoryx2 in their event-driven modes
            (bodies.py)
large       16 MiB without holding the loop, loans, bursts (large.py)
files       1 GiB from disk to disk, beside sendfile and splice (files.py)
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

import asleep
import bodies
import chunks
import core
import doorbells
import files
import large
import report
from python_ends import PythonEnds
from results import SMALL_BYTES, Results

AWAKE: Final = ("core", "python")
PARTS: Final = (*AWAKE, "doorbells", "asleep", "bodies", "large", "files")
#: What to call it: its lane, and what critical.c does.
TRIPS: Final = {
    "cache line": ("critical", "floor"),
    "critical": ("critical", "record"),
    "high": ("high", "record"),
}
COSTS: Final = {"critical, a record": ("critical", "enqueue-record"), "high, a record": ("high", "enqueue-record")}
PYTHON: Final = ("agentd/high-bytes", "agentd/high-messages")
OVER_FLOOR_NS: Final = 600
SMOKE_MS: Final = 5
COST_MS: Final = 10


class Part(Protocol):
    """A part of the benchmark."""

    def measure(self, run: int) -> None:
        """One run."""

    def figures(self) -> None:
        """All of it, into the report."""

    def judge(self) -> None:
        """The promises."""


class Awake:
    """Two parts, both ends awake: in C ("core") and from Python ("python"). Has also what the others dropped."""

    def __init__(self, bench: Bench, wanted: Collection[str]) -> None:
        self._bench = bench
        self._wanted = wanted
        self._results = bench.results
        self._span_ms = SMOKE_MS if bench.result.smoke else round(chunks.CHUNK_S * 1000)

    def measure(self, run: int) -> None:
        if "core" in self._wanted:
            self._in_c(run)
        if "python" in self._wanted:
            self._from_python(run)

    def _in_c(self, run: int) -> None:
        cores, count = self._bench.cores, self._bench.count
        trips = {name: cores[lane].trips(what, self._span_ms) for name, (lane, what) in TRIPS.items()}
        self._results.trips(run, trips, count, "floor")
        cost_ms = min(self._span_ms, COST_MS)
        smoke = self._results.smoke
        costs = {name: cores[lane].value(what, cost_ms, smoke) for name, (lane, what) in COSTS.items()}
        self._results.rates(run, costs, count)

    def _from_python(self, run: int) -> None:
        with ExitStack() as undo:
            turns = {}
            for name in PYTHON:
                home = self._bench.home / f"{run}-{name.replace('/', '-')}"
                end = PythonEnds(name, home, self._span_ms / 1000)
                undo.callback(end.close)
                turns[name] = end.trips()
            self._results.trips(run, turns, self._bench.count, "floor beside Python")

    def figures(self) -> None:
        self._results.figures()

    def judge(self) -> None:
        result, results = self._bench.result, self._results
        if "core" in self._wanted:
            result.at_most("one way in C, awake", 1000, results.p50_ns.of("high"), "ns")
            ratios = results.p50_ns.ratios(SMALL_BYTES, "high", "critical")
            result.at_most("one way in C, awake, of CRITICAL's", 1.5, ratios, "×")
            cost_ns = results.values.of("high, a record")
            result.at_most("cost to the sender of a record in C, awake", 60, cost_ns, "ns")
        for name in PYTHON if "python" in self._wanted else ():
            above_ns = results.over_floor_ns.of(name)
            result.at_most(f"one way, {name}, awake, above the floor", OVER_FLOOR_NS, above_ns, "ns")


class Bench:
    """What the parts share."""

    def __init__(self, chosen: argparse.Namespace, home: Path) -> None:
        self.result = report.begin("high", chosen)
        self.chosen = chosen
        self.home = home
        self.cores = {lane: core.Core(home, lane) for lane in ("critical", "high")}
        self.floor = self.cores["critical"]
        self.count = max(chunks.MIN_KEPT, round(chosen.seconds / chunks.CHUNK_S))
        self.results = Results(self.result, self.floor, dict.fromkeys(COSTS, "ns"))

    def part(self, name: str) -> Part:
        """One that has a file of its own."""
        seconds, play = self.chosen.seconds, self.results.play
        if name == "doorbells":
            return doorbells.Doorbells(self.result, self.home, seconds, play)
        if name == "asleep":
            return asleep.Asleep(self.result, "high", self.home, seconds, play)
        if name == "large":
            return large.Large(self.result, self.home, seconds, play)
        if name == "files":
            return files.Files(self.result, self.home)
        return bodies.Bodies(self.result, self.chosen, self.home)


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    bench = Bench(chosen, home)
    if bench.floor.missing:
        bench.result.leave_out("everything", bench.floor.missing)
        Awake(bench, ["core"]).judge()
        return bench.result
    asked = chosen.only.split(",") if chosen.only else PARTS
    wanted = [name for name in PARTS if name in asked]
    for name in PARTS:
        if name not in asked:
            bench.result.leave_out(name, "not asked for")
    parts: list[Part] = [Awake(bench, wanted)]
    parts += [bench.part(name) for name in wanted if name not in AWAKE]
    for run in range(chosen.runs):
        for one in bench.cores.values():
            one.start()
        for part in parts:
            part.measure(run)
    for one in bench.cores.values():
        one.close()
    for part in parts:
        part.figures()
    for part in parts:
        part.judge()
    return bench.result


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
