"""Request and reply between two processes: the round trip, for one request at a time.

The asker sends a body with a new sequence number and waits for its echo; timed from before the call to after it
returned, in the asker. Both ends sleep while they wait, so a round trip through a server wakes a sleeping process four
times (asker → server → answerer → server → asker); the Unix-socket floor beside the figures is one such wake-up.
Contenders alternate in chunks of 50 ms (chunks.py), at 64 B and 1 KiB. The two ends are pinned to the first and the
last core, servers go where the scheduler puts them (--no-pin: the ends too).

Like is compared with like: agentd's asyncio client with nats-py on asyncio, and each on uvloop; agentd's blocking
client with redis-py, which is blocking too. That one and the asyncio client are also held against the targets that
cross these lines, because a user may choose freely.

Beside them runs a relay that only passes bytes on (relay.py): what no broker between two Python programs gets below
here, if it sleeps while it waits. Where a target is near it, that is what stands in the way.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import chunks
import report
import table
from sampler import Sampler

CONTENDERS = [
    "agentd/asyncio",
    "nats/asyncio",
    "relay/asyncio",
    "agentd/uvloop",
    "nats/uvloop",
    "relay/uvloop",
    "agentd/blocking",
    "redis/blocking",
    "relay/blocking",
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


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All sizes, all runs."""
    result = report.begin("request_reply", chosen)
    contest = chunks.Contest(result, chosen, home, CONTENDERS)
    p50_us = table.Table()
    samples: dict[table.Row, Sampler] = {}
    for run in range(chosen.runs):
        for size_bytes in SIZES_BYTES:
            with contest.stage(f"{run}-{size_bytes}", ("ask", "answer"), size_bytes) as (_, pairs):
                kept = contest.play({name: chunks.RoundTrips(pair) for name, pair in pairs.items()})
            by_contender = {key: Sampler(chain.from_iterable(results)) for key, results in kept.items()}
            p50_us.add(run, size_bytes, {key: sampler.summary().p50_us for key, sampler in by_contender.items()})
            for (name, regime), sampler in by_contender.items():
                samples.setdefault((size_bytes, regime, name), Sampler()).extend(sampler.listed())
    contest.close()
    for (size_bytes, regime, name), by_run in p50_us.rows():
        summary = samples[size_bytes, regime, name].summary()
        more = {"size_bytes": size_bytes, "regime": regime, "verified": summary.count, "summary": summary}
        result.figure("round trip p50", name, "µs", by_run, **more)
    for ours, theirs, bound in TARGETS:
        for size_bytes in SIZES_BYTES:
            ratios = p50_us.ratios(size_bytes, ours, theirs)
            reason = chunks.why_missing(result, ours, theirs)
            result.at_most(f"round trip, {size_bytes} B: {ours} of {theirs}", bound, ratios, "×", reason)
    return result


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
