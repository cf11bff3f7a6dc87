"""How the daemon waits: it looks for more before it sleeps, for as long as that pays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from daemons import Daemon

from agentd.server.alertness import Alertness
from agentd_client.blocking import connect

BOUND_US = 200.0


class Loop:
    """A loop that takes 1 µs a turn, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.alertness = Alertness(BOUND_US, lambda: self.now)

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        self.due.append((callback, args))

    def turn(self) -> None:
        """One turn of the loop, in which nothing comes."""
        self.now += 1e-6
        due, self.due = self.due, []
        for callback, args in due:
            callback(*args)

    def something(self) -> None:
        self.alertness.something_happened(cast(asyncio.AbstractEventLoop, self), self.now)

    def quiet(self, us: int) -> int:
        """Nothing comes for so long; for how many µs it looked before it slept."""
        looked = 0
        end = self.now + us / 1e6
        while self.due and self.now < end:
            self.turn()
            looked += 1
        self.now = max(self.now, end)
        return looked


def test_who_speaks_seldom_finds_it_asleep() -> None:
    loop = Loop()
    for _ in range(10):
        loop.something()
        assert loop.quiet(1000) == 0


def test_it_looks_as_long_as_would_have_been_enough_lately_up_to_the_bound() -> None:
    loop = Loop()
    loop.something()
    assert loop.quiet(120) == 0
    looked = []
    for _ in range(3):
        loop.something()
        looked.append(loop.quiet(120))
    assert looked == pytest.approx([50, 100, 120], abs=3)
    assert loop.due  # it was caught awake
    loop.something()
    assert loop.quiet(1000) == pytest.approx(BOUND_US, abs=3)


def test_it_gives_up_where_looking_does_not_pay() -> None:
    loop = Loop()
    for _ in range(6):
        loop.something()
        loop.quiet(150)
    looked = []
    for _ in range(6):
        loop.something()
        looked.append(loop.quiet(1000))
    assert looked == pytest.approx([200, 100, 50, 0, 0, 0], abs=3)


def test_what_comes_while_it_looks_begins_its_patience_anew() -> None:
    loop = Loop()
    for _ in range(100):
        loop.something()
        loop.quiet(90)
    assert loop.alertness.statistics()["caught"] > 90
    assert loop.alertness.statistics()["slept"] < 5


def test_it_stands_back_where_others_have_taken_its_core() -> None:
    loop = Loop()
    for _ in range(6):
        loop.something()
        loop.quiet(150)
    loop.something()
    loop.turn()
    loop.now += 0.003
    loop.turn()
    assert not loop.due
    loop.something()
    assert loop.quiet(1000) == 0


def test_it_waits_for_nobody_while_much_flows() -> None:
    loop = Loop()
    for _ in range(6):
        loop.something()
        loop.quiet(150)
    loop.alertness.much_came(loop.now)
    loop.something()
    assert loop.quiet(150) <= 1
    loop.something()
    assert loop.quiet(1000) == 0
    loop.something()
    assert loop.quiet(150) > 100


def test_without_a_bound_it_never_looks() -> None:
    loop = Loop()
    loop.alertness = Alertness(0.0, lambda: loop.now)
    for _ in range(10):
        loop.something()
        assert loop.quiet(20) == 0


def _sleeps(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("no such line")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: it never looks")
def test_a_daemon_that_is_asked_again_and_again_sleeps_less(daemon: Daemon) -> None:
    slept = {}
    for spin_us in (0, 1_000_000):
        daemon.config(connections={"spin_us": spin_us})
        with connect("asker", socket=daemon.socket) as me:
            before = _sleeps(daemon.pid)
            for _ in range(300):
                me.status()
            slept[spin_us] = _sleeps(daemon.pid) - before
            assert (me.stats().registries["alertness"]["caught"] > 0) == (spin_us > 0)
    assert slept[1_000_000] * 2 < slept[0]
