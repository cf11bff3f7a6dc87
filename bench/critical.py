"""The CRITICAL lane, measured: its C core between two cores, beside the bare cache line and a ring without a fence.

Two processes on two cores, both awake. Chunks of at most 50 ms, the bare cache line directly before and after each
(chunks.py). One way is half of a round trip; each round trip is timed alone, the floor's too, by the same clock. A
ratio to the floor is that of a chunk to the two floors around it, each by the mean of its middle half (clocks move in
steps of 10 ns on some machines, too coarse for medians to be divided); a run's is the median of its chunks. 64 B each,
unless it says otherwise:

cache line  the floor itself, for its tail: what the machine does to everybody
ring        raw records of one pair: copied in, published with the fence and the look at the gate; copied out
record      the same with record.h's header, through the mailbox; its timestamp is the reading that starts the trip
crowded     the same with 63 idle pairs beside it in the mailbox
unfenced    throughput of the same ring code with neither fence nor gate: a plain ring of one writer and one reader
batched     raw records, one publish for 32 of them; batched-records: the same with header and mailbox
single      raw records, a publish for each
large       records of 4 KiB, a publish for each, beside memcpy() of such blocks between buffers that no cache holds
enqueue     what a raw record and its publish cost the sender: bursts of 200 into a warm ring that nobody reads

Then the same from Python, with its rivals in turn: agentd/bytes and agentd/messages (own_direct.py), tachyon-ipc,
iceoryx2 and horus-robotics (rivals/), all of them spinning; and the rate of agentd/bytes from one loop of sends into a
loop of drains. Then receivers that sleep (asleep.py), and what must not happen at all (quiet.py): --only knows these as
asleep and quiet.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import asleep
import awake
import chunks
import core
import quiet
import report
from python_ends import PythonEnds
from results import LARGE_BYTES, SMALL_BYTES, Results
from sampler import median

#: What to call it, and what critical.c does.
TRIPS: Final = {"cache line": "floor", "ring": "ring", "record": "record", "crowded": "crowded"}
VALUES: Final = {
    "unfenced": "msg/s",
    "batched": "msg/s",
    "single": "msg/s",
    "batched-records": "msg/s",
    "large": "msg/s",
    "memcpy": "blocks/s",
    "enqueue": "ns",
    "enqueue-record": "ns",
    "agentd/bytes": "msg/s",
}
SMOKE_MS: Final = 5
#: Rates fall to a fraction when an end loses its core: so short, most chunks pass without that on a busy machine too.
FLOW_MS: Final = 10
NEAR: Final = "near"
CONTENDERS: Final = ("agentd/bytes", "agentd/messages", "tachyon/zero-copy", "iceoryx2/pub-sub", "horus/dict")
#: Of agentd's own one way from Python: at least so many times as long.
RIVALS: Final = {"tachyon/zero-copy": 3, "iceoryx2/pub-sub": 6, "horus/dict": 6}


def contenders(chosen: argparse.Namespace, result: report.Report) -> list[str]:
    """Who competes from Python."""
    names = []
    for name in CONTENDERS:
        if chosen.smoke and not name.startswith("agentd/"):
            result.leave_out(name, "a smoke run has no rivals")
        elif chosen.only and name not in chosen.only.split(","):
            result.leave_out(name, "not asked for")
        elif reason := awake.module(name).missing():
            result.leave_out(name, reason)
        else:
            names.append(name)
    return names


def measure_core(c: core.Core, results: Results, run: int, span_ms: int, count: int) -> None:
    """One run in C."""
    results.trips(run, {name: c.trips(what, span_ms) for name, what in TRIPS.items()}, count, "floor")
    flow_ms = min(span_ms, FLOW_MS)
    results.rates(run, {name: c.value(name, flow_ms, results.smoke) for name in VALUES if "/" not in name}, count)


def measure_python(names: list[str], results: Results, run: int, home: Path, span_ms: int, count: int) -> None:
    """One run from Python, with fresh processes."""
    with ExitStack() as undo:
        ends: dict[str, PythonEnds] = {}
        for name in names:
            ends[name] = PythonEnds(name, home / f"{run}-{name.replace('/', '-')}", span_ms / 1000)
            undo.callback(ends[name].close)
        results.trips(run, {name: end.trips() for name, end in ends.items()}, count, "floor beside Python")
        if "agentd/bytes" in ends:
            results.rates(run, {"agentd/bytes": ends["agentd/bytes"].flow(results.smoke)}, count)


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("critical", chosen)
    c = core.Core(home)
    results = Results(result, c, VALUES)
    if c.missing:
        result.leave_out("everything", c.missing)
        judge(result, results)
        return result
    names = contenders(chosen, result)
    sleepers = asleep.Asleep(result, "critical", home, chosen.seconds, results.play)
    silence = quiet.Quiet(result)
    others = chosen.only.split(",") if chosen.only else ["asleep", "quiet"]
    span_ms = SMOKE_MS if chosen.smoke else round(chunks.CHUNK_S * 1000)
    count = max(chunks.MIN_KEPT, round(chosen.seconds / chunks.CHUNK_S))
    for run in range(chosen.runs):
        c.start()
        measure_core(c, results, run, span_ms, count)
        measure_python(names, results, run, home, span_ms, count)
        if "asleep" in others:
            sleepers.measure(run)
        if "quiet" in others:
            silence.measure(run, home, chosen.seconds)
    c.close()
    results.figures()
    sleepers.figures()
    silence.figures()
    judge(result, results)
    sleepers.judge()
    silence.judge()
    return result


def judge(result: report.Report, results: Results) -> None:
    """The promises: ratios in every regime that occurred, absolute figures near."""
    judge_core(result, results)
    judge_python(result, results)


def judge_core(result: report.Report, results: Results) -> None:
    of_floor, p50_ns, values = results.of_floor, results.p50_ns, results.values
    no_near = "the two cores were never near"
    for name in ("ring", "record"):
        result.at_most(f"one way, {name}, of the floor", 1.3, of_floor.of(name), "×")
        result.at_most(f"one way, {name}, near", 100, p50_ns.of(name, NEAR), "ns", no_near)
        result.at_most(f"p99.9, {name}, of its median, near", 2, results.p999.of(name, NEAR), "×", no_near)
    if bare := results.p999.of("cache line", NEAR):
        result.notes.append(f"p99.9 of the bare cache line, of its median, near: {median(bare):.2g} ×")
    result.at_most("63 idle pairs beside it, of none", 1.1, of_floor.ratios(SMALL_BYTES, "crowded", "record"), "×")
    for name in ("enqueue", "enqueue-record"):
        result.at_most(f"{name}, with its fence", 15, values.of(name), "ns")
    for name, bound in (("batched", 0.8), ("single", 0.25)):
        what = f"rate, {name}, of the ring without fence"
        result.at_least(what, bound, values.ratios(SMALL_BYTES, name, "unfenced"), "×")
    of_memcpy = values.ratios(LARGE_BYTES, "large", "memcpy", NEAR)
    result.at_least("records of 4 KiB, of memcpy() from DRAM, near", 2, of_memcpy, "×", no_near)


def judge_python(result: report.Report, results: Results) -> None:
    for name, bound_ns in (("agentd/bytes", 250), ("agentd/messages", 450)):
        result.at_most(f"one way, {name}, above the floor", bound_ns, results.over_floor_ns.of(name), "ns")
    for rival, times in RIVALS.items():
        ratios = results.p50_ns.ratios(SMALL_BYTES, rival, "agentd/bytes")
        result.at_least(f"one way, {rival}, of agentd/bytes", times, ratios, "×", chunks.why_missing(result, rival))
    for regime, bound in ((NEAR, 10e6), ("far", 2.5e6)):
        rates = results.values.of("agentd/bytes", regime)
        reason = f"the two cores were never {regime}"
        if results.p50_ns.of("agentd/bytes", regime):
            reason = "in too few chunks neither end lost its core to other programs"
        result.at_least(f"rate from Python, {regime}", bound, rates, "msg/s", reason)


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
