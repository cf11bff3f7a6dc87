"""JetStream's file store with `sync_interval: always`, from nats-py: publish() returns when the server has it on disk.

nats-server learnt that word in 2.10; an older one is left out, since what it keeps is synced every two minutes. One
publish() at a time, or 64 tasks of one process on one connection.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import contender
import low_ends
import process

_SUBJECT = "bench.kept"


def _configuration(home: Path) -> Path:
    path = home / "nats.conf"
    path.write_text(f'jetstream {{ store_dir: "{home}/store", sync_interval: always }}\n')
    return path


def missing(home: Path) -> str:
    program = contender.find_program("nats-server")
    if not program or contender.missing_module("nats"):
        return "not installed: make bench-low installs it"
    home.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run([program, "-t", "-c", _configuration(home)], capture_output=True, text=True)
    if not tried.returncode:
        return ""
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    said = (tried.stderr or tried.stdout).strip().rpartition(": ")[2]
    return f"{version} has no `sync_interval: always` ({said}): what it says is stored was not synced"


class Stream:
    """nats-server, and a connection on a loop of its own."""

    def __init__(self, home: Path) -> None:
        command = [contender.find_program("nats-server") or "nats-server", "-c", str(_configuration(home))]
        command += ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(home)]
        self._child = process.spawn(command, log=home / "nats-server.log")
        self._loop = asyncio.new_event_loop()
        self._number = 0
        try:
            address = self._address(home / f"nats-server_{self._child.pid}.ports", home / "nats-server.log")
            self._run(self._open(address))
        except BaseException:
            process.stop(self._child)
            raise

    def _address(self, ports: Path, log: Path) -> str:
        deadline = time.monotonic() + 10
        while True:
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-500:] or "nats-server does not start")
            time.sleep(0.02)
            try:
                return str(json.loads(ports.read_text())["nats"][0])
            except (OSError, ValueError):
                continue  # not there yet, or half of it

    def _run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(what)

    async def _open(self, address: str) -> None:
        self._connection = await importlib.import_module("nats").connect(address, connect_timeout=10)
        self._stream = self._connection.jetstream()
        await self._stream.add_stream(name="KEPT", subjects=[_SUBJECT], storage="file")

    async def _store(self) -> None:
        self._number += 1
        await self._stream.publish(_SUBJECT, low_ends.body(self._number))

    def each(self, span_ns: int) -> list[int]:
        took_ns: list[int] = self._run(low_ends.timed_awaited(self._store, span_ns))
        return took_ns

    def together(self, span_ns: int) -> low_ends.Together:
        both: low_ends.Together = self._run(low_ends.timed_together(self._store, span_ns, low_ends.TASKS))
        return both

    def close(self) -> None:
        try:
            count = self._run(self._stream.stream_info("KEPT")).state.messages
            self._run(self._connection.close())
        finally:
            process.stop(self._child)
        if count != self._number:
            raise SystemExit(f"{self._number} were stored, {count} are there")


def store(mode: str, home: Path) -> Stream:
    return Stream(home)
