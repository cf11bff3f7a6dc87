"""A daemon of a test's own, and waiting by condition."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.host import counters

PATIENCE_S = 30.0  # a watchdog for what hangs, not a bound on how long something takes


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Come back when `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S:.0f} s in vain: {what or condition}")
        time.sleep(0.005)


def open_files(pid: int) -> list[str]:
    """What its descriptors are of, but for the journal's: its directory, its segments, one in the making."""
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry.path))
    return [name for name in found if "/journal" not in name]


#: Segments that are quickly made. Mail of more than a third of that needs larger ones.
SMALL_JOURNAL = {"segment_bytes": 4 << 20}

#: As many as it opens, once there is something to keep: segments.
JOURNAL_FILES = 2


class Daemon:
    """One agentd in `directory`. The fixture `daemon` starts and closes one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.state_dir = directory / "state"
        self.socket = self.runtime_dir / "agentd.sock"
        self.log = directory / "agentd.log"
        self.config_path = directory / "config.toml"
        self.process: subprocess.Popen[bytes] | None = None
        #: What starts it; a test may wrap it, to set limits for instance.
        self.command = [sys.executable, "-P", "-m", "agentd.daemon"]
        #: The environment of whoever talks to this daemon.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")} | {
            "AGENTD_RUNTIME_DIR": str(self.runtime_dir),
            "AGENTD_STATE_DIR": str(self.state_dir),
            "AGENTD_CONFIG": str(self.config_path),
        }

    @property
    def pid(self) -> int:
        """The running daemon's."""
        assert self.process is not None
        return self.process.pid

    def descriptors(self) -> int:
        """How many it has open, but for the files of the journal: those come as they are needed, at any time."""
        return len(open_files(self.pid))

    @property
    def stderr(self) -> str:
        """All that its processes have logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start it; comes back when it answers."""
        assert self.process is None
        if not self.config_path.exists():  # a named file must be there
            self._write_config({})
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._ready, "for the daemon's socket")

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"agentd ended at once with exit {self.process.returncode}:\n{self.stderr}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PATIENCE_S)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b'{"verb":"hello","version":1,"client":"tests"}\n')
                return b"welcome" in probe.recv(65536)
            except OSError:
                return False

    def stop(self) -> int:
        """SIGTERM; its exit status once it is gone."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the crash that every promise must survive. The socket file stays behind."""
        self._end(signal.SIGKILL)

    def _end(self, signum: int) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"agentd did not end on signal {signum}:\n{self.stderr}")
        finally:
            self.process = None

    def restart(self) -> None:
        """An orderly stop, if it runs, and a new start."""
        if self.process is not None:
            status = self.stop()
            assert status == 0, f"exit {status}:\n{self.stderr}"
        self.start()

    def config(self, **sections: dict[str, Any]) -> None:
        """Write the configuration and restart: config(inbox={"max_messages": 2})."""
        self._write_config(sections)
        self.restart()

    def _write_config(self, sections: dict[str, dict[str, Any]]) -> None:
        lines = []
        for section, settings in ({"journal": SMALL_JOURNAL} | sections).items():
            lines.append(f"[{section}]")
            for name, value in settings.items():
                lines.append(f"{name} = {repr(value) if not isinstance(value, bool) else str(value).lower()}")
        self.config_path.write_text("\n".join(lines) + "\n")

    def close(self) -> None:
        """End it as a service manager would, and look whether anything went wrong inside."""
        if self.process is not None:
            status = self.stop()
            assert status == 0, f"agentd ended with exit {status}:\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        counters.remove_stale(counters.name_of(self.runtime_dir, os.getuid()), os.getuid())  # after a kill
