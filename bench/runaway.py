"""Ten quiet agents, alone and beside one that sends as fast as it can: how much longer do their messages take?

Each quiet agent (agentd_client, asyncio) sends its neighbour 64 B every 50 ms; timed is from before the send until the
neighbour has the message. The runaway writes as fast as the daemon reads, on the bare wire, to an agent that takes and
acks all of it. Two daemons in each run:

over its rate   the rate is the default, the burst is small, so that the runaway is over its rate all the time
within burst    no rate at all: as a runaway is until its burst is used up, at the daemon's full speed

A third turn is the floor: beside as many processes as there are cores, which compute and know nothing of agentd. At
full speed a runaway, the daemon and who takes its messages keep two cores busy; what the kernel lets others wait for a
core is then in the figure, whoever keeps it busy.

They alternate in chunks of --seconds; compared are the p99s of all of a run's samples. The quiet ones must get all
their messages and no refusal, and the daemon must name the runaway alone. --count: chunks of each, a run.
"""

from __future__ import annotations

import argparse
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import own
import report
from end import End
from sampler import Sampler

from agentd.wire import messages

LIMITED, UNLIMITED = "over its rate", "within burst"
#: Of which other turn's p99 it may be how much. Who is held to its rate leaves the cores free.
BOUNDS: Final = {LIMITED: {"alone": 2.0}, UNLIMITED: {"alone": 2.0, "beside computing": 1.25}}
CONFIGS: Final = {LIMITED: "[rate]\nmessages_burst = 1000\n", UNLIMITED: "[rate]\nmessages_per_s = 0\n"}
_ENDS: Final = Path(__file__).with_name("runaway_ends.py")
#: What runs beside the quiet ones begins before them and ends after them.
_LEAD_S: Final = 0.3


class Quarter:
    """A daemon with its ends."""

    def __init__(self, daemon: own.Daemon, undo: ExitStack) -> None:
        self.daemon = daemon
        self._undo = undo
        self._quiet, self._sink, self._runaway = (self._end(role) for role in ("quiet", "sink", "runaway"))
        self._computing = [self._end("computing") for _ in range(os.cpu_count() or 1)]
        self._sent = self.limited = 0
        self._flooded_s = 0.0

    def _end(self, role: str) -> End:
        end = End(role, _ENDS, role, self.daemon.socket, environ=self.daemon.environ)
        self._undo.callback(end.close)
        end.hear()
        return end

    @property
    def speed(self) -> float:
        """Of the runaway, messages a second."""
        return self._sent / self._flooded_s

    def alone(self, seconds: float) -> list[int]:
        """Samples with nothing beside."""
        return self._samples(self._quiet.ask({"seconds": seconds}))

    def beside(self, seconds: float) -> list[int]:
        """Samples while the runaway runs."""
        samples, (ran,) = self._with([self._runaway], seconds)
        self._sent += ran["sent"]
        self.limited += ran["limited"]
        self._flooded_s += (ran["ended_ns"] - ran["started_ns"]) / 1e9
        return samples

    def busy(self, seconds: float) -> list[int]:
        """Samples while every core has something to compute."""
        return self._with(self._computing, seconds)[0]

    def _with(self, others: list[End], seconds: float) -> tuple[list[int], list[Any]]:
        for other in others:
            other.tell({"seconds": seconds + 2 * _LEAD_S})
        select.select([], [], [], _LEAD_S)
        told = self._quiet.ask({"seconds": seconds})
        ran = [other.hear() for other in others]
        if not all(one["started_ns"] < told["started_ns"] < one["ended_ns"] for one in ran):
            raise RuntimeError("the others did not run beside the quiet ones")
        return self._samples(told), ran

    @staticmethod
    def _samples(told: dict[str, Any]) -> list[int]:
        samples: list[int] = told["samples_ns"]
        if len(samples) != told["sent"]:
            raise RuntimeError(f"{told['sent']} were sent, {len(samples)} arrived")
        return samples

    def named(self) -> list[str]:
        """The agents that the daemon says are in trouble."""
        line = own.Line(self.daemon.socket)
        try:
            view = line.call(messages.Agents(1))
        finally:
            line.close()
        assert isinstance(view, messages.AgentsView)
        return [row.name for row in view.agents if row.trouble]


TURNS: Final = {"alone": Quarter.alone, "beside": Quarter.beside, "beside computing": Quarter.busy}


@contextmanager
def _quarter(place: Path, config: str) -> Iterator[Quarter]:
    (place / "agentd").mkdir(parents=True)
    (place / "agentd" / "config.toml").write_text(config)
    with ExitStack() as undo:
        daemon = own.start(place)
        undo.callback(daemon.close)
        yield Quarter(daemon, undo)


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("runaway", chosen)
    for phase, config in CONFIGS.items():
        p99s: dict[str, list[float]] = {what: [] for what in TURNS}
        every = {what: Sampler() for what in TURNS}
        speeds: list[float] = []
        for run in range(chosen.runs):
            with _quarter(home / f"{run}-{phase.replace(' ', '-')}", config) as quarter:
                quarter.alone(chosen.seconds / 2)  # warm-up
                here = {what: Sampler() for what in TURNS}
                for _ in range(chosen.count):
                    for what, turn in TURNS.items():
                        here[what].extend(turn(quarter, chosen.seconds))
                named = quarter.named()
                if phase is LIMITED and (named != ["runaway"] or not quarter.limited):
                    raise RuntimeError(f"the daemon names {named}, told the runaway {quarter.limited} times")
                speeds.append(quarter.speed)
            for what, sampler in here.items():
                p99s[what].append(sampler.summary().p99_us)
                every[what].extend(sampler.listed())
        for what, by_run in p99s.items():
            figure = f"p99 of a message, {what}"
            result.figure(figure, phase, "µs", by_run, verified=len(every[what]), summary=every[what].summary())
        result.figure("the runaway sends", phase, "msg/s", speeds)
        for than, bound in BOUNDS[phase].items():
            ratios = [beside / of for beside, of in zip(p99s["beside"], p99s[than], strict=True)]
            result.at_most(f"quiet agents' p99 beside a runaway {phase}, of {than}", bound, ratios, "×")
    return result


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(seconds=1.0, count=4, smoke_seconds=0.2, smoke_count=1), measure)
