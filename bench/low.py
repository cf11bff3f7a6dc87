"""The LOW lane, measured: the journal beside what the disk and the processor need for the same bytes, and the daemon
that keeps mail in it beside other things that do not lose what they said they have. Bodies of 1 KiB.

Everything is kept under /tmp, which has to be on a real disk: on a tmpfs a sync costs nothing and says nothing, so
there it is not run. What is compared takes turns of 100 ms within one run, the bare file among them; the daemons have
the limits that they come with. --only picks parts, separated by commas:

core      the journal in C: appends, alone and beside group commit; with a sync each; read back (low_core.py)
mapped    through the daemon, level mapped: latency to `stored`, pipelined, taken by batches (low_durable.py)
synced    the same at level synced: one sender, 64 tasks of one process; SQLite, LMDB, Redis, JetStream (low_durable.py)
lanes     a message of the lane critical, alone and beside a flood of the lane low (low_lanes.py)
recovery  how long a daemon takes to start over a journal of 10 GB, which it writes first (low_recovery.py)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import low_core
import low_durable
import low_lanes
import low_recovery
import report

PARTS: Final = ("core", "mapped", "synced", "lanes", "recovery")
_IN_MEMORY: Final = ("tmpfs", "ramfs")


class Part(Protocol):
    """A part of the benchmark."""

    def measure(self, run: int) -> None:
        """One run."""

    def figures(self) -> None:
        """All of it, into the report."""

    def judge(self) -> None:
        """The promises."""


def filesystem(path: Path) -> str:
    """What kind of filesystem that is on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, what, *_ = line.split()
        if len(where) >= len(best) and path.resolve().is_relative_to(where):
            best, kind = where, what
    return kind


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("low", chosen)
    kind = filesystem(home)
    result.notes.append(f"the disk is that of {home.parent}, {kind}")
    asked = chosen.only.split(",") if chosen.only else PARTS
    if kind in _IN_MEMORY and not chosen.smoke:
        result.leave_out("everything", f"{home.parent} is on a {kind}: it needs a disk")
        asked = []
    for name in PARTS:
        if name not in asked:
            result.leave_out(name, "not asked for")
    program = low_core.Program(home)
    make: dict[str, Callable[[], Part]] = {
        "core": lambda: low_core.LowCore(result, program, home, chosen.seconds),
        "mapped": lambda: low_durable.Mapped(result, home, chosen.seconds),
        "synced": lambda: low_durable.Synced(result, program, home, chosen.seconds),
        "lanes": lambda: low_lanes.Lanes(result, home, chosen.seconds),
        "recovery": lambda: low_recovery.Recovery(result, home),
    }
    parts = [make[name]() for name in PARTS if name in asked]
    for run in range(chosen.runs):
        for part in parts:
            part.measure(run)
    for part in parts:
        part.figures()
    for part in parts:
        part.judge()
    return result


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(), measure)
