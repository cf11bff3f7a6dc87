"""Durations, counted in constant memory: how many took how long, to within 3 percent, whatever the range.

Log-linear, as HdrHistogram: below 64 ns a bucket a nanosecond, above it 32 buckets for each doubling. What is longer
than the last bucket counts as the last; the longest is kept exactly.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import Final

_LINEAR_BITS: Final = 6  # below 2**6 ns a bucket each
_HALF: Final = 1 << (_LINEAR_BITS - 1)
_MAX_BITS: Final = 48  # three days
_BUCKETS: Final = (_MAX_BITS - _LINEAR_BITS + 2) * _HALF
_MAX_NS: Final = (1 << _MAX_BITS) - 1


class Histogram:
    """Counts of durations."""

    __slots__ = ("_buckets", "count", "longest_ns")

    def __init__(self) -> None:
        self._buckets = array("Q", bytes(8 * _BUCKETS))
        self.count = 0
        self.longest_ns = 0

    def record(self, duration_ns: int, count: int = 1) -> None:
        """So many took so long. A clock that was set back gives no negative durations: they count as 0."""
        if duration_ns > self.longest_ns:
            self.longest_ns = duration_ns
        if not 0 <= duration_ns <= _MAX_NS:
            duration_ns = 0 if duration_ns < 0 else _MAX_NS
        shift = duration_ns.bit_length() - _LINEAR_BITS
        if shift <= 0:
            self._buckets[duration_ns] += count
        else:
            self._buckets[shift * _HALF + (duration_ns >> shift)] += count
        self.count += count

    def quantiles(self, *parts: float) -> list[int]:
        """For each part of 0 to 1: the nanoseconds that this part did not exceed; 0 without any."""
        if not self.count:
            return [0] * len(parts)
        seen = list(accumulate(self._buckets[: _place(min(self.longest_ns, _MAX_NS)) + 1]))
        places = (bisect_left(seen, max(1, part * self.count)) for part in parts)
        return [min(_upper_end(place), self.longest_ns) for place in places]


def _place(duration_ns: int) -> int:
    """The bucket that counts it. record() does this by itself."""
    shift = max(0, duration_ns.bit_length() - _LINEAR_BITS)
    return shift * _HALF + (duration_ns >> shift)


def _upper_end(place: int) -> int:
    """The longest duration that the bucket counts."""
    if place < 2 * _HALF:
        return place
    shift = place // _HALF - 1
    return ((place - shift * _HALF + 1) << shift) - 1
