"""Chunks: contenders take turns within one run, the floor is read between every two turns, the machine's moods cancel.

A run starts fresh servers and fresh ends for every contender, lets each warm up for a few chunks that nobody counts,
and then alternates: one chunk of at most 50 ms each, in turn. What is not having its turn sleeps. Three runs; a figure
is the median of the runs with its range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import contender
import machine
from end import End
from floor import Floor, Reading
from report import Report
from sampler import Sampler

CHUNK_S: Final = 0.05
WARM_UP_CHUNKS: Final = 3
#: A regime that fewer chunks of a contender were measured in did not occur.
MIN_KEPT: Final = 3
_ENDS: Final = Path(__file__).with_name("ends.py")

R = TypeVar("R")


class Chunk(Generic[R]):
    """What one turn gave, between two readings of the floor."""

    def __init__(self, result: R, before: Reading, after: Reading) -> None:
        self.result = result
        self.before = before
        self.after = after

    @property
    def kept(self) -> bool:
        """Whether the machine stood still meanwhile."""
        return self.before.agrees(self.after)


class Floors(Protocol):
    """What reads the floor: floor.Floor, or core.Core."""

    def read(self) -> Reading: ...


def alternate(turns: Mapping[str, Callable[[], R]], count: int, floor: Floors) -> dict[str, list[Chunk[R]]]:
    """Chunks of each in turn after its warm-up, until `count` of each are worth keeping or twice as many were tried."""
    for turn in turns.values():
        for _ in range(WARM_UP_CHUNKS):
            turn()
    done: dict[str, list[Chunk[R]]] = {label: [] for label in turns}
    before = floor.read()
    for _ in range(2 * count):
        for label, turn in turns.items():
            result = turn()
            after = floor.read()
            done[label].append(Chunk(result, before, after))
            before = after
        if all(sum(chunk.kept for chunk in chunks) >= count for chunks in done.values()):
            break
    return done


def _end(name: str, role: str, size_bytes: int, core: int, environ: Mapping[str, str]) -> End:
    """One that is ready."""
    end = End(f"{name} {role}", _ENDS, name, role, size_bytes, core, environ=environ)
    end.hear()
    return end


class Pair:
    """Two ends on different cores. The passive one is there before the active one starts."""

    def __init__(
        self, name: str, roles: tuple[str, str], size_bytes: int, environ: Mapping[str, str], *, pinned: bool = True
    ) -> None:
        active_role, passive_role = roles
        first, last = (pinned and machine.end_cores()) or (-1, -1)
        with ExitStack() as undo:
            self.passive = _end(name, passive_role, size_bytes, last, environ)
            undo.callback(self.passive.close)
            self.active = _end(name, active_role, size_bytes, first, environ)
            undo.pop_all()

    def close(self) -> None:
        self.active.close()
        self.passive.close()


class RoundTrips:
    """Turns of a ping-pong: the samples of one chunk."""

    def __init__(self, pair: Pair, chunk_s: float = CHUNK_S) -> None:
        self._pair = pair
        self._chunk_s = chunk_s

    def __call__(self) -> list[int]:
        self._pair.active.tell({"seconds": self._chunk_s})
        samples: list[int] = self._pair.active.hear()["samples_ns"]
        return samples


class Flow:
    """Turns of one sender and one receiver: messages a second of one chunk.

    From before the first send to the last of: the receiver has counted all, the sender has all confirmations. The first
    chunk has `count` messages; while warming up, the count is brought to what takes a chunk's time.
    """

    def __init__(self, pair: Pair, count: int, *, received: bool = True, fixed: bool = False) -> None:
        self._pair = pair
        self._count = count
        self._received = received
        self._to_fit = 0 if fixed else WARM_UP_CHUNKS
        self.verified = 0

    def __call__(self) -> float:
        self._pair.active.tell({"count": self._count})
        sent = self._pair.active.hear()
        ended_ns = sent["ended_ns"]
        if self._received:
            got = self._pair.passive.hear()
            if got["received"] != sent["sent"]:
                raise RuntimeError(f"{sent['sent']} were sent, {got['received']} arrived")
            ended_ns = max(ended_ns, got["ended_ns"])
        if sent["confirmed"] not in (0, sent["sent"]):
            raise RuntimeError(f"{sent['sent']} were sent, {sent['confirmed']} confirmed")
        self.verified += sent["sent"]
        rate: float = sent["sent"] / ((ended_ns - sent["started_ns"]) / 1e9)
        if self._to_fit:
            self._to_fit -= 1
            self._count = max(1, round(rate * CHUNK_S))
        return rate


class Servers:
    """The servers of one run: one for each system, started when first needed."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running: dict[str, contender.Server] = {}

    def of(self, name: str) -> contender.Server:
        """The server of contender `name`; `nats/asyncio` and `nats/uvloop` share one."""
        module = contender.MODULES[name]
        if module not in self._running:
            home = self._home / module
            home.mkdir(parents=True)
            self._running[module] = contender.adapter(name).start(home)
        return self._running[module]

    def close(self) -> None:
        while self._running:
            self._running.popitem()[1].close()


class Contest:
    """Who competes, how often, and what became of the chunks: what all alternating benchmarks share."""

    def __init__(self, result: Report, chosen: argparse.Namespace, home: Path, wanted: Sequence[str]) -> None:
        self._result = result
        self._chosen = chosen
        self._home = home
        self._dropped = self._total = 0
        self._sockets_us: list[float] = []
        self.names: list[str] = []
        self.turns = max(MIN_KEPT, round(chosen.seconds / CHUNK_S))
        asked = chosen.only.split(",") if chosen.only else wanted
        for name in wanted:
            if name not in asked:
                result.leave_out(name, "not asked for")
            elif chosen.smoke and contender.is_rival(name):
                result.leave_out(name, "a smoke run has no rivals")
            elif reason := contender.adapter(name).missing():
                result.leave_out(name, reason)
            else:
                self.names.append(name)
        self.floor = Floor(home)
        if self.floor.missing:
            result.leave_out("cache-line floor and regimes", self.floor.missing)

    @contextmanager
    def stage(self, label: str, roles: tuple[str, str], size_bytes: int) -> Iterator[tuple[Servers, dict[str, Pair]]]:
        """Fresh servers, and fresh ends in these roles, of everybody who competes."""
        with ExitStack() as undo:
            servers = Servers(self._home / label)
            undo.callback(servers.close)
            pairs: dict[str, Pair] = {}
            for name in self.names:
                environ = servers.of(name).environ
                pairs[name] = Pair(name, roles, size_bytes, environ, pinned=not self._chosen.no_pin)
                undo.callback(pairs[name].close)
            yield servers, pairs

    def play(self, turns: Mapping[str, Callable[[], R]]) -> dict[tuple[str, str], list[R]]:
        """All turns; the kept chunks by contender and regime. A smoke run judges nothing and keeps all."""
        smoke = self._chosen.smoke
        kept: dict[tuple[str, str], list[R]] = {}
        for name, done in alternate(turns, self.turns, self.floor).items():
            self._total += len(done)
            self._sockets_us += [chunk.before.socket_ns / 1000 for chunk in done if chunk.before.socket_ns]
            for chunk in done:
                if smoke or chunk.kept:
                    kept.setdefault((name, "any" if smoke else chunk.before.regime), []).append(chunk.result)
                else:
                    self._dropped += 1
        return {key: results for key, results in kept.items() if len(results) >= MIN_KEPT}

    def close(self) -> None:
        """End the floor, and report it."""
        self.floor.close()
        self._result.notes.append(
            f"{self._dropped} of {self._total} chunks dropped: the cache-line floor moved by more than 20 % meanwhile"
        )
        if self._sockets_us:
            everything = Sampler(round(value * 1000) for value in self._sockets_us).summary()
            self._result.figure("floor: Unix socket, one way, p50", "C, blocking", "µs", [everything.p50_us])


def why_missing(result: Report, *names: str) -> str:
    """Why a comparison of these could not be made."""
    return next((left.reason for left in result.left_out if left.what in names), "")
