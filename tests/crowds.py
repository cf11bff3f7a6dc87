"""Starting, killing and reaping the processes of crowd.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CROWD = str(Path(__file__).with_name("crowd.py"))


class Crowd:
    """A process with `count` joined connections."""

    def __init__(self, socket: Path, count: int, prefix: str, *lines: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", _CROWD, str(socket), str(count), prefix, *lines],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.child: int | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> Crowd:
        """Wait until all its connections are joined and its lines are answered."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.strip().isdigit():
            self.child = int(line)
            line = self.process.stdout.readline()
        assert line == "ready\n", f"a process of the crowd ended: {line!r}"
        return self

    def kill(self) -> None:
        """SIGKILL. Its child, where it has one, lives on."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def close(self) -> None:
        """End it and its child."""
        self.kill()
        if self.child is not None:
            os.kill(self.child, 9)
            self.child = None
