"""Time as agentd counts it: CLOCK_BOOTTIME, which goes on in suspend and never jumps, shown to people as wall time."""

from __future__ import annotations

import time


def boottime() -> float:
    """Seconds since boot, suspend included. Every deadline and transition is in these."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_offset() -> float:
    """What to add to `boottime` for seconds since 1970, as the wall clock stands now."""
    return time.time() - boottime()
