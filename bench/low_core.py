"""A part of low.py: the journal in C (low.c), beside the copies, the bare file and the checksum that it can't do
without.

append   calls, each timed alone: an append, and memcpy and crc32c of the same bytes, by turns of 64. What an append is
         compared with is the copy that goes on through 64 MiB, as appends do; beside it the copy into one and the same
         place, which stays in the cache
beside   every call into the journal beside continuous group commit, segment changes included
synced   append and fdatasync, beside pwrite and fdatasync of a file written whole before, by turns of eight
read     records read back through the map, and their checksum alone
"""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import core
import process
import report
from sampler import Tally

SIZE_BYTES: Final = 1024
PARTS: Final = (
    "crc32c",
    "journal",
    "journal_files",
    "journal_open",
    "journal_read",
    "recovery",
    "recovery_cut",
    "scan",
    "segment",
)
_ANSWER_S: Final = 60.0
#: Of what low.c answers, what it is called here.
_CALLS: Final = {
    ("append", "append"): "append",
    ("append", "flush"): "flush after 64 appends",
    ("append", "copy onwards"): "memcpy and crc32c, onwards",
    ("append", "copy"): "memcpy and crc32c, in place",
    ("beside", "calls"): "any call, beside group commit",
    ("beside", "appends"): "append, beside group commit",
    ("synced", "append"): "append and fdatasync",
    ("synced", "pwrite"): "pwrite and fdatasync",
}
_APPEND, _ONWARDS, _BESIDE = "append", "memcpy and crc32c, onwards", "any call, beside group commit"
_SYNCED, _BARE = "append and fdatasync", "pwrite and fdatasync"


class Program:
    """low.c, built. `missing` says why it is not."""

    def __init__(self, home: Path) -> None:
        self._path = home / "low"
        self.missing = "" if self._path.exists() else core.build(self._path, parts=PARTS)

    def start(self, directory: Path) -> subprocess.Popen[str]:
        """One with a fresh journal in that directory, which is made."""
        directory.mkdir()
        return process.spawn([str(self._path), str(directory)])


class LowCore:
    """What the runs gave."""

    def __init__(self, result: report.Report, program: Program, home: Path, seconds: float) -> None:
        self._result = result
        self._program = program
        self._home = home
        self._span_ms = round(seconds * 1000)
        self._tallies: dict[str, Tally] = {}
        self._runs: dict[str, list[Tally]] = {}
        self._rates: dict[str, list[float]] = {}
        self._changes = 0
        self.missing = program.missing
        if self.missing:
            result.leave_out("core", self.missing)

    def measure(self, run: int) -> None:
        """One run, with a fresh journal."""
        if self.missing:
            return
        child = self._program.start(self._home / f"{run}-core")
        try:
            ask(child, "append", 5)  # warm
            for _ in range(1 if self._result.smoke else 10):
                self._add(run, "append", ask(child, "append", self._span_ms))
            for what in ("beside", "synced"):
                self._add(run, what, ask(child, what, self._span_ms))
            for name, value in ask(child, "read", min(self._span_ms, 500)).items():
                assert isinstance(value, float | int)
                self._rates.setdefault(name, []).append(value / 1e9)
        finally:
            process.stop(child)

    def _add(self, run: int, what: str, answer: Mapping[str, object]) -> None:
        for name, value in answer.items():
            if isinstance(value, int):
                self._changes += value
                continue
            assert isinstance(value, list)
            called = _CALLS[what, name]
            runs = self._runs.setdefault(called, [])
            if len(runs) <= run:
                runs.append(Tally())
            runs[run].add(value)
            self._tallies.setdefault(called, Tally()).add(value)

    def figures(self) -> None:
        """All of it, into the report."""
        for name, runs in self._runs.items():
            summary = self._tallies[name].summary()
            p50_us = [tally.rank(0.5) / 1000 for tally in runs]
            more = {"size_bytes": SIZE_BYTES, "verified": summary.count, "summary": summary}
            self._result.figure("in C, p50", name, "µs", p50_us, **more)
        for name, rates in self._rates.items():
            self._result.figure("in C, rate", name, "GB/s", rates, size_bytes=SIZE_BYTES)
        if self._runs:
            self._result.notes.append(f"beside group commit the segment changed {self._changes} times")

    def _ranks_us(self, name: str, share: float) -> list[float]:
        return [tally.rank(share) / 1000 for tally in self._runs.get(name, [])]

    def _ratios(self, ours: str, theirs: str) -> list[float]:
        both = zip(self._ranks_us(ours, 0.5), self._ranks_us(theirs, 0.5), strict=True)
        return [our_us / their_us for our_us, their_us in both]

    def judge(self) -> None:
        """The promises."""
        result, why = self._result, self.missing
        result.at_most("append in C, of memcpy and crc32c", 3, self._ratios(_APPEND, _ONWARDS), "×", why)
        result.at_most("append in C, p99, no sync in flight", 5, self._ranks_us(_APPEND, 0.99), "µs", why)
        result.at_most("any call in C beside group commit, p99", 50, self._ranks_us(_BESIDE, 0.99), "µs", why)
        longest_us = [max(ns for ns, _ in tally.items()) / 1000 for tally in self._runs.get(_BESIDE, [])]
        result.at_most("any call in C beside group commit, the longest", 1000, longest_us, "µs", why)
        result.at_most("append and fdatasync in C, of a bare file's", 1.15, self._ratios(_SYNCED, _BARE), "×", why)
        result.at_least("read back in C, cached", 4, self._rates.get("read", []), "GB/s", why)


def ask(child: subprocess.Popen[str], what: str, span_ms: int) -> dict[str, object]:
    """What low.c answers."""
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(f"{what} {span_ms}\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # it has said why
    if not select.select([child.stdout], [], [], _ANSWER_S)[0]:
        raise RuntimeError(f"low.c: no answer to {what} within {_ANSWER_S:g} s")
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"low.c failed at {what} with status {child.wait()}")
    answer: dict[str, object] = json.loads(line)
    return answer


def bare_ns(child: subprocess.Popen[str], span_ms: int) -> list[int]:
    """pwrite and fdatasync of a file written whole before, each."""
    counted = ask(child, "synced", span_ms)["pwrite"]
    assert isinstance(counted, list)
    return [ns for ns, count in counted for _ in range(count)]
