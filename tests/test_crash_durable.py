"""The daemon killed while events are published to a durable subscription, again and again: what a publisher was told to
be stored is there, in order and once in the inbox; what was acked before something that is stored is not."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from daemons import Daemon
from raw import Raw

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Error, LaggedEvent, Message, Receipt, State

WINDOW = 100_000


@pytest.fixture(params=["synced", "mapped"])
def journaling(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon with segments and checkpoints so small that there are many of them."""
    daemon = Daemon(tmp_path)
    daemon.config(
        journal={"segment_bytes": 1 << 20, "checkpoint_bytes": 300_000, "level": request.param},
        rate={"messages_per_s": 0, "events_per_s": 0},
        inbox={"max_messages": WINDOW, "max_held": WINDOW, "max_bytes": 1 << 29},
        topics={"max_events": WINDOW},
    )
    yield daemon
    daemon.close()


class Campaign:
    """What must be there, and what may not."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon = daemon
        self.luck = random.Random(seed)
        self.published = 0
        self.stored: set[int] = set()
        self.gone: set[int] = set()  # acked, and something was stored after that
        self.maybe: set[int] = set()  # acked, and then the daemon was killed

    def publish_until_killed(self) -> None:
        """As fast as it goes; perhaps somebody takes and acks meanwhile."""
        daemon, numbers = self.daemon, dict[int, int]()
        killer = threading.Timer(self.luck.uniform(0.0, 0.05), os.kill, (daemon.pid, signal.SIGKILL))
        taker = threading.Thread(target=self.take_until_killed)
        takes = self.luck.random() < 0.5
        with Raw(daemon.socket, "planner") as me:
            if takes:
                taker.start()
            killer.start()
            with suppress(OSError, EOFError):
                while True:
                    verbs = []
                    for _ in range(self.luck.choice([1, 5, 100])):
                        numbers[cid := me.number()] = self.published
                        body = self.published.to_bytes(8, "little") + bytes(self.luck.choice([0, 1000, 20_000]))
                        verbs.append(wire.Publish(cid, "build:done", Content.BYTES, body))
                        self.published += 1
                    me.say(*verbs)
                    me.ask(wire.Status(0))
            killer.join()
            with suppress(OSError, EOFError):
                while True:
                    me.read_some()
            for receipt in (answer for answer in me.seen if isinstance(answer, Receipt)):
                assert (receipt.state, receipt.reached, receipt.refused) == (State.STORED, 1, [])
                self.stored.add(numbers[receipt.cid])
            assert all(answer.code == "busy" for answer in me.seen if isinstance(answer, Error))
        if takes:
            taker.join()
        daemon.kill()

    def take_until_killed(self) -> None:
        """One after the other."""
        with suppress(OSError, EOFError), Raw(self.daemon.socket, "taker") as me:
            me.ask(wire.Subscribe(0, "build:*", "new", "ci", 5))
            while True:
                message = me.until(Message)
                self.maybe.add(number_of(message))
                me.say(wire.Ack(0, [message.id]))

    def look(self) -> None:
        """Take everything, hold it against what is known, and ack some."""
        self.daemon.start()
        with Raw(self.daemon.socket, "taker") as me:
            (row,) = [agent for agent in me.ask(wire.Agents(0)).agents if agent.name == "sub:ci"]
            me.ask(wire.Subscribe(0, "build:*", "new", "ci"))
            got = [me.until(Message) for _ in range(row.waiting)]
            assert not me.so_far(LaggedEvent) and not me.so_far(Message)
            numbers = [number_of(message) for message in got]
            assert numbers == sorted(set(numbers)), "out of order, or twice"
            found = set(numbers)
            assert self.stored - self.gone - self.maybe <= found, "stored, and gone"
            assert not self.gone & found, "acked, and there again"
            some = [message for message in got if self.luck.random() < 0.7]
            done = {number_of(message) for message in some}
            me.ask(wire.Ack(0, [message.id for message in some]))
            if self.luck.random() < 0.5:
                receipt = me.ask(wire.Publish(0, "build:done", Content.BYTES, self.published.to_bytes(8, "little")))
                assert receipt.state is State.STORED  # so the acks before it are
                self.gone |= done
                self.stored.add(self.published)
                self.published += 1
            else:
                self.maybe |= done

    def run(self, rounds: int) -> None:
        """So many kills."""
        with Raw(self.daemon.socket, "taker") as me:
            me.ask(wire.Subscribe(0, "build:*", "new", "ci"))
        for _ in range(rounds):
            self.publish_until_killed()
            self.look()
        assert self.stored


def number_of(message: Message) -> int:
    return int.from_bytes(message.body[:8], "little")


def test_a_kill_while_events_are_published_loses_none_that_was_stored(journaling: Daemon) -> None:
    Campaign(journaling, seed=1).run(6)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_a_hundred_kills_while_events_are_published(journaling: Daemon) -> None:
    Campaign(journaling, seed=2).run(100)
