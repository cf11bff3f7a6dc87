"""A part of high.py: bodies of 64 B, 64 KiB and 1 MiB from Python, beside systems that are woken as we are.

Round trips one at a time, and as many as go through in one direction; ends, checks and chunks are request_reply.py's
and one_to_one.py's. Each system in the modes that its documentation has for who does not spin, with what it does for
large bodies by itself. A Unix socket between two blocking programs stands beside them as the floor. What large bodies
are compared with is the socket in each regime: shared memory gains where the ends share a cache.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import Final

import chunks
import report
import table
from sampler import Sampler, median

OURS: Final = ("high/asyncio", "high/blocking")
FLOOR: Final = "socket/blocking"
#: Each with the mode of ours that waits as it does.
RIVALS: Final = {
    "zmq/asyncio": "high/asyncio",
    "zmq/blocking": "high/blocking",
    "zenoh/blocking": "high/blocking",
    "iceoryx2/blocking": "high/blocking",
}
SIZES_BYTES: Final = (64, 64 << 10, 1 << 20)
LARGE_BYTES: Final = SIZES_BYTES[-1]
#: Of a Unix socket's rate, by regime.
OF_SOCKET: Final = {"near": 2.0, "far": 0.6}
#: Messages of the first chunk.
FIRST_COUNT: Final = 40


class Bodies:
    """What the runs gave."""

    def __init__(self, result: report.Report, chosen: argparse.Namespace, home: Path) -> None:
        self._result = result
        self._smoke = chosen.smoke
        chosen = argparse.Namespace(
            **{**vars(chosen), "only": ""}
        )  # its parts were chosen, and this one competes in full
        self._contest = chunks.Contest(result, chosen, home, [*OURS, FLOOR, *RIVALS])
        self._p50_us = table.Table()
        self._rates = table.Table()
        self._samples: dict[table.Row, Sampler] = {}
        self._verified: dict[tuple[int, str], int] = {}

    def measure(self, run: int) -> None:
        """One run, with fresh processes."""
        for size_bytes in SIZES_BYTES:
            with self._contest.stage(f"{run}-{size_bytes}-ask", ("ask", "answer"), size_bytes) as (_, pairs):
                trips = self._contest.play({name: chunks.RoundTrips(pair) for name, pair in pairs.items()})
            for (name, regime), results in trips.items():
                sampler = Sampler(chain.from_iterable(results))
                self._p50_us.add(run, size_bytes, {(name, regime): sampler.summary().p50_us})
                self._samples.setdefault((size_bytes, regime, name), Sampler()).extend(sampler.listed())
            with self._contest.stage(f"{run}-{size_bytes}-post", ("post", "take"), size_bytes) as (_, pairs):
                flows = {name: chunks.Flow(pair, FIRST_COUNT, fixed=self._smoke) for name, pair in pairs.items()}
                kept = self._contest.play(flows)
            self._rates.add(run, size_bytes, {key: median(results) for key, results in kept.items()})
            for name, flow in flows.items():
                self._verified[size_bytes, name] = self._verified.get((size_bytes, name), 0) + flow.verified

    def figures(self) -> None:
        """All of it, into the report."""
        self._contest.close()
        for (size_bytes, regime, name), by_run in self._p50_us.rows():
            summary = self._samples[size_bytes, regime, name].summary()
            more = {"size_bytes": size_bytes, "regime": regime, "verified": summary.count, "summary": summary}
            self._result.figure("round trip p50", name, "µs", by_run, **more)
        for (size_bytes, regime, name), by_run in self._rates.rows():
            verified = self._verified[size_bytes, name]
            more = {"size_bytes": size_bytes, "regime": regime, "verified": verified}
            self._result.figure("rate", name, "msg/s", by_run, **more)

    def judge(self) -> None:
        """The promises."""
        for size_bytes in SIZES_BYTES:
            for rival, ours in RIVALS.items():
                reason = chunks.why_missing(self._result, rival)
                of = f"{report.size(size_bytes)}: {ours} of {rival}"
                ratios = self._p50_us.ratios(size_bytes, ours, rival)
                self._result.at_most(f"round trip, {of}", 1, ratios, "×", reason)
                ratios = self._rates.ratios(size_bytes, ours, rival)
                self._result.at_least(f"rate, {of}", 1, ratios, "×", reason)
        for ours in OURS:
            for regime, bound in OF_SOCKET.items():
                ratios = self._rates.ratios(LARGE_BYTES, ours, FLOOR, regime)
                what = f"rate, {report.size(LARGE_BYTES)}: {ours} of a Unix socket, {regime}"
                self._result.at_least(what, bound, ratios, "×", f"the two cores were never {regime}")
