"""What agentd costs while nothing happens: wake-ups, memory, memory for each agent.

100 agents join over the bare wire (own.Crowd) and say nothing. After they have settled, the daemon is watched for
--seconds twice: by /proc (voluntary context switches of all its threads: whoever wakes up goes to sleep again), then by
strace, which counts the returns of epoll_wait, epoll_pwait and epoll_pwait2, and of nothing else. The first half second
of strace is not counted: attaching interrupts the call that the daemon sleeps in. The promise is zero in both.

Memory is resident set size, from /proc/PID/statm: of the daemon with these 100, and then of each further agent, as the
growth up to 1,000 divided by their number.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import own
import process
import report

IDLE: Final = 100
MORE: Final = 1000
SMOKE_MORE: Final = 200
DAEMON_MIB: Final = 60
AGENT_KIB: Final = 64
_SETTLE_S: Final = 1.0
_ATTACH_S: Final = 0.5
_RETURN: Final = re.compile(r"(?:\d+ +)?(\d+\.\d+) (<\.\.\. )?epoll_p?wait2?\b.* = .*<(\d+\.\d+)>$")


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("footprint", chosen)
    switches: list[float] = []
    kernels: list[float] = []
    returns: list[float] = []
    daemon_mib: list[float] = []
    agent_kib: list[float] = []
    reason = ""
    more = SMOKE_MORE if chosen.smoke else MORE
    for run in range(chosen.runs):
        with ExitStack() as undo:
            place = home / str(run)
            place.mkdir()
            own.raise_open_files(more + 100)
            daemon = own.start(place)
            undo.callback(daemon.close)
            crowd = own.Crowd(daemon, IDLE)
            undo.callback(crowd.close)
            time.sleep(_SETTLE_S)
            before, kernels_before = process.wakeups(daemon.pid), process.wakeups(daemon.pid, kernels=True)
            time.sleep(chosen.seconds)
            switches.append(process.wakeups(daemon.pid) - before)
            kernels.append(process.wakeups(daemon.pid, kernels=True) - kernels_before)
            traced = _epoll_returns(daemon.pid, chosen.seconds, place / "strace")
            if isinstance(traced, str):
                reason = traced
                result.leave_out("strace", reason)
            else:
                returns.append(traced)
            at_first = process.rss_bytes(daemon.pid)
            daemon_mib.append(at_first / (1 << 20))
            crowd.grow(daemon, more)
            time.sleep(_SETTLE_S)
            agent_kib.append((process.rss_bytes(daemon.pid) - at_first) / (more - IDLE) / 1024)
    window = f"{chosen.seconds:g} s"
    result.figure(f"voluntary context switches in {window}", f"{IDLE} idle agents", "", switches)
    result.figure(f"the same of the kernel's io_uring worker in {window}", f"{IDLE} idle agents", "", kernels)
    if returns:
        result.figure(f"returns of epoll_wait in {window}", f"{IDLE} idle agents", "", returns)
    result.figure("daemon's resident memory", f"{IDLE} idle agents", "MiB", daemon_mib)
    result.figure("resident memory for each agent", f"{IDLE} to {more}", "KiB", agent_kib, verified=more - IDLE)
    result.at_most(f"{IDLE} idle agents, context switches in {window}", 0, switches)
    result.at_most(f"{IDLE} idle agents, returns of epoll_wait in {window}", 0, returns, reason=reason)
    result.at_most(f"daemon's memory with {IDLE} agents", DAEMON_MIB, daemon_mib, "MiB")
    result.at_most("memory for each joined agent", AGENT_KIB, agent_kib, "KiB")
    return result


def _epoll_returns(pid: int, seconds: float, log: Path) -> int | str:
    """How often the daemon's loop woke up; a string says why that is not known."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed: apt-get install strace"
    calls = "trace=epoll_wait,epoll_pwait,epoll_pwait2"
    child = process.spawn(
        [strace, "-f", "-ttt", "-T", "-e", calls, "-o", str(log), "-p", str(pid)], log=log.with_suffix(".err")
    )
    try:
        time.sleep(_ATTACH_S)
        if child.poll() is not None:
            return f"strace can't attach here: {log.with_suffix('.err').read_text().strip()[-200:]}"
        start = time.time()
        time.sleep(seconds)
        end = time.time()
    finally:
        # strace lets go of the daemon on SIGTERM; the daemon does not notice.
        process.stop(child)
    return count_returns(log.read_text(), start, end)


def count_returns(trace: str, start: float, end: float) -> int:
    """Calls that returned between the two times, in the output of strace -f -ttt -T.

    A line is stamped when its call began and ends with how long that took; only where another thread's line came in
    between, the return has a line of its own ("resumed"), stamped when it returned.
    """
    count = 0
    for line in trace.splitlines():
        if found := _RETURN.match(line):
            stamp, resumed, took = found.groups()
            count += start <= float(stamp) + (0.0 if resumed else float(took)) <= end
    return count


if __name__ == "__main__":
    sizes = report.Sizes(seconds=10, count=IDLE, smoke_seconds=0.5, smoke_count=IDLE)
    report.main(__doc__, sizes, measure)
