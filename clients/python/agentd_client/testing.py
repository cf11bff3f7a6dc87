"""A hub in memory, for the tests of agents: the daemon's own sessions, handlers, lanes and hub, in the test's process.

    with testing.memory() as hub:                      # or the pytest fixture agentd_hub
        async with hub.connect("planner") as me: ...   # hub.connect_blocking is the blocking face
        with hub.installed():                          # whatever calls agentd_client.connect() in here comes to it too
            await program()
        hub.advance(3600)                              # ttl, holds, delays: without waiting
        hub.kill("builder")                            # a crash of that agent
        hub.restart(), hub.stop(), hub.start(), hub.crash()   # and of the daemon

Only this module and _memory.py know the daemon's code; `import agentd_client` loads neither.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from agentd.host.config import load_config
from agentd.hub.hub import Hub
from agentd.lanes.choice import Lanes
from agentd.lanes.closed import ClosedLane
from agentd.lanes.direct import DirectLane
from agentd.lanes.low import LowLane
from agentd.lanes.normal import NormalLane
from agentd.wire.errors import Unreachable
from agentd.wire.messages import Priority
from agentd_client import blocking, client
from agentd_client._joining import installed
from agentd_client._memory import Cable, Clock, MemoryLink, MemoryPlug, MemoryServer
from agentd_client._memory_journal import MemoryJournal

__all__ = ["MemoryHub", "memory"]

_NOT_BUILT = "this version does not have it"


def memory(*settings: str) -> MemoryHub:
    """A hub for `with` or `async with`. Settings are those of `agentd --set`: `memory("inbox.max_messages=2")`."""
    return MemoryHub(*settings)


class MemoryHub:
    """A daemon's inside, and what tests do to it. Use it from any thread and any event loop. What is done to it is done
    when the call comes back; a client of the asyncio face hears of it when its loop turns."""

    address = "a hub in memory"

    def __init__(self, *settings: str) -> None:
        self.config, _ = load_config(None, {}, list(settings))
        self.clock = Clock()
        self.turn = threading.Condition()  # the lock under which everything happens; notified when something has
        self.cables: set[Cable] = set()
        self.server: MemoryServer
        self._journal = MemoryJournal()
        self._runs = False
        self._closed = False
        self._timekeeper = threading.Thread(target=self._keep_time, name="agentd in memory", daemon=True)

    def __enter__(self) -> MemoryHub:
        self.start()
        self._timekeeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.turn:
            if self._closed:
                return
            self._runs = False
            self._closed = True
            for cable in list(self.cables):
                cable.kill(Unreachable("The hub in memory is closed", "Leave the client before the hub."))
            self.clock.run()
            self._end_run()
            self.turn.notify_all()
        self._timekeeper.join()

    async def __aenter__(self) -> MemoryHub:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    # Clients.

    def connect(self, name: str | None = None, **how: Any) -> client.Client:
        """As agentd_client.connect."""
        return client.connect(name, socket=self, **how)

    def connect_blocking(self, name: str | None = None, **how: Any) -> blocking.Client:
        """As agentd_client.blocking.connect."""
        return blocking.connect(name, socket=self, **how)

    @contextmanager
    def installed(self) -> Iterator[MemoryHub]:
        """Within, every connect() of this process comes to this hub, whatever socket it names."""
        installed.append(self)
        try:
            yield self
        finally:
            installed.remove(self)

    def link(self) -> MemoryLink:
        """For a client of the asyncio face."""
        return MemoryLink(self)

    def plug(self) -> MemoryPlug:
        """For a client of the blocking face."""
        return MemoryPlug(self)

    # Time, and what can go wrong.

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the hub: ttl, hold, after, rates, requests. What clients wait for by themselves,
        such as receive(timeout=), goes by the real clock."""
        with self.turn:
            for cable in list(self.cables):
                cable.flush()
            self.clock.advance(seconds)
            self.run()

    def kill(self, name: str) -> None:
        """As SIGKILL does to the processes that joined under that name: nothing more of them is heard, what they held
        goes back. Their clients raise Unreachable from now on."""
        with self.turn:
            cables = [cable for cable in self.cables if cable.session.joined and cable.session.name == name]
            if not cables:
                raise LookupError(f"Nobody is connected as {name}")
            for cable in cables:
                cable.kill(Unreachable(f"{name} was killed by its test"))
            self.run()

    def stop(self) -> None:
        """An orderly stop, without a wait for what is out. Clients try to come back until start()."""
        self._stop(orderly=True)

    def crash(self) -> None:
        """As SIGKILL of the daemon: what was not stored is lost."""
        self._stop(orderly=False)

    def restart(self) -> None:
        """An orderly stop and the next start: names, mail, holds and dead letters are there again."""
        self.stop()
        self.start()

    def start(self) -> None:
        """After stop() or crash()."""
        with self.turn:
            if self._closed or self._runs:
                raise RuntimeError("The hub is closed" if self._closed else "The hub runs")
            hub = Hub(self.config, first_id=(time.time_ns() << 32) // 10**9)
            lanes = Lanes(
                [
                    DirectLane(Priority.CRITICAL, hub),
                    DirectLane(Priority.HIGH, hub),
                    NormalLane(hub.router),
                    LowLane(hub.router, str, "in memory"),
                    ClosedLane(Priority.BATCH, _NOT_BUILT),
                ]
            )
            most = self.config.connections.max_connections
            server = self.server = MemoryServer(self.config, hub, lanes, self._journal, Path(self.address), most)
            server.clock = self.clock.now
            server.loop = cast(asyncio.AbstractEventLoop, self.clock)
            self._journal.restore(hub, server.now())
            self._runs = True
            server.flush(server.now())
            self.run()

    def _stop(self, orderly: bool) -> None:
        with self.turn:
            self.check_running()
            self._runs = False
            if not orderly:
                self.server.hub.receipts.journal.book = None  # nothing that happens from now on is written down
            for cable in self.cables:
                cable.session.take_no_more()  # what one leaves behind is for the next start, not for those that go next
            for cable in list(self.cables):
                if orderly:
                    cable.session.say_goodbye("agentd is stopping")
                cable.close()
            self.clock.run()
            if orderly:
                self.server.keep()
            self._end_run()
            self.turn.notify_all()

    def _end_run(self) -> None:
        self.clock.clear()
        self.server.hub.let_go()

    # For _memory.py, under the lock.

    def check_running(self) -> None:
        """Whether somebody answers."""
        if not self._runs:
            raise ConnectionRefusedError("it does not run")

    def run(self) -> None:
        """Do what is due, and tell who waits."""
        self.clock.run()
        self.turn.notify_all()

    def _keep_time(self) -> None:
        with self.turn:
            while not self._closed:
                self.clock.run()
                self.turn.wait(self.clock.next())
