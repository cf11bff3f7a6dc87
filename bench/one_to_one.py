"""One sender, one receiver: messages a second, delivered and acknowledged.

agentd: the sender posts without waiting, every 500th with wait="acked", and keeps at most 16 such batches open, or as
many as have 2 MiB; the receiver takes from `inbox(window=8000)` and acks every message by itself. A chunk ends when
the receiver has counted all of them in order and the sender has the receipt of the last: `acked`. After the run the
daemon's own count of acked messages must have grown by exactly what was sent. Its processor time is read from
/proc/PID/stat around the run and divided by the messages.

Rivals: nats-py's core publish and subscribe, where a message counts when the subscriber's callback has it and nobody
acknowledges anything; JetStream publishing into memory, 500 in flight, where it counts when the server has acknowledged
it, with no subscriber; Redis lists in pipelines of 500. Contenders alternate in chunks (chunks.py) of as many messages
as take each of them 50 ms, at 64 B and 1 KiB; --count is that of the first chunk of the warm-up.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import chunks
import own
import report
import table
from sampler import median

CONTENDERS = [
    "agentd/asyncio",
    "nats/asyncio",
    "agentd/uvloop",
    "nats/uvloop",
    "nats/jetstream",
    "agentd/blocking",
    "redis/blocking",
]
SIZES_BYTES = (64, 1024)
#: Ours, theirs, the least that ours must be of theirs.
TARGETS = [
    ("agentd/asyncio", "nats/asyncio", 1.0),
    ("agentd/uvloop", "nats/uvloop", 1.0),
    ("agentd/asyncio", "nats/jetstream", 5.0),
]
DAEMON_US: Final = 6.0
_NO_RECEIVER = "nats/jetstream"


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All sizes, all runs."""
    result = report.begin("one_to_one", chosen)
    contest = chunks.Contest(result, chosen, home, CONTENDERS)
    rates = table.Table()
    verified: dict[tuple[int, str], int] = {}
    daemon_us: dict[int, list[float]] = {size_bytes: [] for size_bytes in SIZES_BYTES}
    for run in range(chosen.runs):
        for size_bytes in SIZES_BYTES:
            with contest.stage(f"{run}-{size_bytes}", ("post", "take"), size_bytes) as (servers, pairs):
                flows = {
                    name: chunks.Flow(pair, chosen.count, received=name != _NO_RECEIVER, fixed=chosen.smoke)
                    for name, pair in pairs.items()
                }
                with _accounting(servers, flows) as spent_us:
                    kept = contest.play(flows)
                rates.add(run, size_bytes, {key: median(results) for key, results in kept.items()})
                daemon_us[size_bytes] += spent_us
                for name, flow in flows.items():
                    verified[size_bytes, name] = verified.get((size_bytes, name), 0) + flow.verified
    contest.close()
    _conclude(result, rates, verified, daemon_us)
    return result


@contextmanager
def _accounting(servers: chunks.Servers, flows: Mapping[str, chunks.Flow]) -> Iterator[list[float]]:
    """Filled afterwards: the daemon's processor time a message, in µs. Insists that all that was sent was acked."""
    spent_us: list[float] = []
    ours = [name for name in flows if name.startswith("agentd/")]
    if not ours:
        yield spent_us
        return
    daemon = servers.of(ours[0])
    before = own.counters(daemon)
    yield spent_us
    after = own.counters(daemon)
    sent = sum(flows[name].verified for name in ours)
    if after.acked - before.acked != sent:
        raise RuntimeError(f"{sent} were sent, the daemon counted {after.acked - before.acked} acked")
    spent_us.append((after.cpu_s - before.cpu_s) * 1e6 / sent)


def _conclude(
    result: report.Report,
    rates: table.Table,
    verified: dict[tuple[int, str], int],
    daemon_us: dict[int, list[float]],
) -> None:
    for (size_bytes, regime, name), by_run in rates.rows():
        what = "acknowledged, no receiver" if name == _NO_RECEIVER else "delivered"
        what = "delivered and acked" if name.startswith("agentd/") else what
        count = verified[size_bytes, name]
        result.figure(what, name, "msg/s", by_run, size_bytes=size_bytes, regime=regime, verified=count)
    for size_bytes, by_run in daemon_us.items():
        if by_run:
            result.figure("daemon's processor time a message", "agentd", "µs", by_run, size_bytes=size_bytes)
    for ours, theirs, bound in TARGETS:
        for size_bytes in SIZES_BYTES:
            ratios = rates.ratios(size_bytes, ours, theirs)
            what = f"rate, {size_bytes} B: {ours} acked, of {theirs}"
            result.at_least(what, bound, ratios, "×", chunks.why_missing(result, ours, theirs))
    for size_bytes, by_run in daemon_us.items():
        reason = chunks.why_missing(result, "agentd/asyncio")
        result.at_most(f"daemon's processor time a message, {size_bytes} B", DAEMON_US, by_run, "µs", reason)


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(count=2000), measure)
