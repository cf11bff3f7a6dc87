"""The daemon killed under load, again and again: what it has told a sender to be stored comes back, in order and with
nothing missing before it; what was acked before something that is stored does not."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon
from raw import Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, Error, Message, Options, Priority, State

NAME = "sink"
LOW = Options(Priority.LOW, allow_absent=True)
DURABLE = Options(durable=True, allow_absent=True)
PLAIN = Options(allow_absent=True)


@pytest.fixture(params=["synced", "mapped"])
def journaling(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon with segments and checkpoints so small that there are many of them."""
    daemon = Daemon(tmp_path)
    daemon.start()
    daemon.config(
        journal={"segment_bytes": 1 << 20, "checkpoint_bytes": 300_000, "level": request.param},
        rate={"messages_per_s": 0},
        inbox={"max_messages": 100_000, "max_held": 100_000, "max_bytes": 1 << 29},
    )
    yield daemon
    daemon.close()


class Oracle:
    """What must be there, and what may not."""

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        self.sent = 0
        self.stored: set[int] = set()
        self.acked: set[int] = set()  # that the journal has for sure
        self.maybe: set[int] = set()  # said, and then it was killed
        self.lost: set[int] = set()  # refused, or never stored and gone with a daemon

    def send_until_killed(self, daemon: Daemon) -> None:
        """As fast as it goes, until the daemon is gone."""
        killer = threading.Timer(self.luck.uniform(0.0, 0.05), os.kill, (daemon.pid, signal.SIGKILL))
        first = self.sent
        with Raw(daemon.socket, "planner") as me:
            me.ask(wire.Status(0))
            killer.start()
            cid = 1000
            try:
                while True:
                    verbs = []
                    for _ in range(self.luck.choice([1, 5, 100])):
                        body = self.sent.to_bytes(8, "little") + bytes(self.luck.choice([0, 1000, 20_000]))
                        options = self.luck.choice([LOW, DURABLE, PLAIN])
                        verbs.append(wire.Send(cid, NAME, Content.BYTES, body, options))
                        self.sent += 1
                        cid += 1
                    me.say(*verbs)
                    me.ask(wire.Status(0))  # which is not answered later than what came before it
            except (OSError, EOFError):
                pass
            killer.join()
            try:
                answers = me.rest()
            except OSError:
                answers = []
            for answer in [*me.seen, *answers]:
                cid = getattr(answer, "cid", 0)
                if isinstance(answer, Error):
                    assert answer.retryable, answer
                    self.lost.add(first + cid - 1000)
                elif isinstance(answer, Accepted) and cid >= 1000:
                    assert answer.state is State.STORED
                    self.stored.add(first + cid - 1000)
        daemon.kill()

    def look(self, daemon: Daemon) -> None:
        """Take everything, hold it against what is known, and ack some."""
        daemon.start()
        with Raw(daemon.socket, NAME, take=True) as taker:
            taker.take(100_000)
            (row,) = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == NAME]
            count = row.waiting + row.held
            got = [taker.until(Message) for _ in range(count)]
            numbers = [int.from_bytes(message.body[:8], "little") for message in got]
            assert numbers == sorted(numbers) and [m.id for m in got] == sorted(m.id for m in got)
            found = set(numbers)
            assert not self.acked & found, "acked, and there again"
            assert self.stored - self.acked - self.maybe <= found, "stored, and gone"
            must = set(range(max(numbers, default=-1) + 1)) - self.acked - self.maybe - self.lost
            assert must <= found, "there is a hole"
            self.maybe &= found
            self.lost |= set(range(self.sent)) - found - self.acked
            some = [message for message in got if self.luck.random() < 0.7]
            taker.ask(wire.Ack(0, [message.id for message in some]))
            done = {int.from_bytes(message.body[:8], "little") for message in some}
            if self.luck.random() < 0.5:
                told = taker.ask(wire.Send(0, "other", Content.TEXT, b"", LOW))
                assert told.state is State.STORED  # so the acks before it are
                self.acked |= done
            else:
                self.maybe |= done
            self.stored -= done


def campaign(daemon: Daemon, rounds: int, seed: int) -> None:
    oracle = Oracle(seed)
    for _ in range(rounds):
        oracle.send_until_killed(daemon)
        oracle.look(daemon)
    assert oracle.sent and (oracle.acked or oracle.maybe)


def test_a_kill_under_load_loses_nothing_that_was_stored(journaling: Daemon) -> None:
    campaign(journaling, 6, seed=1)


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [1, 2])
def test_five_hundred_kills_under_load(journaling: Daemon, seed: int) -> None:
    campaign(journaling, 250, seed)
