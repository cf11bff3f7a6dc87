"""A pair of Python processes (awake.py, sleeper.py), as turns for chunks.alternate() or for single questions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

import core
import machine
from end import End
from sampler import Tally

_AWAKE: Final = Path(__file__).with_name("awake.py")
_FIRST_COUNT: Final = 500


class PythonEnds:
    """Both processes of one contender. RuntimeError when it does not come up; why is on stderr."""

    def __init__(self, name: str, home: Path, span_s: float = 0.0, program: Path = _AWAKE) -> None:
        cores = machine.end_cores()
        assert cores is not None
        home.mkdir(parents=True)
        self._span_s = span_s
        self._end = End(name, program, name, *cores, home)
        try:
            self.about = self._end.hear()  # what it says of itself
        except RuntimeError:
            self.close()
            raise

    def trips(self) -> Callable[[], Tally]:
        """Turns of round trips."""
        turn = self._turn("trips")
        return lambda: Tally(turn())

    def flow(self, smoke: bool) -> Callable[[], float]:
        """Turns of messages a second; NaN when a half lost its core to others in every attempt."""
        turn = self._turn("flow")

        def attempt() -> tuple[float, bool]:
            rate, lost = turn()
            return float(rate), bool(lost)

        return lambda: core.undisturbed(attempt, smoke)

    def _turn(self, what: str) -> Callable[[], Any]:
        """As many messages as take about a chunk's time: each turn learns from the one before."""
        count = _FIRST_COUNT

        def turn() -> Any:
            nonlocal count
            start = monotonic()
            answer = self.ask({what: count})
            faster = self._span_s / (monotonic() - start)
            count = max(_FIRST_COUNT, round(count * min(20.0, faster)))
            return answer

        return turn

    def ask(self, command: object) -> Any:
        """What it answers."""
        return self._end.ask(command)

    def close(self) -> None:
        """End them; some leave files behind where they are killed."""
        child = self._end.child
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        self._end.close()
