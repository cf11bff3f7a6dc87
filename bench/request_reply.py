"""Request and reply between two processes: the round trip, for one request at a time.

The asker sends a body with a new sequence number and waits for its echo; timed from before the call to after it
returned, in the asker. Both ends sleep while they wait, so a round trip through a server wakes a sleeping process four
times (asker → server → answerer → server → asker); the Unix-socket floor beside the figures is one such wake-up.
Contenders alternate in chunks of 50 ms (chunks.py), at 64 B and 1 KiB. The two ends are pinned to the first and the
last core, servers go where the scheduler puts them (--no-pin: the ends too).

Like is compared with like: agentd's asyncio client with nats-py on asyncio, and each on uvloop; agentd's blocking
client with redis-py, which is blocking too. That one and the asyncio client are also held against the targets that
cross these lines, because a user may choose freely.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import chunks
import report
from sampler import Sampler, median

CONTENDERS = [
    "agentd/asyncio",
    "nats/asyncio",
    "agentd/uvloop",
    "nats/uvloop",
    "agentd/blocking",
    "redis/blocking",
]
SIZES_BYTES = (64, 1024)
#: Ours, theirs, the most that ours may be of theirs.
TARGETS = [
    ("agentd/asyncio", "nats/asyncio", 0.45),
    ("agentd/uvloop", "nats/uvloop", 0.45),
    ("agentd/asyncio", "redis/blocking", 1.0),
    ("agentd/blocking", "redis/blocking", 1.0),
    ("agentd/blocking", "nats/asyncio", 0.35),
]

Key = tuple[int, str, str]  # size, regime, contender


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All sizes, all runs."""
    result = report.begin("request_reply", chosen)
    contest = chunks.Contest(result, chosen, home, CONTENDERS)
    samples: dict[Key, list[Sampler]] = {}
    for run in range(chosen.runs):
        for size_bytes in SIZES_BYTES:
            with contest.stage(f"{run}-{size_bytes}", ("ask", "answer"), size_bytes) as (_, pairs):
                turns = {name: chunks.RoundTrips(pair) for name, pair in pairs.items()}
                for (name, regime), kept in contest.play(turns).items():
                    sampler = Sampler(chain.from_iterable(kept))
                    samples.setdefault((size_bytes, regime, name), []).append(sampler)
    contest.close()
    _conclude(result, samples)
    return result


def _conclude(result: report.Report, samples: dict[Key, list[Sampler]]) -> None:
    for (size_bytes, regime, name), by_run in sorted(samples.items()):
        everything = Sampler(chain.from_iterable(sampler.listed() for sampler in by_run))
        result.figure(
            "round trip p50",
            name,
            "µs",
            [sampler.summary().p50_us for sampler in by_run],
            size_bytes=size_bytes,
            regime=regime,
            verified=len(everything),
            summary=everything.summary(),
        )
    for ours, theirs, bound in TARGETS:
        for size_bytes in SIZES_BYTES:
            ratios = [
                median([s.summary().p50_us for s in by_run]) / median([s.summary().p50_us for s in rivals])
                for (size, regime, name), by_run in samples.items()
                if size == size_bytes and name == ours and (rivals := samples.get((size, regime, theirs)))
            ]
            reason = chunks.why_missing(result, ours, theirs)
            result.at_most(f"round trip, {size_bytes} B: {ours} of {theirs}", bound, ratios, "×", reason)


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
