"""agentctl as a user's shell runs it: a process, its output, its exit status."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import schemas
from daemons import PATIENCE_S, wait_until

AGENTCTL = [sys.executable, "-m", "agentd.cli"]


class Result(NamedTuple):
    """How one call ended."""

    status: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        """stdout as text."""
        return self.stdout.decode()

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The error that --json printed; nothing else may be on stdout."""
        assert set(self.json) == {"error"}, self.out
        return self.json["error"]


class Running:
    """agentctl in the background."""

    def __init__(self, args: tuple[str, ...], env: Mapping[str, str], directory: Path, number: int) -> None:
        self.out_path = directory / f"agentctl-{number}.out"
        self.err_path = directory / f"agentctl-{number}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(
                [*AGENTCTL, *args], env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self.err_path.read_text()

    def until(self, text: str) -> None:
        """Wait until it has printed `text`."""
        wait_until(lambda: text in self.out or self.process.poll() is not None, f"for {text!r}")
        assert text in self.out, self.out + self.err

    def end(self, signum: int = signal.SIGINT) -> Result:
        """Send a signal and wait for its end."""
        self.process.send_signal(signum)
        return self.result()

    def result(self) -> Result:
        """Wait for its end."""
        status = self.process.wait(PATIENCE_S)
        return Result(status, self.out_path.read_bytes(), self.err)


class Agentctl:
    """Calls of agentctl. `agentctl("send", "x", "hi", name="planner")`."""

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self.env = env
        self.directory = directory
        self._running: list[Running] = []

    def _env(self, name: str | None, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**self.env, **({"AGENTD_AGENT": name} if name else {}), **(env or {})}

    def __call__(
        self,
        *args: str | bytes,
        name: str | None = None,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> Result:
        """Run to its end. No traceback, ever; `status` is the exit status that is right."""
        done = subprocess.run(
            [*AGENTCTL, *args],
            env=self._env(name, env),
            cwd=self.directory,
            capture_output=True,
            timeout=PATIENCE_S,
            input=input or b"",  # a pipe at its end: no terminal
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in result.err, result.err
        if schemas.wants_json(args):
            schemas.check(args, result.stdout)
        if status is not None:
            assert result.status == status, result
        return result

    def start(self, *args: str, name: str | None = None) -> Running:
        """Run in the background; ended with the test."""
        running = Running(args, self._env(name, None), self.directory, len(self._running))
        self._running.append(running)
        return running

    def on_terminal(self, *args: str, name: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        """Run with a terminal as stdin and stdout."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*AGENTCTL, *args], env=self._env(name, env), cwd=self.directory, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        out = b""
        try:
            while piece := os.read(ours, 65536):
                out += piece
        except OSError:  # EIO: the other end is closed
            pass
        os.close(ours)
        return Result(process.wait(PATIENCE_S), out.replace(b"\r\n", b"\n"), "")

    def close(self) -> None:
        """End what still runs."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
            assert "Traceback" not in running.err, running.err
