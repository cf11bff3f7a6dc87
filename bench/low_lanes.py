"""A part of low.py: how long a message of the lane critical is under way, alone and beside a flood of the lane low.

lanes    one message a ms from process to process; the flood keeps the daemon and its disk as busy as it can. They share
         the processor, so what moves is the wait for a core: nothing of it goes through the daemon
"""

from __future__ import annotations

import select
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import own
import report
from end import End
from sampler import Sampler

PROGRAM: Final = Path(__file__).with_name("low_lanes_ends.py")
CONFIG: Final = "[rate]\nmessages_per_s = 0\n[inbox]\nmax_messages = 10000000\nmax_bytes = 4294967296\n"
_TURNS: Final = 4
#: The flood begins before, and ends after.
_LEAD_S: Final = 0.2


class Lanes:
    """The part."""

    def __init__(self, result: report.Report, home: Path, seconds: float) -> None:
        self._result = result
        self._home = home
        self._seconds = seconds
        self._p99s: dict[str, list[float]] = {"alone": [], "beside a flood of low": []}
        self._every = {what: Sampler() for what in self._p99s}
        self._missing: list[float] = []
        self._speeds: list[float] = []

    def measure(self, run: int) -> None:
        """Alone and beside, in turns."""
        place = self._home / f"lanes-{run}"
        (place / "agentd").mkdir(parents=True)
        (place / "agentd" / "config.toml").write_text(CONFIG)
        here = {what: Sampler() for what in self._p99s}
        missing = 0
        with ExitStack() as undo:
            daemon = own.start(place)
            undo.callback(daemon.close)
            taker = _end("taker", daemon, undo)
            sender, flood = _end("sender", daemon, undo), _end("flood", daemon, undo)
            taker.hear()  # of the message that made the way
            for _ in range(_TURNS):
                for what, sampler in here.items():
                    is_beside = what != "alone"
                    if is_beside:
                        flood.tell({"seconds": self._seconds / _TURNS + 2 * _LEAD_S})
                        select.select([], [], [], _LEAD_S)
                    sender.tell({"seconds": self._seconds / _TURNS})
                    sent, samples = sender.hear(), taker.hear()["samples_ns"]
                    missing += sent["sent"] - len(samples)
                    sampler.extend(samples)
                    if is_beside:
                        ran = flood.hear()
                        if not ran["started_ns"] < sent["started_ns"] < ran["ended_ns"]:
                            raise RuntimeError("the flood did not run beside the others")
                        self._speeds.append(
                            (ran["sent"] - ran["refused"]) / (ran["ended_ns"] - ran["started_ns"]) * 1e9
                        )
        self._missing.append(missing)
        for what, sampler in here.items():
            self._p99s[what].append(sampler.summary().p99_us)
            self._every[what].extend(sampler.listed())

    def figures(self) -> None:
        """Into the report."""
        for what, p99s in self._p99s.items():
            every = self._every[what]
            self._result.figure(
                "p99 of a critical message", what, "µs", p99s, verified=len(every), summary=every.summary()
            )
        self._result.figure("the flood of low", "kept", "msg/s", self._speeds)

    def judge(self) -> None:
        """What a flood may not do."""
        self._result.at_most("critical messages lost or refused beside a flood of low", 0, self._missing)


def _end(role: str, daemon: own.Daemon, undo: ExitStack) -> End:
    end = End(role, PROGRAM, role, daemon.socket, environ=daemon.environ)
    undo.callback(end.close)
    end.hear()
    return end
