"""Ten thousand clients come and are killed: what the daemon holds is what it held before."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from crowds import Crowd
from daemons import JOURNAL_FILES, Daemon, wait_until
from raw import Opener, Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content

MIB = 1 << 20
#: What each connection of a crowd does before it is killed: it holds, waits, asks, subscribes.
BUSY = [
    '{"verb":"receive","cid":2,"credit":5}',
    '{"verb":"send","cid":3,"to":"sink","body":"to myself","options":{"ttl":3600,"wait":"acked"}}',
    '{"verb":"subscribe","cid":4,"pattern":"task:*"}',
    '{"verb":"request","cid":5,"to":"sink","body":"?","timeout":3600}',
    '{"verb":"publish","cid":6,"topic":"task:x","body":"news"}',
    '{"verb":"send","cid":7,"to":"sink","body":"for you","options":{"wait":"acked"}}',
]


class Held(NamedTuple):
    """What must not grow."""

    fds: int
    sessions: int
    agents: int
    named: int
    waiting: int
    held: int

    def is_no_more_than(self, before: Held) -> bool:
        """But for the files of the journal, which come as they are needed."""
        return self._replace(fds=0) == before._replace(fds=0) and self.fds <= before.fds + JOURNAL_FILES


def held(one: Raw) -> Held:
    stats, status = one.ask(wire.Stats(0)), one.ask(wire.Status(0))
    agents = one.ask(wire.Agents(0)).agents
    return Held(stats.fds, stats.sessions, len(agents), status.agents, stats.waiting, stats.held)


def campaign(daemon: Daemon, raw: Opener, rounds: int, processes: int, connections: int) -> None:
    """Rounds of crowds, half of whose connections have a name (the same in each round), and half none."""
    daemon.config(trace={"max_messages": 50, "keep_s": 1.0}, agents={"max_keys": 10})
    sink = raw("sink", take=True)
    watcher = raw("watcher")
    sizes: list[int] = []
    first: Held | None = None
    for _ in range(rounds):
        crowds = []
        try:
            for number in range(processes):
                prefix = "-" if number % 2 else f"crowd-{number}-"
                lines = [line for line in BUSY if prefix != "-" or '"receive"' not in line]
                crowds.append(Crowd(daemon.socket, connections, prefix, *lines))
            for crowd in crowds:
                crowd.ready()
            assert watcher.ask(wire.Status(0)).sessions == 2 + processes * connections
        finally:
            for crowd in crowds:
                crowd.kill()
        wait_until(lambda: watcher.ask(wire.Status(0)).sessions == 2, "for all of them to be seen gone")
        letters = watcher.ask(wire.Inbox(0, "sink", 1)).total
        sink.take(letters)
        got = [sink.until(wire.Message) for _ in range(letters)]
        sink.ask(wire.Ack(0, [m.id for m in got]))
        assert len([m for m in got if m.content is Content.TEXT]) == 2 * processes * connections
        sink.ask(wire.Receive(0, -(1 << 20)))
        assert not sink.seen
        now = held(watcher)
        first = first or now
        assert now.is_no_more_than(first), (now, first)
        sizes.append(watcher.ask(wire.Stats(0)).rss_bytes)
    warm = sizes[len(sizes) // 3 :]
    assert warm[-1] - warm[0] < 4 * MIB, [size // 1024 for size in sizes]
    assert now.sessions == 2 and now.waiting == now.held == 0


def test_500_clients_come_and_are_killed(daemon: Daemon, raw: Opener) -> None:
    campaign(daemon, raw, rounds=5, processes=5, connections=20)


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_10000_clients_come_and_are_killed(daemon: Daemon, raw: Opener) -> None:
    campaign(daemon, raw, rounds=25, processes=8, connections=50)


def test_processes_of_one_connection_each(daemon: Daemon, raw: Opener) -> None:
    """As agentctl is used: a process, a connection, gone. Here without a goodbye."""
    watcher = raw("watcher")
    before = held(watcher)
    for _ in range(4):
        crowds = [Crowd(daemon.socket, 1, "-") for _ in range(8)]
        for crowd in crowds:
            try:
                crowd.ready()
            finally:
                crowd.kill()
        wait_until(lambda: watcher.ask(wire.Status(0)).sessions == 1)
    wait_until(lambda: held(watcher).is_no_more_than(before), "for everything of theirs to be gone")
