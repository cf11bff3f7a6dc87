"""Long: senders that are killed at any moment, and a million messages; nothing of them is left, in the receiver or in
the daemon."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from daemons import Daemon, open_files, wait_until
from peers import Peer, peer

from agentd_client import Priority, blocking, errors

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("AGENTD_ROUNDS", "200"))
MESSAGES = int(os.environ.get("AGENTD_MESSAGES", "1000000"))


def footprint(pid: int) -> tuple[int, int, int]:
    """Descriptors, maps of pairs, and resident pages in KiB."""
    place = Path(f"/proc/{pid}")
    status = (place / "status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return len(open_files(pid)), (place / "maps").read_text().count("agentd-pair"), int(resident.split()[1])


def pairs(daemon: Daemon) -> int:
    with blocking.connect(socket=daemon.socket) as me:
        return me.stats().registries["pairs"]["pairs"]


def test_senders_killed_at_any_moment_leave_nothing(daemon: Daemon, lane: Priority) -> None:
    chance = random.Random(7)
    with peer(daemon.socket, "counter", "builder") as builder:
        before: tuple[int, int, int] | None = None
        before_daemon: tuple[int, int, int] | None = None
        for number in range(ROUNDS):
            sender = Peer(daemon.socket, "flood", f"planner-{number % 7}", lane, "builder")
            if chance.random() < 0.7:
                assert sender.line() == "ready"
            time.sleep(chance.random() * 0.02)  # a random moment is what this is about
            sender.kill()
            sender.close()
            if number == ROUNDS // 4:
                wait_until(lambda: pairs(daemon) == 1)
                before, before_daemon = footprint(builder.process.pid), footprint(daemon.pid)
        wait_until(lambda: pairs(daemon) == 1, "for all pairs but the relay's to be gone")
        assert before is not None and before_daemon is not None
        fds, maps, _ = before
        wait_until(lambda: footprint(builder.process.pid)[:2] <= (fds, maps), "for the receiver to let go")
        wait_until(lambda: footprint(daemon.pid)[0] <= before_daemon[0], "for the daemon to let go")
        assert footprint(daemon.pid)[2] < before_daemon[2] + 8192
        assert footprint(builder.process.pid)[2] < before[2] + 8192


def test_a_million_messages_leave_nothing(daemon: Daemon, lane: Priority) -> None:
    with peer(daemon.socket, "counter", "builder") as builder, blocking.connect("me", socket=daemon.socket) as me:
        with me.channel("builder", lane) as channel:
            before = None
            for number in range(MESSAGES):
                while True:
                    try:
                        position = channel.send(number)
                        break
                    except errors.Backpressure:
                        time.sleep(0)
                if number == MESSAGES // 10:
                    before = footprint(builder.process.pid), footprint(os.getpid())
            assert channel.delivered(position, timeout=60)
            assert before is not None
            for (fds, maps, resident), pid in zip(before, (builder.process.pid, os.getpid()), strict=True):
                now = footprint(pid)
                assert now[:2] <= (fds, maps) and now[2] < resident + 8192
