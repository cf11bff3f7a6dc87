"""Time as agentd counts it: CLOCK_BOOTTIME, which goes on in suspend and never jumps, shown to people as wall time."""

from __future__ import annotations

import time

from agentd._native import boottime_ns


def boottime() -> float:
    """Seconds since boot, suspend included. Every deadline and transition is in these."""
    return boottime_ns() * 1e-9


def wall_offset() -> float:
    """What to add to `boottime` for seconds since 1970, as the wall clock stands now."""
    return time.time() - boottime()
