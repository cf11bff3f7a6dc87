"""agentd._native.Mailbox: it looks for a while before it sleeps, and less and less where that was in vain."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from daemons import Daemon, wait_until
from pools import Ends

from agentd import _native
from agentd_client import blocking

MOST_WITHOUT = 255
SHORT_S = 0.0002
LONG_S = 30.0


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def _looks(mailbox: _native.Mailbox, waits: int) -> int:
    """So many waits for nothing: how many of them began with a look."""
    looks = 0
    for _ in range(waits):
        looks += mailbox.without_look == 0
        assert mailbox.receive(SHORT_S) is None
    return looks


def _sleeps() -> int:
    """Of this thread, so far."""
    with open(f"/proc/self/task/{threading.get_native_id()}/status") as status:
        return int(next(line for line in status if line.startswith("voluntary_ctxt")).split()[1])


def test_who_looks_in_vain_looks_less_and_less(ends: Ends) -> None:
    ends.mailbox.spin_ns = 1000
    assert [_looks(ends.mailbox, waits) for waits in (1, 1, 2, 4, 8, 16, 32, 64, 128)] == [1] * 9
    assert ends.mailbox.without_look == MOST_WITHOUT
    assert _looks(ends.mailbox, 2 * (MOST_WITHOUT + 1)) == 2


def test_who_finds_something_looks_again_each_time(ends: Ends) -> None:
    ends.mailbox.spin_ns = 1000
    _looks(ends.mailbox, 8)
    while ends.mailbox.without_look:
        ends.mailbox.receive(SHORT_S)
    _found_by_looking(ends)
    assert _looks(ends.mailbox, 4) == 3


def test_who_looks_does_not_sleep(ends: Ends) -> None:
    before = _sleeps()
    _found_by_looking(ends)
    looking = _sleeps() - before
    ends.mailbox.spin_ns = 0
    assert ends.mailbox.receive(SHORT_S) is None
    assert _sleeps() - before > looking


def _found_by_looking(ends: Ends) -> None:
    ends.mailbox.spin_ns = int(LONG_S * 1e9)

    def send_to_who_looks() -> None:
        wait_until(lambda: ends.mailbox.busy, "for it to look")  # it has the interpreter until then
        ends.channel.send(b"there")

    sender = threading.Thread(target=send_to_who_looks)
    sender.start()
    assert ends.mailbox.receive().body == b"there"
    sender.join()
    ends.mailbox.spin_ns = 1000


def test_a_wait_that_is_too_short_says_nothing(ends: Ends) -> None:
    ends.mailbox.spin_ns = int(LONG_S * 1e9)
    for _ in range(10):
        assert ends.mailbox.receive(SHORT_S) is None
        assert ends.mailbox.without_look == 0


def test_without_a_bound_it_never_looks(ends: Ends) -> None:
    for _ in range(10):
        assert ends.mailbox.receive(SHORT_S) is None
        assert ends.mailbox.without_look == 0


def test_a_receiver_that_was_given_one_core_looks_too(daemon: Daemon) -> None:
    """It may be a core of its own."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with blocking.connect("builder", socket=daemon.socket) as me, me.receiver("critical") as receiver:
            mailbox = receiver._reading.mailbox
            assert mailbox.spin_ns > 0
            receiver.receive(timeout=0.01)
            receiver.receive(timeout=0.01)
            assert mailbox.without_look == 1
    finally:
        os.sched_setaffinity(0, cores)
