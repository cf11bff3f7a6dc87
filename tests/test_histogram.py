"""The histogram against exact quantiles."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agentd.hub.histogram import Histogram

PARTS = (0.5, 0.9, 0.99, 0.999)


def exact(durations: list[int], part: float) -> int:
    return sorted(durations)[max(0, math.ceil(part * len(durations)) - 1)]


@given(st.lists(st.integers(0, 1 << 36), min_size=1))
def test_quantiles_are_exact_to_three_percent(durations: list[int]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    for part, found in zip(PARTS, histogram.quantiles(*PARTS), strict=True):
        true = exact(durations, part)
        assert true <= found <= true * 1.0321
    assert histogram.quantiles(1.0) == [max(durations)]


@given(st.integers(0, 1 << 36), st.integers(1, 10_000))
def test_counting_many_at_once(duration: int, count: int) -> None:
    at_once, one_by_one = Histogram(), Histogram()
    at_once.record(duration, count)
    for _ in range(min(count, 50)):
        one_by_one.record(duration)
    assert at_once.count == count
    assert at_once.quantiles(*PARTS) == one_by_one.quantiles(*PARTS)


def test_every_boundary_falls_into_the_bucket_that_says_so() -> None:
    for bits in range(48):
        for duration in ((1 << bits) - 1, 1 << bits, (1 << bits) + 1):
            histogram = Histogram()
            histogram.record(duration)
            histogram.record(1 << 62)  # so that the longest does not hide the bucket
            (found,) = histogram.quantiles(0.5)
            assert duration <= found <= duration * 1.0321


def test_what_is_out_of_range() -> None:
    histogram = Histogram()
    assert histogram.quantiles(0.5, 0.99) == [0, 0]
    histogram.record(-5)
    assert histogram.quantiles(0.5) == [0]
    histogram.record(1 << 60, 3)
    assert histogram.longest_ns == 1 << 60
    assert histogram.quantiles(0.99)[0] == (1 << 48) - 1
