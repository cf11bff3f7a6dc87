"""A daemon that dies of SIGKILL at a step of its journal, the Nth time it comes there: at a system call on a file of
the journal, by a library to preload, or at a call of a function that makes no system call, by stepping_daemon.py.

A step at a system call is named for it and for what it is about: `fdatasync checkpoint.tmp`. Death comes before it; at
`half of pwrite64 segment` when half of the bytes are written.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from daemons import Daemon

_SOURCE = Path(__file__).with_name("c") / "steps.c"


def build(directory: Path) -> Path:
    """The library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = directory / "steps.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([compiler, *flags, str(_SOURCE), "-ldl"], check=True)
    return library


class Stepping(Daemon):
    """One that dies where it is told to."""

    def __init__(self, directory: Path, library: Path) -> None:
        super().__init__(directory)
        self._library = library
        self._whole = (list(self.command), dict(self.env))

    def die_at(self, step: str, hit: int = 1, log: Path | None = None) -> None:
        """From the next start on. No step: it lives, and tells its steps."""
        self.command = [*self._whole[0][:2], str(Path(__file__).with_name("stepping_daemon.py"))]
        self._preload(STEPS_LAST=step, STEPS_HIT=str(hit), STEPS_LOG=str(log or ""))

    def fail_with(self, error: int, flag: Path) -> None:
        """From the next start on, whatever takes more of the disk fails while that file is there."""
        self._preload(STEPS_ERROR=str(error), STEPS_FLAG=str(flag))

    def _preload(self, **steps: str) -> None:
        self.env = self._whole[1] | {"LD_PRELOAD": str(self._library)} | steps

    def live(self) -> None:
        """From the next start on."""
        self.command, self.env = self._whole

    @property
    def is_dead(self) -> bool:
        """Whether it came there."""
        return self.process is not None and self.process.poll() is not None

    def _ready(self) -> bool:
        return (self.command is not self._whole[0] and self.is_dead) or super()._ready()
