"""The HIGH lane, measured: beside the bare cache line and CRITICAL where both ends are awake, beside the cheapest that
the kernel offers where the receiver sleeps.

What critical.py says of chunks, floors, regimes and ratios holds here. --only picks parts, separated by commas:

core        in C, awake: a pair of HIGH's size beside one of CRITICAL's, one way and what a record costs its sender
doorbells   in C, asleep: one and 32 receivers rung for by write(2), and through the engine (doorbells.py)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

import chunks
import core
import doorbells
import report
from results import SMALL_BYTES, Results

PARTS: Final = ("core", "doorbells")
#: What to call it: its lane, and what critical.c does.
TRIPS: Final = {
    "cache line": ("critical", "floor"),
    "critical": ("critical", "record"),
    "high": ("high", "record"),
}
COSTS: Final = {"critical, a record": ("critical", "enqueue-record"), "high, a record": ("high", "enqueue-record")}
SMOKE_MS: Final = 5
COST_MS: Final = 10


def measure_core(cores: dict[str, core.Core], results: Results, run: int, span_ms: int, count: int) -> None:
    """One run in C, both awake."""
    trips = {name: cores[lane].trips(what, span_ms) for name, (lane, what) in TRIPS.items()}
    results.trips(run, trips, count, "floor")
    cost_ms = min(span_ms, COST_MS)
    costs = {name: cores[lane].value(what, cost_ms, results.smoke) for name, (lane, what) in COSTS.items()}
    results.rates(run, costs, count)


def parts(chosen: argparse.Namespace, result: report.Report) -> list[str]:
    """Which are measured."""
    asked = chosen.only.split(",") if chosen.only else PARTS
    for name in PARTS:
        if name not in asked:
            result.leave_out(name, "not asked for")
    return [name for name in PARTS if name in asked]


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("high", chosen)
    cores = {lane: core.Core(home, lane) for lane in ("critical", "high")}
    floor = cores["critical"]
    results = Results(result, floor, dict.fromkeys(COSTS, "ns"))
    if floor.missing:
        result.leave_out("everything", floor.missing)
        judge(result, results)
        return result
    wanted = parts(chosen, result)
    bells = doorbells.Doorbells(result, home)
    span_ms = SMOKE_MS if chosen.smoke else round(chunks.CHUNK_S * 1000)
    count = max(chunks.MIN_KEPT, round(chosen.seconds / chunks.CHUNK_S))
    steps: dict[str, Callable[[int], None]] = {
        "core": lambda run: measure_core(cores, results, run, span_ms, count),
        "doorbells": lambda run: bells.measure(run, chosen.seconds, results.play),
    }
    for run in range(chosen.runs):
        for one in cores.values():
            one.start()
        for name in wanted:
            steps[name](run)
    for one in cores.values():
        one.close()
    results.figures()
    bells.figures()
    judge(result, results)
    bells.judge()
    return result


def judge(result: report.Report, results: Results) -> None:
    """What is promised of two ends that are awake."""
    result.at_most("one way in C, awake", 1000, results.p50_ns.of("high"), "ns")
    ratios = results.p50_ns.ratios(SMALL_BYTES, "high", "critical")
    result.at_most("one way in C, awake, of CRITICAL's", 1.5, ratios, "×")
    result.at_most("cost to the sender of a record in C, awake", 60, results.values.of("high, a record"), "ns")


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
