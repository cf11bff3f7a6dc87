"""How the blocking client waits: where answers come at once it looks for them, elsewhere it sleeps."""

from __future__ import annotations

from typing import Any

import pytest

from agentd_client import _socket
from agentd_client._socket import Plug


class Daemon:
    """A socket's poll() and a clock: the answer is there after so long, and a microsecond later to who sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due = 0.0
        self.looks = 0
        self.slept = 0

    def monotonic(self) -> float:
        self.now += 1e-7
        return self.now

    def poll(self, timeout_ms: float | None) -> list[tuple[int, int]]:
        if timeout_ms == 0:
            self.looks += 1
            self.now += 1e-6
        elif self.now < self.due:
            self.slept += 1
            self.now = self.due + 1e-6
        return [(3, 1)] if self.now >= self.due else []


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    daemon = Daemon()
    monkeypatch.setattr(_socket, "monotonic", daemon.monotonic)
    monkeypatch.setattr(_socket, "_QUICK_S", 80e-6)
    return daemon


def waits(daemon: Daemon, *after_us: float) -> list[tuple[bool, bool]]:
    """Of answers after so long, one after the other: whether it looked for each, and whether it slept."""
    plug: Any = Plug("/nowhere")
    plug._readable = daemon
    did = []
    for us in after_us:
        daemon.due = daemon.now + us / 1e6
        looks, slept = daemon.looks, daemon.slept
        assert plug._wait_for_answer(None)
        did.append((daemon.looks > looks, daemon.slept > slept))
    return did


def test_where_answers_come_at_once_it_does_not_sleep(daemon: Daemon) -> None:
    assert waits(daemon, 50, 50, 70) == [(False, True), (True, False), (True, False)]


def test_where_they_take_long_it_looks_no_more(daemon: Daemon) -> None:
    assert waits(daemon, 50, 500, 500, 50, 50) == [
        (False, True),
        (True, True),
        (False, True),
        (False, True),
        (True, False),
    ]
    assert daemon.looks < 150


def test_who_looks_in_vain_again_and_again_looks_less_and_less(daemon: Daemon) -> None:
    """As where agentd gets the core only when this thread sleeps."""
    plug: Any = Plug("/nowhere")
    plug._readable = daemon
    looked = []
    for number in range(200):
        looks = daemon.looks
        plug._is_quick = True
        daemon.due = daemon.now + 200e-6
        plug._wait_for_answer(None)
        if daemon.looks > looks:
            looked.append(number)
    assert looked == [0, 3, 8, 17, 34, 67, 132]
