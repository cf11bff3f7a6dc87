"""A new user's path, by README's own words: git clone, make build, and a message from one terminal to another.

The commands are read out of README and typed into the panes of a tmux of the test's own. `make new-user` runs it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from test_readme import HERE, README

pytestmark = [pytest.mark.new_user, pytest.mark.timeout(900)]

#: pip may have to fetch what the build needs.
PATIENCE_S = 300.0


def steps() -> list[str]:
    """The commands of README's first block under "One minute", in its order."""
    section = README.partition("## One minute")[2]
    (block,) = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)[:1]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


class Terminals:
    """Panes of one tmux, which nobody else uses."""

    def __init__(self, directory: Path) -> None:
        self._runs = 0
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTD_", "TMUX"))}
        environ |= {"AGENTD_RUNTIME_DIR": str(directory / "run"), "AGENTD_STATE_DIR": str(directory / "state")}
        self._environ = environ | {"PS1": "$ ", "TERM": "screen", "SHELL": "/bin/bash"}
        shell = "bash --norc --noprofile"
        self._do("new-session", "-d", "-x", "160", "-y", "40", "-s", "user", "-c", str(directory), shell)
        for _ in range(2):
            self._do("new-window", "-t", "user", "-c", str(directory), shell)

    def _do(self, *args: str) -> str:
        done = subprocess.run([*self._tmux, *args], env=self._environ, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done
        return done.stdout

    def type(self, terminal: int, line: str) -> None:
        """A line and Enter."""
        self._do("send-keys", "-t", f"user:{terminal}", "-l", line)
        self._do("send-keys", "-t", f"user:{terminal}", "Enter")

    def interrupt(self, terminal: int) -> None:
        """Ctrl-C."""
        self._do("send-keys", "-t", f"user:{terminal}", "C-c")

    def screen(self, terminal: int) -> str:
        """What stands there now."""
        return self._do("capture-pane", "-p", "-J", "-t", f"user:{terminal}")

    def until(self, terminal: int, pattern: str) -> None:
        """Wait until a line of the screen is this."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.screen(terminal), re.M):
            assert time.monotonic() < deadline, self.screen(terminal)
            time.sleep(0.1)

    def run(self, terminal: int, line: str) -> None:
        """Type it and wait for its end, which must be a good one."""
        self._runs += 1
        self.type(terminal, f"{line}; echo end''ed {self._runs}: $?")
        self.until(terminal, rf"^ended {self._runs}: \d+$")
        assert f"ended {self._runs}: 0" in self.screen(terminal), self.screen(terminal)

    def close(self) -> None:
        """End it with all that runs in it."""
        subprocess.run([*self._tmux, "kill-server"], env=self._environ, capture_output=True, timeout=30)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, and all that ran in it with it."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: apt-get install tmux, or make new-user")
    yield tmp_path
    mine = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or ())
    ]
    _, left = psutil.wait_procs(mine, timeout=30)  # the terminals have just been closed: it may still be ending
    for process in left:
        process.kill()
    shutil.rmtree(tmp_path)
    assert not left, f"left behind: {[process.info for process in left]}"


def test_from_git_clone_to_a_message_between_two_terminals(home: Path) -> None:
    prepare, daemon, receive, send = steps()
    assert (daemon, receive.split()[:2], send.split()[:2]) == ("agentd", ["agentctl", "recv"], ["agentctl", "send"])
    terminals = Terminals(home)
    try:
        terminals.run(0, f"git clone --quiet {shlex.quote(str(HERE))} agentd")
        for terminal in range(3):
            terminals.run(terminal, "cd agentd")
            terminals.run(terminal, prepare)
        terminals.type(0, daemon)
        terminals.until(0, r"lane normal: the Unix socket")
        terminals.type(1, receive)
        name = shlex.split(receive)[-1]
        agents = f"until agentctl agents | grep -q '^{name} *live'; do sleep 0.1; done"  # a user takes longer
        terminals.run(2, agents)
        terminals.type(2, send)
        terminals.until(2, rf"^delivered|^accepted  [a-z2-7]{{13}}  to {name}")
        terminals.until(1, rf"^[a-z2-7]{{13}}  from agent {shlex.split(send)[-1]}, uid \d+")
        body = shlex.split(send)[3]
        terminals.until(1, rf"^{body}$")
        terminals.run(2, "agentctl")  # alone it shows the status
        terminals.interrupt(0)
        terminals.until(0, r"agentd INFO: stopped")
        assert not (home / "run" / "agentd.sock").exists()
    finally:
        terminals.close()
