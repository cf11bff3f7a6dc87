"""A pair of Python processes (awake.py, sleeper.py), as turns for chunks.alternate() or for single questions."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

import core
import machine
import process
from sampler import Tally

ANSWER_S: Final = 30.0
_AWAKE: Final = Path(__file__).with_name("awake.py")
_FIRST_COUNT: Final = 500


class PythonEnds:
    """Both processes of one contender. RuntimeError when it does not come up; why is on stderr."""

    def __init__(self, name: str, home: Path, span_s: float = 0.0, program: Path = _AWAKE) -> None:
        cores = machine.end_cores()
        assert cores is not None
        home.mkdir(parents=True)
        self._name = name
        self._span_s = span_s
        command = [sys.executable, str(program), name, *map(str, cores), str(home)]
        self._child: subprocess.Popen[str] = process.spawn(command)
        try:
            self.about = self._hear()  # what it says of itself
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
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        out = self._child.stdout
        assert out is not None
        if not select.select([out], [], [], ANSWER_S)[0]:
            raise RuntimeError(f"{self._name}: no answer within {ANSWER_S:g} s")
        line = out.readline()
        if not line:
            raise RuntimeError(f"{self._name}: its process ended with status {self._child.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End them; some leave files behind where they are killed."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        process.stop(self._child)
