"""The one sampler of all benchmarks: durations in, count, mean and percentiles out.

Samples are whole nanoseconds, kept in full: nothing is bucketed, trimmed or smoothed. A percentile is the sample at
that rank (nearest rank), so that every figure printed was measured. Only operations that succeeded are recorded; the
one who measures checks first and records then.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import msgspec


class Summary(msgspec.Struct, frozen=True):
    """What a set of samples says, in microseconds."""

    count: int
    mean_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float


class Sampler:
    """Durations in nanoseconds."""

    __slots__ = ("_samples",)

    def __init__(self, samples_ns: Iterable[int] = ()) -> None:
        self._samples = array("q", samples_ns)

    def __len__(self) -> int:
        return len(self._samples)

    def record(self, duration_ns: int) -> None:
        """Add one."""
        self._samples.append(duration_ns)

    def extend(self, samples_ns: Iterable[int]) -> None:
        """Add many, in place."""
        self._samples.extend(samples_ns)

    def listed(self) -> list[int]:
        """All of them, in the order of recording."""
        return self._samples.tolist()

    def summary(self) -> Summary:
        """Their summary; ValueError when there are none."""
        if not self._samples:
            raise ValueError("Nothing was measured")
        ordered = sorted(self._samples)
        return Summary(
            count=len(ordered),
            mean_us=round(sum(ordered) / len(ordered) / 1000, 3),
            p50_us=_rank(ordered, 0.50) / 1000,
            p99_us=_rank(ordered, 0.99) / 1000,
            p999_us=_rank(ordered, 0.999) / 1000,
            max_us=ordered[-1] / 1000,
        )


def _rank(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
