"""A part of critical.py: what must not happen at all, counted.

awake   100,000 exchanges between two Python ends that are both awake: the system calls of both processes, all threads,
        by strace, which is attached while they run; then, without it, the pages they faulted. Between the marks that
        awake.py makes there should be nothing.
idle    a daemon, an agent that has a pair and waits in inbox(), and the one that has its other end: nobody sends. How
        often any thread of them woke up (process.wakeups). They are left alone before that until agentd has looked,
        once, 5 s after it invited the agent to attach, whether it did.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import asleep
import process
import report
from python_ends import PythonEnds

EXCHANGES: Final = 100_000
SMOKE_EXCHANGES: Final = 2000
#: What a process may do now and then for reasons of its own, in 100,000 exchanges.
HANDFUL: Final = 10
#: So much longer than a contender is measured.
_IDLE_TIMES: Final = 5
_SETTLE_S: Final = 6.0
_ATTACH_S: Final = 0.5
_CALL: Final = re.compile(r"(\d+) +(\d+\.\d+) (?:(\w+)\(|<\.\.\. (\w+) resumed>)")
_MARK: Final = "getrusage"


class Quiet:
    """What the runs gave."""

    def __init__(self, result: report.Report) -> None:
        self._result = result
        self._exchanges = SMOKE_EXCHANGES if result.smoke else EXCHANGES
        self._calls: list[float] = []
        self._faults: list[float] = []
        self._wakeups: dict[str, list[float]] = {}
        self._kernels: list[float] = []
        self._idle_s = 0.0
        self._why = "not asked for"

    def measure(self, run: int, home: Path, seconds: float) -> None:
        """One run, with fresh processes."""
        end = PythonEnds("agentd/bytes", home / f"{run}-quiet")
        try:
            pids = self._count_faults(end)
            self._count_calls(end, pids, home / f"{run}-strace")
        finally:
            end.close()
        self._idle_s = seconds * _IDLE_TIMES
        end = PythonEnds("critical/inbox", home / f"{run}-idle", program=asleep.PROGRAM)
        try:
            end.ask({"wakes": 3, "pause_ms": [2, 5], "beside": False})
            self._watch(dict(zip(("daemon", "agent that sends", "agent in inbox()"), end.about, strict=True)))
        finally:
            end.close()

    def _count_faults(self, end: PythonEnds) -> list[int]:
        answer = end.ask({"quiet": self._exchanges})
        self._faults.append(sum(faults for _, faults in answer))
        return [pid for pid, _ in answer]

    def _count_calls(self, end: PythonEnds, pids: list[int], log: Path) -> None:
        strace = shutil.which("strace")
        if strace is None:
            self._why = "strace is not installed: apt-get install strace"
            return
        attach = [word for pid in pids for word in ("-p", str(pid))]
        child = process.spawn([strace, "-f", "-ttt", "-o", str(log), *attach], log=log.with_suffix(".err"))
        try:
            time.sleep(_ATTACH_S)
            if child.poll() is not None:
                self._why = f"strace can't attach here: {log.with_suffix('.err').read_text().strip()[-200:]}"
                return
            end.ask({"quiet": self._exchanges})
        finally:
            process.stop(child)
        counts = between_marks(log.read_text().splitlines(), pids)
        self._calls.append(sum(counts.values()))
        if counts:
            self._result.notes.append(f"system calls while awake: {dict(counts)}")

    def _watch(self, pids: dict[str, int]) -> None:
        time.sleep(0 if self._result.smoke else _SETTLE_S)
        before = {who: process.wakeups(pid) for who, pid in pids.items()}
        kernels_before = process.wakeups(pids["daemon"], kernels=True)
        time.sleep(self._idle_s)
        for who, pid in pids.items():
            self._wakeups.setdefault(who, []).append(process.wakeups(pid) - before[who])
        self._kernels.append(process.wakeups(pids["daemon"], kernels=True) - kernels_before)

    def figures(self) -> None:
        """All of it, into the report."""
        if self._calls:
            self._result.figure("system calls, both awake", "agentd/bytes", "", self._calls, verified=self._exchanges)
        if self._faults:
            self._result.figure("page faults, both awake", "agentd/bytes", "", self._faults, verified=self._exchanges)
        for who, counts in self._wakeups.items():
            self._result.figure(f"wake-ups in {self._idle_s:g} s", f"idle {who}", "", counts)
        if self._kernels:
            self._result.figure(f"wake-ups in {self._idle_s:g} s", "kernel's worker of it", "", self._kernels)

    def judge(self) -> None:
        """The promises."""
        of = f"in {self._exchanges:,} exchanges, both awake"
        self._result.at_most(f"system calls {of}", HANDFUL, self._calls, reason=self._why)
        self._result.at_most(f"page faults {of}", HANDFUL, self._faults, reason=self._why)
        for who, counts in self._wakeups.items():
            self._result.at_most(f"idle {who}, wake-ups in {self._idle_s:g} s", 0, counts)


def between_marks(lines: Iterable[str], pids: Iterable[int]) -> Counter[str]:
    """Which system calls began, in any thread, while both of these were between their marks."""
    began: list[tuple[str, float]] = []
    marks: dict[int, list[float]] = {pid: [] for pid in pids}
    for line in lines:
        found = _CALL.match(line)
        if found is None or found[3] is None:
            continue
        if found[3] == _MARK and int(found[1]) in marks:
            marks[int(found[1])].append(float(found[2]))
        else:
            began.append((found[3], float(found[2])))
    if any(len(some) < 2 for some in marks.values()):  # the first of three is a rehearsal
        raise RuntimeError(f"a trace with marks at {marks}")
    first = max(some[-2] for some in marks.values())
    last = min(some[-1] for some in marks.values())
    return Counter(name for name, at in began if first < at < last)
