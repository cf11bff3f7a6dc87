"""The bare floor: what two cores of this machine need between them at this moment, with nothing of ours in between.

Virtual cores change place on their host every few seconds, and everything measured between two of them moves along. So
the floor is read directly before and after every chunk of a measurement. A chunk whose two cache-line floors differ by
more than 20 % is dropped; the others are sorted by regime (near: both cores share a last-level cache; far: they do
not), and figures are compared within one regime only. The Unix-socket floor (two C processes, blocking) stands beside
the figures: it is what a message over one socket costs at the least, and nearly all of it is waking a sleeping core.

The floor is floor.c, compiled on first use into a temporary directory. Without a compiler or a second core there is no
floor: no chunk is dropped then, every regime is "unknown", and the report says why.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import machine
import msgspec
import process

#: One-way cache-line time below which both cores sit under one last-level cache; between them nothing was ever seen.
NEAR_NS = 150.0
#: Below this the two virtual cores are threads of one physical core.
ONE_CORE_NS = 48.0
TOLERANCE = 0.20


class Reading(msgspec.Struct, frozen=True):
    """Both floors, one way, in nanoseconds; 0 where they can't be measured."""

    cacheline_ns: float = 0.0
    socket_ns: float = 0.0

    def agrees(self, other: Reading) -> bool:
        """Whether the machine stayed as it was from one reading to the other."""
        low, high = sorted((self.cacheline_ns, other.cacheline_ns))
        return high <= low * (1 + TOLERANCE)

    @property
    def regime(self) -> str:
        """How far apart the two cores are now."""
        if not self.cacheline_ns:
            return "unknown"
        if self.cacheline_ns < ONE_CORE_NS:
            return "one core"
        return "near" if self.cacheline_ns < NEAR_NS else "far"


class Floor:
    """The process that measures the floor. `missing` says why there is none."""

    def __init__(self, home: Path) -> None:
        self.missing = ""
        self._child: subprocess.Popen[str] | None = None
        cores = machine.end_cores()
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if cores is None:
            self.missing = "the floor needs two cores"
        elif compiler is None:
            self.missing = "the floor needs a C compiler"
        else:
            program = home / "floor"
            source = Path(__file__).with_suffix(".c")
            built = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True)
            if built.returncode:
                self.missing = f"the floor did not compile: {built.stderr.strip().splitlines()[-1]}"
            else:
                self._child = process.spawn([str(program), *map(str, cores)])

    def read(self) -> Reading:
        """Both floors now: about 5 ms."""
        if self._child is None or self._child.stdin is None or self._child.stdout is None:
            return Reading()
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline().split()
        if len(answer) != 2:
            raise RuntimeError("The process that measures the floor is gone")
        return Reading(float(answer[0]), float(answer[1]))

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            if self._child.stdin is not None:
                self._child.stdin.close()  # the end of its input ends it, and lets it end its own child
            self._child.wait(5)
            process.stop(self._child)
            self._child = None
