"""The C core of the direct lanes, measured by critical.c: this builds that program over native/ and talks to it.

A program is compiled on first use into a temporary directory, as the package builds the core: -O2, no flags of this
machine. It reads the bare cache line with the same two processes, clock and loop as everything else, so it is the
floor of critical.py and high.py too (`read`, as floor.Floor has it).
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import machine
import process
from floor import Reading
from sampler import Tally

from agentd.host.config import DirectLimits, HighSettings

Answer = dict[str, list[tuple[int, int]] | float]

FLOOR_MS: Final = 5
ATTEMPTS: Final = 4
_HERE: Final = Path(__file__).parent
_NATIVE: Final = _HERE.parent / "native"
_PARTS: Final = ("mailbox", "pair", "ring")
#: Rings of the size that agentd gives them.
RINGS: Final = (f"-DCRITICAL_BYTES={DirectLimits().critical_bytes}", f"-DHIGH_BYTES={HighSettings().ring_bytes}")


def build(program: Path, *flags: str, parts: Sequence[str] = _PARTS) -> str:
    """bench/ has a source of that name. Why it could not be compiled with those parts of native/; empty when it was."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "it needs a C compiler"
    sources = [str(_NATIVE / f"{part}.c") for part in parts]
    files = ["-I", str(_NATIVE), str(_HERE / f"{program.name}.c"), *sources, "-o", str(program)]
    command = [compiler, "-O2", "-std=gnu11", "-pthread", *flags, *files]
    built = subprocess.run(command, capture_output=True, text=True)
    return built.stderr.strip() if built.returncode else ""


def undisturbed(attempt: Callable[[], tuple[float, bool]], smoke: bool) -> float:
    """What the first attempt gave that nobody else disturbed; NaN when there was none. A smoke run takes any."""
    for _ in range(ATTEMPTS):
        value, disturbed = attempt()
        if smoke or not disturbed:
            return value
    return math.nan


class Core:
    """The two C processes, which have pairs of that lane. `missing` says why there are none."""

    def __init__(self, home: Path, lane: str = "critical") -> None:
        self._program = home / "critical"
        self._lane = lane
        self._cores = machine.end_cores()
        self.missing = ""
        if self._cores is None:
            self.missing = "two ends need two cores"
        elif not self._program.exists():
            self.missing = build(self._program, *RINGS)
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Fresh processes: where their memory lies moves the figures by a tenth, so each run has its own."""
        self.close()
        assert self._cores is not None and not self.missing
        self._child = process.spawn([str(self._program), *map(str, self._cores), self._lane])

    def read(self) -> Reading:
        """The floor now."""
        return Reading(self.trips("floor", FLOOR_MS)().middle() / 2 if self._child else 0.0)

    def trips(self, what: str, span_ms: int) -> Callable[[], Tally]:
        """Turns of round trips."""

        def turn() -> Tally:
            counted = self._ask(what, span_ms)["trips"]
            assert isinstance(counted, list)
            return Tally(counted)

        return turn

    def value(self, what: str, span_ms: int, smoke: bool) -> Callable[[], float]:
        """Turns of a rate, or of what one costs; NaN when an end lost its core to others in every attempt."""

        def attempt() -> tuple[float, bool]:
            value, lost = self._ask(what, span_ms).values()
            assert isinstance(value, float | int)
            return float(value), bool(lost)

        def turn() -> float:
            return undisturbed(attempt, smoke)

        return turn

    def _ask(self, what: str, span_ms: int) -> Answer:
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(f"{what} {span_ms}\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"critical.c failed at {what} with status {child.wait()}")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        """End both processes."""
        if self._child is not None:
            process.stop(self._child)
            self._child = None
