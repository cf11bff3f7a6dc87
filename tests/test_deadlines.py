"""Deadlines: each in its time, once, in order, and a heap no longer than what is left of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentd.hub.deadlines import Deadline, Deadlines


def test_each_is_done_once_in_its_time_and_told_what_time_it_is() -> None:
    deadlines, done = Deadlines(), list[tuple[str, float]]()
    deadlines.add(2.0, lambda now: done.append(("second", now)))
    deadlines.add(1.0, lambda now: done.append(("first", now)))
    assert deadlines.next() == 1.0
    deadlines.run(0.9)
    assert done == []
    deadlines.run(1.0)
    deadlines.run(1.5)
    assert done == [("first", 1.0)]
    deadlines.run(9.0)
    assert done == [("first", 1.0), ("second", 9.0)]
    assert deadlines.next() is None
    assert len(deadlines) == 0


def test_a_cancelled_one_is_not_done_and_wakes_nobody() -> None:
    deadlines, done = Deadlines(), list[float]()
    deadline = deadlines.add(1.0, done.append)
    deadlines.add(2.0, done.append)
    deadline.cancel()
    deadline.cancel()
    assert len(deadlines) == 1
    assert deadlines.next() == 2.0
    deadlines.run(3.0)
    assert done == [3.0]


def test_cancelling_what_was_done_or_is_being_done_is_harmless() -> None:
    deadlines, kept = Deadlines(), list[Deadline]()
    kept.append(deadlines.add(1.0, lambda now: kept[0].cancel()))
    deadlines.run(1.0)
    kept[0].cancel()
    assert len(deadlines) == 0


def test_one_that_is_added_while_others_are_done_is_done_too_if_it_is_due() -> None:
    deadlines, done = Deadlines(), list[str]()

    def outer(now: float) -> None:
        deadlines.add(now, lambda now: done.append("inner"))

    deadlines.add(1.0, outer)
    deadlines.run(1.0)
    assert done == ["inner"]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=300))
def test_what_is_left_is_done_in_the_order_of_times_and_then_of_adding(plan: list[tuple[int, bool]]) -> None:
    deadlines, done = Deadlines(), list[int]()
    added = [
        deadlines.add(float(at), lambda now, number=number: done.append(number))  # type: ignore[misc]
        for number, (at, _) in enumerate(plan)
    ]
    for deadline, (_, cancel) in zip(added, plan, strict=True):
        if cancel:
            deadline.cancel()
    left = [(at, number) for number, (at, cancel) in enumerate(plan) if not cancel]
    assert len(deadlines) == len(left)
    assert len(deadlines._heap) <= 2 * len(left) + 66
    deadlines.run(9.0)
    assert done == [number for _, number in sorted(left)]
    assert len(deadlines) == 0
