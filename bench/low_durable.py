"""Two parts of low.py, from Python through the daemon; each contender has a process of its own (low_ends.py).

mapped   at level mapped: until a sender knows `stored`, from asyncio and blocking; how many go through by `post`; how
         fast an agent that comes back takes what it missed, acked as it comes and unacked
synced   at level synced: one sender beside a bare file (low.c) and SQLite in process; 64 tasks of one process beside
         one, and beside SQLite, LMDB, Redis and JetStream, each in the mode that syncs (its module in rivals/ says how)
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import low_core
import low_ends
import process
import report
from python_ends import PythonEnds
from sampler import Sampler, median

CHUNK_MS: Final = 100
SMOKE_MS: Final = 10
_SMOKE_POSTED: Final = 1000
PROGRAM: Final = Path(__file__).with_name("low_ends.py")
LATENCY_US: Final = {"asyncio/mapped": 130, "blocking/mapped": 80}
POSTED: Final = 100_000
TAKEN: Final = 300_000
BARE: Final = "pwrite and fdatasync, in C"
#: Who syncs a message at a time, and what of it is said to be as fast as it gets.
RIVALS: Final = ("sqlite", "lmdb", "redis", "redis/pipeline", "jetstream")
GATHERED: Final = ("sqlite/64 a commit", "lmdb/64 a commit")

Turns = Mapping[str, Callable[[], Any]]


class Runs:
    """Values of each run by what and contender, and samples."""

    def __init__(self, result: report.Report) -> None:
        self._result = result
        self.values: dict[tuple[str, str], list[float]] = {}
        self._samples: dict[tuple[str, str], Sampler] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def trips(self, what: str, name: str, took_ns: Iterable[int]) -> None:
        """Of one run."""
        sampler = Sampler(took_ns)
        self.values.setdefault((what, name), []).append(sampler.summary().p50_us)
        self._samples.setdefault((what, name), Sampler()).extend(sampler.listed())

    def rate(self, what: str, name: str, turns: Iterable[tuple[int, int]]) -> None:
        """Of one run: the median of its turns, (how many, ns) each."""
        turns = list(turns)
        self.values.setdefault((what, name), []).append(median([count / ns * 1e9 for count, ns in turns]))
        self._counts[what, name] = self._counts.get((what, name), 0) + sum(count for count, _ in turns)

    def figures(self) -> None:
        """All of it."""
        for (what, name), by_run in self.values.items():
            more: dict[str, object] = {"size_bytes": low_ends.SIZE_BYTES}
            if (what, name) in self._samples:
                summary = self._samples[what, name].summary()
                self._result.figure(what, name, "µs", by_run, verified=summary.count, summary=summary, **more)
            else:
                self._result.figure(what, name, "msg/s", by_run, verified=self._counts[what, name], **more)

    def of(self, what: str, name: str) -> list[float]:
        """By run."""
        return self.values.get((what, name), [])

    def ratios(self, what: str, ours: str, theirs: str, of: str = "") -> list[float]:
        """By run; `of` is what of theirs, if it is something else."""
        both = zip(self.of(what, ours), self.of(of or what, theirs), strict=False)
        return [ours_is / theirs_is for ours_is, theirs_is in both]


def alternate(turns: Turns, count: int) -> dict[str, list[Any]]:
    """So many turns of each, one after the other, after one that nobody counts."""
    done: dict[str, list[Any]] = {name: [] for name in turns}
    for number in range(count + 1):
        for name, turn in turns.items():
            result = turn()
            if number:
                done[name].append(result)
    return done


class Mapped:
    """What the runs gave at level mapped."""

    def __init__(self, result: report.Report, home: Path, seconds: float) -> None:
        self._result = result
        self._home = home
        self._chunk_ms, self._count = _chunks(result, seconds)
        self._posted = _SMOKE_POSTED if result.smoke else low_ends.POSTED
        self._runs = Runs(result)

    def measure(self, run: int) -> None:
        """One run, with fresh daemons."""
        with ExitStack() as undo:
            ends = {}
            for name in ("asyncio/mapped", "blocking/mapped", "uvloop/mapped"):
                ends[name] = PythonEnds(name, self._home / f"{run}-{_path(name)}", program=PROGRAM)
                undo.callback(ends[name].close)
            each = {name: _ask(ends[name], "each", self._chunk_ms) for name in LATENCY_US}
            for name, took in alternate(each, self._count).items():
                self._runs.trips("send until stored, p50", name, (ns for chunk in took for ns in chunk))
            turns: dict[str, Callable[[], tuple[int, int]]] = {}
            for name in ("asyncio/mapped", "uvloop/mapped"):
                for ack in (True, False):
                    turns[f"post {name} {ack}"] = self._flow(ends[name], {"post": self._posted})
                    turns[f"take {name} {ack}"] = self._flow(ends[name], {"take": [self._posted, ack]})
            kept = alternate(turns, max(2, self._count // 4))
            for name in ("asyncio/mapped", "uvloop/mapped"):
                posts = kept[f"post {name} True"] + kept[f"post {name} False"]
                self._runs.rate("posted until stored", name, posts)
                for ack, how in ((True, "acked as they come"), (False, "unacked")):
                    self._runs.rate(f"taken by batches, {how}", name, kept[f"take {name} {ack}"])

    def _flow(self, end: PythonEnds, command: object) -> Callable[[], tuple[int, int]]:
        return lambda: (self._posted, int(end.ask(command)))

    def figures(self) -> None:
        """All of it, into the report."""
        self._runs.figures()

    def judge(self) -> None:
        """The promises."""
        for name, bound_us in LATENCY_US.items():
            p50_us = self._runs.of("send until stored, p50", name)
            self._result.at_most(f"send until stored, {name}", bound_us, p50_us, "µs")
        for name in ("asyncio/mapped", "uvloop/mapped"):
            rates = self._runs.of("posted until stored", name)
            self._result.at_least(f"posted until stored, {name}", POSTED, rates, "msg/s")
            for how in ("acked as they come", "unacked"):
                rates = self._runs.of(f"taken by batches, {how}", name)
                self._result.at_least(f"taken by batches, {how}, {name}", TAKEN, rates, "msg/s")


class Synced:
    """What the runs gave at level synced."""

    def __init__(self, result: report.Report, program: low_core.Program, home: Path, seconds: float) -> None:
        self._result = result
        self._home = home
        self._chunk_ms, self._count = _chunks(result, seconds)
        self._runs = Runs(result)
        self._program = program
        self._why: dict[str, str] = {}
        for name in low_ends.RIVALS:
            missing = "a smoke run has no rivals" if result.smoke else low_ends.rival(name).missing(home / "try")
            if missing:
                result.leave_out(name, missing)
                self._why[name] = missing

    def measure(self, run: int) -> None:
        """One run, with fresh daemons, servers and stores."""
        with ExitStack() as undo:
            ends: dict[str, PythonEnds] = {}
            present = [name for name in low_ends.RIVALS if name not in self._why]
            for name in ("asyncio/synced", "blocking/synced", *present):
                ends[name] = PythonEnds(name, self._home / f"{run}-{_path(name)}", program=PROGRAM)
                undo.callback(ends[name].close)
            floor = None
            if not self._program.missing:
                floor = self._program.start(self._home / f"{run}-bare")
                undo.callback(process.stop, floor)
            self._one_sender(ends, floor)
            self._tasks(ends)

    def _one_sender(self, ends: Mapping[str, PythonEnds], floor: subprocess.Popen[str] | None) -> None:
        alone = [name for name in ends if name not in GATHERED and name != "redis/pipeline"]
        turns: dict[str, Callable[[], Any]] = {name: _ask(ends[name], "each", self._chunk_ms) for name in alone}
        if floor is not None:
            turns[BARE] = lambda: low_core.bare_ns(floor, self._chunk_ms)
        for name, took in alternate(turns, self._count).items():
            self._runs.trips("one sender, p50", name, (ns for chunk in took for ns in chunk))

    def _tasks(self, ends: Mapping[str, PythonEnds]) -> None:
        together = {name: end for name, end in ends.items() if name != "blocking/synced"}
        turns = {name: _ask(end, "together", self._chunk_ms) for name, end in together.items()}
        turns["asyncio/synced, one task"] = _ask(ends["asyncio/synced"], "alone", self._chunk_ms)
        for name, done in alternate(turns, self._count).items():
            self._runs.rate("64 tasks of one process", name, done)

    def figures(self) -> None:
        """All of it, into the report."""
        self._runs.figures()

    def judge(self) -> None:
        """The promises."""
        result, runs = self._result, self._runs
        for ours in ("asyncio/synced", "blocking/synced"):
            ratios = runs.ratios("one sender, p50", ours, BARE)
            result.at_most(f"one sender, {ours} of a bare file's", 2, ratios, "×", self._program.missing)
            ratios = runs.ratios("one sender, p50", ours, "sqlite")
            result.at_most(f"one sender, {ours} of sqlite", 1.3, ratios, "×", self._why.get("sqlite", ""))
        what, ours = "64 tasks of one process", "asyncio/synced"
        result.at_least("64 tasks of one process, of one", 20, runs.ratios(what, ours, f"{ours}, one task"), "×")
        for rival in RIVALS:
            reason = self._why.get(rival, "")
            result.at_least(f"64 tasks of one process, of {rival}", 1, runs.ratios(what, ours, rival), "×", reason)


def _chunks(result: report.Report, seconds: float) -> tuple[int, int]:
    return (SMOKE_MS, 2) if result.smoke else (CHUNK_MS, max(3, round(seconds * 1000 / CHUNK_MS)))


def _path(name: str) -> str:
    return name.replace("/", "-").replace(" ", "-")


def _ask(end: PythonEnds, what: str, wanted: object) -> Callable[[], Any]:
    return lambda: end.ask({what: wanted})
