"""The machine line: where figures were taken. Printed first by every benchmark, and the key `machine` of its JSON.

Figures of different machines, or of one under another kernel or clock, can't be compared; this says what they were.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What a figure depends on and nobody sees in it."""

    cpu: str
    cores: int
    smt: str
    virtual: bool
    kernel: str
    clock: str
    python: str
    uvloop: bool
    load_1min: float

    def line(self) -> str:
        """One line for people."""
        virtual = " (virtual)" if self.virtual else ""
        loop = "with uvloop" if self.uvloop else "without uvloop"
        return (
            f"{self.cpu}{virtual} · {self.cores} cores · SMT {self.smt} · Linux {self.kernel} · clock {self.clock} · "
            f"Python {self.python} {loop} · load {self.load_1min:.1f}"
        )


def describe() -> Machine:
    """This machine, now."""
    cpuinfo = _read("/proc/cpuinfo")
    return Machine(
        cpu=_field(cpuinfo, "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        smt=_read("/sys/devices/system/cpu/smt/control") or "unknown",
        virtual=" hypervisor" in _field(cpuinfo, "flags"),
        kernel=platform.release(),
        clock=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown",
        python=platform.python_version(),
        uvloop=importlib.util.find_spec("uvloop") is not None,
        load_1min=os.getloadavg()[0],
    )


def end_cores() -> tuple[int, int] | None:
    """Where the two ends of a measurement are pinned: the first and the last core allowed; None if there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


def spare_core() -> int | None:
    """A core that shares nothing with those of the two ends, not even as the other thread of a processor's core; None
    where there are fewer than four to choose from, or none such."""
    ends = end_cores()
    allowed = sorted(os.sched_getaffinity(0))
    if ends is None or len(allowed) < 4:
        return None
    taken = {sibling for end in ends for sibling in (end, *_siblings(end))}
    return next((one for one in allowed if one not in taken), None)


def _siblings(cpu: int) -> set[int]:
    listed = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    found: set[int] = set()
    for part in filter(None, listed.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


if __name__ == "__main__":
    print(describe().line())
