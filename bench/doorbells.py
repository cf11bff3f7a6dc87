"""A part of high.py: ringing for receivers that sleep, by write(2) and through the engine, measured by doorbells.c.

1 and 32 receivers, each a process of its own; a sender that ran before, and one that slept. A ratio is that of two
medians of the same run and regime, whose wakes took turns one by one. What the thread of the kernel is promised to do
needs a core for it that neither end uses.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import chunks
import core
import machine
import process
import report
import table
from sampler import Sampler

from agentd import _native

#: What of native/ it is made of.
PARTS: Final = ("clock", "mailbox", "pair", "ring", "uring", "uring_doorbell", "uring_setup", "uring_stop")
RECEIVERS: Final = (1, 32)
BODY_BYTES: Final = 64
#: What doorbells.c measures of a wake, and what to call it.
MOMENTS: Final = {"cost": "cost to the sender p50", "median": "median awake p50", "last": "last awake p50"}
#: What the sender did before, and how many wakes of each way are one chunk. After a sleep each takes 2 ms and more.
SENDERS: Final = {"slept": 8, "ran": 40}

Wakes = dict[str, dict[str, list[int]]]  # by way and moment, in nanoseconds
Play = Callable[..., dict[tuple[str, str], list[chunks.Chunk[Wakes]]]]


class Doorbells:
    """What the runs gave. `missing` says why nothing was measured."""

    def __init__(self, result: report.Report, home: Path, seconds: float, play: Play) -> None:
        self._result = result
        self._seconds = seconds
        self._play = play
        self._program = home / "doorbells"
        self._p50_us = {moment: table.Table() for moment in MOMENTS}
        self._samples: dict[tuple[str, str, str], Sampler] = {}
        self._sqpoll_core = machine.spare_core()
        self._no_thread = (
            "" if self._sqpoll_core is not None else "the kernel's thread needs a core of its own: 4 CPUs or more"
        )
        refused = _native.io_uring_errno()
        self.missing = f"no io_uring here: error {refused}" if refused else core.build(self._program, parts=PARTS)
        if self.missing:
            result.leave_out("doorbells", self.missing)

    def measure(self, run: int) -> None:
        """One run, with fresh processes."""
        cores = machine.end_cores()
        if self.missing or cores is None:
            return
        sqpoll_core = -1 if self._sqpoll_core is None else self._sqpoll_core
        child = process.spawn([str(self._program), *map(str, (*cores, sqpoll_core))])
        try:
            turns = {_case(n, sender): _turn(child, n, sender) for n in RECEIVERS for sender in SENDERS}
            for (case, regime), kept in self._play(
                turns, max(chunks.MIN_KEPT, round(self._seconds / chunks.CHUNK_S))
            ).items():
                self._add(run, case, regime, [chunk.result for chunk in kept])
        finally:
            process.stop(child)

    def _add(self, run: int, case: str, regime: str, kept: list[Wakes]) -> None:
        for way in kept[0]:
            for moment in MOMENTS:
                wakes_ns = [ns for wakes in kept for ns in wakes[way][moment]]
                key = (f"{way}, {case}", regime)
                self._samples.setdefault((moment, *key), Sampler()).extend(wakes_ns)
                self._p50_us[moment].add(run, BODY_BYTES, {key: Sampler(wakes_ns).summary().p50_us})

    def figures(self) -> None:
        """All of it, into the report."""
        for moment, what in MOMENTS.items():
            for (size_bytes, regime, name), by_run in self._p50_us[moment].rows():
                if moment == "last" and " 1 asleep" in name:
                    continue  # the only one
                samples = self._samples[moment, name, regime]
                more = {"summary": samples.summary(), "verified": len(samples)}
                self._result.figure(what, name, "µs", by_run, size_bytes=size_bytes, regime=regime, **more)

    def judge(self) -> None:
        """The promises."""
        for n in RECEIVERS:
            for sender in SENDERS:
                case = _case(n, sender)
                of_write = f"engine, {case}, of write(2)'s"
                for moment, bound in (("cost", 1.25), ("median", 1.1), *((("last", 1.1),) if n > 1 else ())):
                    what = f"{MOMENTS[moment].removesuffix(' p50')}, {of_write}"
                    self._result.at_most(what, bound, self._ratios(moment, "engine", case), "×", self.missing)
        no_thread = self.missing or self._no_thread
        case = _case(RECEIVERS[-1], "ran")
        cost_us = self._p50_us["cost"].of(f"sqpoll, {case}")
        self._result.at_most(f"cost to the sender, SQPOLL, {case}", 2, cost_us, "µs", no_thread)
        for moment in ("median", "last"):
            what = f"{moment} awake, SQPOLL, {case}, of write(2)'s"
            self._result.at_most(what, 1.2, self._ratios(moment, "sqpoll", case), "×", no_thread)

    def _ratios(self, moment: str, way: str, case: str) -> list[float]:
        return self._p50_us[moment].ratios(BODY_BYTES, f"{way}, {case}", f"write, {case}")


def _case(n: int, sender: str) -> str:
    return f"{n} asleep, the sender {sender}"


def _turn(child: subprocess.Popen[str], n: int, sender: str) -> Callable[[], Wakes]:
    def turn() -> Wakes:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(f"{n} {SENDERS[sender]} {sender}\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"doorbells.c failed with status {child.wait()}")
        wakes: Wakes = json.loads(line)
        return wakes

    return turn
