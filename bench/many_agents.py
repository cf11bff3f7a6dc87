"""What a message costs where 10 agents are joined, and where 1,000 are.

Two daemons in the same run, each with its crowd of idle agents (own.Crowd: joined, taking their mail, never sent any)
and one pair of asyncio clients; 10 and 1,000 count the pair. Chunks alternate between the two daemons (chunks.py), at
64 B, pipelined as in one_to_one.py and then one request at a time as in request_reply.py. Compared are the daemon's
processor time a message (/proc/PID/stat, pipelined), the time a message takes pipelined (1 / rate), and the round
trip's p50.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Final

import chunks
import own
import report
import table
from sampler import Sampler, median

NAME: Final = "agentd/asyncio"
SIZE_BYTES: Final = 64
FEW, MANY = "10 agents", "1,000 agents"
CROWDS: Final = {FEW: 10, MANY: 1000}
BOUND: Final = 1.3
_ENDS: Final = 2


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("many_agents", chosen)
    contest = chunks.Contest(result, chosen, home, [NAME])
    cpu_us = table.Table()
    pipelined_us = table.Table()
    trips_us = table.Table()
    verified = dict.fromkeys(CROWDS, 0)
    for run in range(chosen.runs) if contest.names else ():
        with ExitStack() as undo:
            daemons: dict[str, own.Daemon] = {}
            for crowd, agents in CROWDS.items():
                place = home / f"{run}-{agents}"
                place.mkdir()
                own.raise_open_files(agents + 100)
                daemons[crowd] = own.start(place)
                undo.callback(daemons[crowd].close)
                # The ends of the second part are not there yet during the first, and those of the first are gone.
                undo.callback(own.Crowd(daemons[crowd], agents - _ENDS).close)
            pinned = not chosen.no_pin
            with ExitStack() as first:
                flows: dict[str, chunks.Flow] = {}
                for crowd, daemon in daemons.items():
                    pair = chunks.Pair(NAME, ("post", "take"), SIZE_BYTES, daemon.environ, pinned=pinned)
                    first.callback(pair.close)
                    flows[crowd] = chunks.Flow(pair, chosen.count, fixed=chosen.smoke)
                before = {crowd: own.counters(daemon) for crowd, daemon in daemons.items()}
                rates = contest.play(flows)
                pipelined_us.add(run, SIZE_BYTES, {key: 1e6 / median(results) for key, results in rates.items()})
                for crowd, daemon in daemons.items():
                    after = own.counters(daemon)
                    sent = flows[crowd].verified
                    if after.acked - before[crowd].acked != sent:
                        raise RuntimeError(f"{sent} were sent, {after.acked - before[crowd].acked} acked")
                    verified[crowd] += sent
                    spent_us = (after.cpu_s - before[crowd].cpu_s) * 1e6 / sent
                    cpu_us.add(run, SIZE_BYTES, {(crowd, ""): spent_us})
            with ExitStack() as second:
                trips: dict[str, chunks.RoundTrips] = {}
                for crowd, daemon in daemons.items():
                    pair = chunks.Pair(NAME, ("ask", "answer"), SIZE_BYTES, daemon.environ, pinned=pinned)
                    second.callback(pair.close)
                    trips[crowd] = chunks.RoundTrips(pair)
                for key, kept in contest.play(trips).items():
                    sampler = Sampler(chain.from_iterable(kept))
                    verified[key[0]] += len(sampler)
                    trips_us.add(run, SIZE_BYTES, {key: sampler.summary().p50_us})
    contest.close()
    _conclude(result, {"processor time": cpu_us, "pipelined": pipelined_us, "round trip p50": trips_us}, verified)
    return result


def _conclude(result: report.Report, measured: dict[str, table.Table], verified: dict[str, int]) -> None:
    for what, values in measured.items():
        for (_, regime, crowd), by_run in values.rows():
            more = {"size_bytes": SIZE_BYTES, "regime": regime, "verified": verified[crowd]}
            result.figure(f"a message, {what}", crowd, "µs", by_run, **more)
        ratios = values.ratios(SIZE_BYTES, MANY, FEW)
        result.at_most(f"a message, {what}: {MANY} of {FEW}", BOUND, ratios, "×", chunks.why_missing(result, NAME))


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(seconds=1.0, count=2000), measure)
