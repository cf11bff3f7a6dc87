"""Ten quiet agents, alone and beside one that sends as fast as it can: how much longer do their messages take?

Each quiet agent (agentd_client, asyncio) sends its neighbour 64 B every 50 ms; timed is from before the send until the
neighbour has the message. The runaway writes as fast as the daemon reads, on the bare wire, to an agent that takes and
acks all of it. Two daemons in each run:

over its rate   the rate is the default, the burst is small, so that the runaway is over its rate all the time
within burst    no rate at all: as a runaway is until its burst is used up, at the daemon's full speed

Alone and beside alternate in chunks of --seconds; compared are the p99s of all of a run's samples. The quiet ones must
get all their messages and no refusal, and the daemon must name the runaway alone. --count: chunks of each, a run.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import own
import process
import report
from sampler import Sampler

from agentd.wire import messages

BOUND: Final = 2.0
LIMITED, UNLIMITED = "over its rate", "within burst"
CONFIGS: Final = {LIMITED: "[rate]\nmessages_burst = 1000\n", UNLIMITED: "[rate]\nmessages_per_s = 0\n"}
_ENDS: Final = Path(__file__).with_name("runaway_ends.py")
_ANSWER_S: Final = 60.0
#: The runaway begins before the quiet ones and ends after them.
_LEAD_S: Final = 0.3


class End:
    """One end, in a process of its own (runaway_ends.py)."""

    def __init__(self, role: str, daemon: own.Daemon) -> None:
        self._role = role
        self._child = process.spawn([sys.executable, str(_ENDS), role, daemon.socket], daemon.environ)
        self.hear()

    def tell(self, **command: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next answer. RuntimeError when it failed instead: the reason is on stderr."""
        out = self._child.stdout
        assert out is not None
        line = out.readline() if select.select([out], [], [], _ANSWER_S)[0] else ""
        if not line:
            raise RuntimeError(f"{self._role}: no answer; this end failed, or a message is missing")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        process.stop(self._child)


class Quarter:
    """A daemon with its three ends."""

    def __init__(self, daemon: own.Daemon, undo: ExitStack) -> None:
        self.daemon = daemon
        self.quiet, self.sink, self.runaway = (self._end(role, undo) for role in ("quiet", "sink", "runaway"))
        self.sent = self.limited = 0
        self.flooded_s = 0.0

    def _end(self, role: str, undo: ExitStack) -> End:
        end = End(role, self.daemon)
        undo.callback(end.close)
        return end

    def alone(self, seconds: float) -> list[int]:
        """Samples without the runaway."""
        self.quiet.tell(seconds=seconds)
        samples: list[int] = self._checked(self.quiet.hear())["samples_ns"]
        return samples

    def beside(self, seconds: float) -> list[int]:
        """Samples while it runs."""
        self.runaway.tell(seconds=seconds + 2 * _LEAD_S)
        select.select([], [], [], _LEAD_S)
        self.quiet.tell(seconds=seconds)
        told = self._checked(self.quiet.hear())
        ran = self.runaway.hear()
        if not ran["started_ns"] < told["started_ns"] < ran["ended_ns"]:
            raise RuntimeError("the runaway did not run beside the others")
        self.sent += ran["sent"]
        self.limited = ran["limited"]
        self.flooded_s += (ran["ended_ns"] - ran["started_ns"]) / 1e9
        samples: list[int] = told["samples_ns"]
        return samples

    @staticmethod
    def _checked(told: dict[str, Any]) -> dict[str, Any]:
        if len(told["samples_ns"]) != told["sent"]:
            raise RuntimeError(f"{told['sent']} were sent, {len(told['samples_ns'])} arrived")
        return told

    def named(self) -> list[str]:
        """The agents that the daemon says are in trouble."""
        line = own.Line(self.daemon.socket)
        try:
            view = line.call(messages.Agents(1))
        finally:
            line.close()
        assert isinstance(view, messages.AgentsView)
        return [row.name for row in view.agents if row.trouble]


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
        p99s: dict[str, list[float]] = {"alone": [], "beside": []}
        every: dict[str, Sampler] = {"alone": Sampler(), "beside": Sampler()}
        speeds: list[float] = []
        for run in range(chosen.runs):
            with _quarter(home / f"{run}-{phase.replace(' ', '-')}", config) as quarter:
                here = {"alone": Sampler(), "beside": Sampler()}
                quarter.alone(chosen.seconds / 2)  # warm-up
                for _ in range(chosen.count):
                    here["alone"].extend(quarter.alone(chosen.seconds))
                    here["beside"].extend(quarter.beside(chosen.seconds))
                named = quarter.named()
                if phase is LIMITED and (named != ["runaway"] or not quarter.limited):
                    raise RuntimeError(f"the daemon names {named}, told the runaway {quarter.limited} times")
                speeds.append(quarter.sent / quarter.flooded_s)
            for what, sampler in here.items():
                p99s[what].append(sampler.summary().p99_us)
                every[what].extend(sampler.listed())
        for what, by_run in p99s.items():
            figure = f"p99 of a message, {what}"
            result.figure(figure, phase, "µs", by_run, verified=len(every[what]), summary=every[what].summary())
        result.figure("the runaway sends", phase, "msg/s", speeds)
        ratios = [beside / alone for beside, alone in zip(p99s["beside"], p99s["alone"], strict=True)]
        result.at_most(f"quiet agents' p99 beside a runaway {phase}, of alone", BOUND, ratios, "×")
    return result


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(seconds=1.0, count=4, smoke_seconds=0.2, smoke_count=1), measure)
