"""The processor's cores as Linux shows them in /sys: which are fast, which share one, which we may use.

AGENTD_SYSFS names another /sys, for tests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

#: Where a kind of machine says how fast its cores are, as a number a core; the first that is there counts.
_CAPACITIES = ("cpu_capacity", "acpi_cppc/highest_perf")
#: AMD's preferred cores differ by some points on a uniform machine (236 to 206); kinds of cores differ by a third.
_SAME_KIND = 0.8


class Topology(NamedTuple):
    """The cores of this machine."""

    online: tuple[int, ...]
    allowed: tuple[int, ...]  # of those, the ones this process may run on
    performance: tuple[int, ...]  # of those, the fast ones, one thread of each core
    kind: str  # `hybrid`: there are slower ones; `uniform`: there are none
    source: str  # what told them apart


def read_topology(environ: Mapping[str, str], allowed: set[int] | None = None) -> Topology:
    """The cores now: they come and go, and a container may have a part of them."""
    root = Path(environ.get("AGENTD_SYSFS") or "/sys") / "devices"
    system = root / "system" / "cpu"
    online = _cpus(_text(system / "online")) or tuple(sorted(os.sched_getaffinity(0)))
    usable = os.sched_getaffinity(0) if allowed is None else allowed
    mine = tuple(cpu for cpu in online if cpu in usable)
    fast, source = _fast(root, system, online)
    performance = _one_thread_a_core(system, tuple(cpu for cpu in mine if cpu in fast))
    return Topology(online, mine, performance, "hybrid" if len(fast) < len(online) else "uniform", source)


def _fast(root: Path, system: Path, online: tuple[int, ...]) -> tuple[set[int], str]:
    intel = _cpus(_text(root / "cpu_core" / "cpus"))  # only hybrid ones have it
    if intel:
        return set(intel) & set(online), "cpu_core"
    for name in _CAPACITIES:
        speeds = {cpu: _number(system / f"cpu{cpu}" / name) for cpu in online}
        known = [speed for speed in speeds.values() if speed]
        if known:
            limit = max(known) * _SAME_KIND
            return {cpu for cpu, speed in speeds.items() if speed >= limit}, name
    return set(online), "nothing tells them apart"


def _one_thread_a_core(system: Path, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Two threads of one core share its caches and its time: the first of each."""
    taken: set[int] = set()
    chosen = []
    for cpu in cpus:
        if cpu not in taken:
            chosen.append(cpu)
            taken |= set(_cpus(_text(system / f"cpu{cpu}" / "topology" / "thread_siblings_list"))) | {cpu}
    return tuple(chosen)


def clock_source(environ: Mapping[str, str]) -> str:
    """What the kernel tells the time by; empty when it does not say."""
    root = Path(environ.get("AGENTD_SYSFS") or "/sys")
    return _text(root / "devices/system/clocksource/clocksource0/current_clocksource")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _cpus(text: str) -> tuple[int, ...]:
    """`0-3,8` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last if last.isdigit() else first) + 1)
    return tuple(found)
