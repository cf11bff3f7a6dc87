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


class Tally:
    """Durations in nanoseconds, counted by value: for what takes so little time that there are millions of them."""

    def __init__(self, counted: Iterable[tuple[int, int]] = ()) -> None:
        self._counts: dict[int, int] = {}
        self.add(counted)

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, counted: Iterable[tuple[int, int]]) -> None:
        """Add (duration, how often) pairs."""
        counts = self._counts
        for duration_ns, count in counted:
            counts[duration_ns] = counts.get(duration_ns, 0) + count

    def items(self) -> Iterable[tuple[int, int]]:
        """What add() takes."""
        return self._counts.items()

    def rank(self, share: float) -> int:
        """The sample at that rank, as Sampler has it."""
        left = min(len(self) - 1, int(share * len(self)))
        for duration_ns, count in sorted(self._counts.items()):
            left -= count
            if left < 0:
                return duration_ns
        raise ValueError("Nothing was measured")

    def middle(self) -> float:
        """The mean of the middle half: where the clock moves in steps, it tells what the median can't."""
        first, last = len(self) / 4, len(self) * 3 / 4
        seen = total = 0.0
        for duration_ns, count in sorted(self._counts.items()):
            total += duration_ns * max(0.0, min(seen + count, last) - max(seen, first))
            seen += count
        return total / (last - first)

    def summary(self, parts: int = 1) -> Summary:
        """Of the samples divided by `parts`: 2 makes one way of a round trip."""
        in_us = 1000 * parts
        total_ns = sum(duration_ns * count for duration_ns, count in self._counts.items())
        return Summary(
            count=len(self),
            mean_us=round(total_ns / len(self) / in_us, 4),
            p50_us=self.rank(0.50) / in_us,
            p99_us=self.rank(0.99) / in_us,
            p999_us=self.rank(0.999) / in_us,
            max_us=max(self._counts) / in_us,
        )


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
