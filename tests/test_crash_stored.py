"""The daemon killed under load, again and again: what it has told a sender to be stored comes back, in order and with
nothing missing before it; what was acked before something that is stored does not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from daemons import PATIENCE_S, Daemon
from oracle import Oracle
from raw import Raw, Refused

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, Error, Message, Options, Priority, State

NAME = "sink"
LOW = Options(Priority.LOW, allow_absent=True)
DURABLE = Options(durable=True, allow_absent=True)
PLAIN = Options(allow_absent=True)
FIRST_CID = 1000


@pytest.fixture(params=["synced", "mapped"])
def journaling(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon with segments and checkpoints so small that there are many of them."""
    daemon = Daemon(tmp_path)
    daemon.config(
        journal={"segment_bytes": 1 << 20, "checkpoint_bytes": 300_000, "level": request.param},
        rate={"messages_per_s": 0},
        inbox={"max_messages": 100_000, "max_held": 100_000, "max_bytes": 1 << 29},
    )
    yield daemon
    daemon.close()


def number_of(message: Message) -> int:
    return int.from_bytes(message.body[:8], "little")


class Campaign:
    """Rounds of load, a kill, and a look at what is left."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon = daemon
        self.luck = random.Random(seed)
        self.oracle = Oracle()

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            is_live = self.luck.random() < 0.5
            taker = Taker(self.daemon, self.oracle, self.luck.random()) if is_live else None
            self.send_until_killed([LOW, DURABLE] if is_live else [LOW, DURABLE, PLAIN], taker)
            if self.luck.random() < 0.2:
                self.kill_while_it_starts()
            self.look()
        assert self.oracle.sent and self.oracle.acked

    def send_until_killed(self, options: list[Options], taker: Taker | None) -> None:
        """As fast as it goes, until the daemon is gone."""
        daemon, oracle = self.daemon, self.oracle
        killer = threading.Timer(self.luck.uniform(0.0, 0.05), os.kill, (daemon.pid, signal.SIGKILL))
        first = oracle.sent
        answers = []
        with Raw(daemon.socket, "planner") as me:
            me.ask(wire.Status(0))
            killer.start()
            with suppress(OSError, EOFError):
                while True:
                    verbs = []
                    for _ in range(self.luck.choice([1, 5, 100])):
                        cid = FIRST_CID + oracle.sent - first
                        size_bytes = self.luck.choice([0, 1000, 20_000])
                        body = oracle.next(size_bytes).to_bytes(8, "little") + bytes(size_bytes)
                        verbs.append(wire.Send(cid, NAME, Content.BYTES, body, self.luck.choice(options)))
                    me.say(*verbs)
                    me.ask(wire.Status(0))  # which is not answered later than what came before it
            killer.join()
            if taker is not None:
                taker.join()
            with suppress(OSError):
                answers = me.rest()
            for answer in [*me.seen, *answers]:
                number = first + getattr(answer, "cid", 0) - FIRST_CID
                if isinstance(answer, Error):
                    assert answer.retryable, answer
                    oracle.refused(number)
                elif isinstance(answer, Accepted) and number >= first:
                    assert answer.state is State.STORED
                    oracle.stored(number)
        daemon.kill()

    def kill_while_it_starts(self) -> None:
        """At a moment of its recovery, or before or behind it."""
        with self.daemon.log.open("ab") as log:
            process = subprocess.Popen(self.daemon.command, env=self.daemon.env, stdout=log, stderr=log)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.luck.uniform(0.05, 0.4))
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL

    def look(self) -> None:
        """Take everything, hold it against what is known, and ack some."""
        self.daemon.start()
        with Raw(self.daemon.socket, NAME, take=True) as taker:
            taker.take(100_000)
            (row,) = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == NAME]
            got = [taker.until(Message) for _ in range(row.waiting + row.held)]
            assert [message.id for message in got] == sorted(message.id for message in got)
            self.oracle.look([number_of(message) for message in got])
            some = [message for message in got if self.luck.random() < 0.7]
            acks(taker, self.oracle, some, is_sure=self.luck.random() < 0.5)


def acks(taker: Raw, oracle: Oracle, messages: list[Message], *, is_sure: bool) -> None:
    """Ack these; to be sure, something is stored behind that."""
    numbers = [number_of(message) for message in messages]
    oracle.acks(numbers)
    taker.ask(wire.Ack(0, [message.id for message in messages]))
    if is_sure:
        try:
            told = taker.ask(wire.Send(0, "other", Content.TEXT, b"", LOW))
        except Refused as refused:  # the disk is behind
            assert refused.error.retryable, refused
            return
        assert told.state is State.STORED
        oracle.acks_are_stored(numbers)


class Taker(threading.Thread):
    """Takes and acks until the daemon is gone."""

    def __init__(self, daemon: Daemon, oracle: Oracle, seed: float) -> None:
        super().__init__()
        self._oracle = oracle
        self._luck = random.Random(seed)
        self._raw = Raw(daemon.socket, NAME, take=True)
        self.start()

    def run(self) -> None:
        with self._raw as taker, suppress(OSError, EOFError):
            taker.take(100_000)
            while True:
                got = [taker.until(Message), *taker.so_far(Message)]
                acks(taker, self._oracle, got, is_sure=self._luck.random() < 0.5)


def test_a_kill_under_load_loses_nothing_that_was_stored(journaling: Daemon) -> None:
    Campaign(journaling, 1).run(6)


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_kills_under_load_lose_nothing_that_was_stored(journaling: Daemon, seed: int) -> None:
    Campaign(journaling, seed).run(50)
