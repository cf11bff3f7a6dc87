"""The worlds that the conformance suite runs in, all behind one interface.

    hub      the hub in this process: sessions without a socket, the daemon's own handlers, a clock that jumps
    binary   a daemon in its own process, on the binary face
    json     the same on the JSON face

A party is one connection, in the test's own hands: it says verbs and expects answers. Waiting is always for something
that is to come. Where time must pass for it, the hub's clock jumps to the next deadline and the daemon's runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hub_invariants
from daemons import Daemon, wait_until
from memory import JumpingLoop, MemoryParty
from parties import Party, Refused, SocketParty

from agentd.host.config import load_config
from agentd.hub.hub import Hub
from agentd.lanes.choice import Lanes
from agentd.lanes.closed import ClosedLane
from agentd.lanes.direct import DirectLane
from agentd.lanes.low import LowLane
from agentd.lanes.normal import NormalLane
from agentd.server.server import Server
from agentd.wire.messages import (
    VERSION,
    Agents,
    AgentsView,
    AgentView,
    Drop,
    Forget,
    Hello,
    Join,
    Joined,
    Priority,
    Status,
    Unsubscribe,
    Welcome,
)
from agentd.wire.names import SUBSCRIPTION
from agentd_client._memory_journal import MemoryJournal

#: Limits within reach of a test.
LIMITS: dict[str, dict[str, Any]] = {
    "inbox": {"max_messages": 1000, "max_bytes": 64 << 20},
    "message": {"max_attempts": 3},
    "agents": {"max_names": 60, "max_requests": 40},
    "rate": {"messages_per_s": 20_000, "messages_burst": 4000, "events_per_s": 20, "events_burst": 100},
    "topics": {"max_events": 10, "max_subscriptions": 12},
    "connections": {"max_unread_bytes": 64 << 10},
}
SETTINGS = [f"{section}.{name}={value}" for section, table in LIMITS.items() for name, value in table.items()]


class World:
    """Where parties meet."""

    kind = ""

    def __init__(self) -> None:
        self._parties: list[Party] = []

    def _connect(self) -> Party:
        raise NotImplementedError

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        """As SIGTERM does: within, the world takes no new work. Something must be out, or it is over at once."""
        raise NotImplementedError

    def connect(self) -> Party:
        """A party that has said hello and not joined."""
        party = self._connect()
        self._parties.append(party)
        party.tell(Hello(VERSION, "tests"))
        party.expect(Welcome)
        return party

    def stranger(self) -> Party:
        """A party that has said nothing yet."""
        party = self._connect()
        self._parties.append(party)
        return party

    def join(self, name: str | None = None, *, credit: int = 0, **how: bool) -> Party:
        """A party that speaks as that agent. take=True: it takes its mail; credit: and asks for so many at once."""
        party = self.connect()
        joined = party.ask(Join(0, name, **(how | ({"take": True} if credit else {}))))
        assert isinstance(joined, Joined)
        party.name = joined.name
        if credit:
            party.credit(credit)
        return party

    def close(self) -> None:
        """Everybody goes."""
        for party in self._parties:
            party.die()
        self._parties.clear()

    def clean(self) -> None:
        """After a behaviour: everybody goes, no mail and no name stays. Ends mail as people would."""
        self.close()
        sweeper = self.join()
        try:
            wait_until(lambda: self._swept(sweeper), f"for everybody to be gone: {self._agents(sweeper)}")
            status = sweeper.ask(Status(0))
            assert (status.agents, status.waiting, status.held, status.dead) == (0, 0, 0, 0)
        finally:
            self.close()

    def _swept(self, sweeper: Party) -> bool:
        """End all mail and forget all names; whether that was so already."""
        agents = self._agents(sweeper)
        for row in agents:
            if row.name.startswith(SUBSCRIPTION):
                self._end_subscription(sweeper, row.name.removeprefix(SUBSCRIPTION))
                continue
            mail = [mail.id for mail in sweeper.inbox(row.name).messages]
            if mail:
                owner = self.join(row.name)
                owner.ack(*mail)
                owner.leave()
            letters = [letter.id for letter in sweeper.dead(row.name).letters]
            if letters:
                sweeper.ask(Drop(0, letters))
            try:
                sweeper.ask(Forget(0, row.name))
            except Refused as refused:  # a connection that was closed just now can still be in the making
                assert refused.code == "not_permitted", refused
        return not agents

    @staticmethod
    def _end_subscription(sweeper: Party, name: str) -> None:
        try:
            sweeper.ask(Unsubscribe(0, 0, name))
        except Refused as refused:
            assert refused.code == "not_permitted", refused  # its subscriber's connection can still be in the making

    @staticmethod
    def _agents(party: Party) -> list[AgentView]:
        return cast(AgentsView, party.ask(Agents(0))).agents


class MemoryWorld(World):
    """The hub in this process."""

    kind = "hub"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        config, _ = load_config(None, {}, SETTINGS)
        self.loop = JumpingLoop()
        self.hub = Hub(config, first_id=1 << 40)
        closed = "this version does not have it"
        lanes = Lanes(
            [
                DirectLane(Priority.CRITICAL, self.hub),
                DirectLane(Priority.HIGH, self.hub),
                NormalLane(self.hub.router),
                LowLane(self.hub.router, str, "in memory"),
                ClosedLane(Priority.BATCH, closed),
            ]
        )
        journal = MemoryJournal()
        journal.restore(self.hub, self.loop.now)
        self.server = Server(config, self.hub, lanes, journal, directory / "no.sock", 1000)
        self.server.clock = lambda: self.loop.now
        self.server.loop = cast(Any, self.loop)

    def _connect(self) -> Party:
        return MemoryParty(self.server, self.loop)

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        self.hub.router.draining = True
        try:
            yield
        finally:
            self.hub.router.draining = False

    def clean(self) -> None:
        self.check()
        super().clean()
        self.check()

    def check(self) -> None:
        """Every registry against the others."""
        hub_invariants.check(self.hub, self.loop.now, 1 << 30)


class DaemonWorld(World):
    """A daemon, spoken to on one face."""

    def __init__(self, daemon: Daemon, face: str) -> None:
        super().__init__()
        self.daemon = daemon
        self.kind = face

    def _connect(self) -> Party:
        return SocketParty(self.daemon.socket, self.kind)

    @contextmanager
    def stopping(self, witness: Party) -> Iterator[None]:
        process = self.daemon.process
        assert process is not None
        process.terminate()
        wait_until(lambda: witness.ask(Status(0)).draining)
        yield


def make_world(kind: str, directory: Path) -> Iterator[World]:
    """The world of that name, for a fixture to yield from."""
    if kind == "hub":
        yield MemoryWorld(directory)
        return
    daemon = Daemon(directory)
    daemon.config_path.write_text(
        "\n".join(
            f"[{section}]\n" + "\n".join(f"{name} = {value}" for name, value in table.items())
            for section, table in LIMITS.items()
        )
    )
    daemon.start()
    try:
        yield DaemonWorld(daemon, kind)
    finally:
        daemon.close()
