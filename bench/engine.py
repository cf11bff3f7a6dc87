"""What the io_uring engine costs: in C (engine.c over native/), from Python, and in an event loop beside threads.

    python bench/engine.py [--json] [--smoke] [--runs 5]

What it costs to wake who sleeps is high.py's. No daemon takes part. Syncs are of a file on the disk of --directory; on
a tmpfs they cost nothing and say nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from agentd import _native
from agentd_client._engine import Engine, open_engine

_HERE = Path(__file__).parent
_NATIVE = _HERE.parent / "native"
_PARTS = ("clock", "pair", "ring", "uring", "uring_doorbell", "uring_setup", "uring_stop")
_ONE = (1).to_bytes(8, sys.byteorder)


def in_c(home: Path, span_ms: int) -> dict[str, float]:
    """Nanoseconds an operation, without Python."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return {}
    program = home / "engine"
    if not program.exists():
        sources = [str(_HERE / "engine.c"), *(str(_NATIVE / f"{part}.c") for part in _PARTS)]
        flags = ["-O2", "-std=gnu11", "-pthread", "-I", str(_NATIVE)]
        subprocess.run([compiler, *flags, *sources, "-o", str(program)], check=True)
    done = subprocess.run([program, str(span_ms)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {f"C: {what}": value for what, value in found.items()}


def _per_call(call: Callable[[], object], span_ms: int, n: int = 1) -> float:
    begin = now = perf_counter_ns()
    count = 0
    while now - begin < span_ms * 1_000_000:
        call()
        count += n
        now = perf_counter_ns()
    return (now - begin) / count


def bound(span_ms: int) -> dict[str, float]:
    """Nanoseconds an operation, through the binding."""
    engine = _native.Engine(64)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def batch(n: int, queue: Callable[[], int]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(n):
                queue()
            engine.submit()
            left = n
            while left:
                left -= len(engine.reap())

        return run

    def ring() -> int:
        return engine.write(bell, _ONE, -1)

    found = {
        "Python: nop, 1 a submission": _per_call(batch(1, engine.nop), span_ms),
        "Python: nop, 64 a submission": _per_call(batch(64, engine.nop), span_ms, 64),
        "Python: doorbell by SQE, 1 a submission": _per_call(batch(1, ring), span_ms),
        "Python: doorbell by SQE, 32 a submission": _per_call(batch(32, ring), span_ms, 32),
        "Python: doorbell by os.write": _per_call(lambda: os.write(bell, _ONE), span_ms),
    }
    engine.close()
    os.close(bell)
    return found


async def _each(what: Callable[[], Awaitable[object]], span_ms: int) -> float:
    times = []
    until = perf_counter_ns() + span_ms * 1_000_000
    while perf_counter_ns() < until:
        begin = perf_counter_ns()
        await what()
        times.append(perf_counter_ns() - begin)
    return statistics.median(times)


async def in_a_loop(directory: Path, span_ms: int, ring: bool) -> dict[str, float]:
    """Nanoseconds until the loop knows, the median."""
    engine: Engine = open_engine(64, ring=ring)
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    fd, path = tempfile.mkstemp(dir=directory)
    os.posix_fallocate(fd, 0, 1 << 20)
    os.fsync(fd)
    body = bytes(1024)

    async def append() -> None:
        os.pwrite(fd, body, 0)
        await engine.fsync(fd)

    async def bells() -> None:
        for request in [engine.write(bell, _ONE) for _ in range(32)]:  # gather() would cost more than they do
            await request

    try:
        return {
            f"loop, {engine.kind}: doorbell awaited": await _each(lambda: engine.write(bell, _ONE), span_ms),
            f"loop, {engine.kind}: 32 doorbells of one turn": await _each(bells, span_ms),
            f"loop, {engine.kind}: 1 KiB and fdatasync": await _each(append, 4 * span_ms),
        }
    finally:
        await engine.close()
        os.close(bell)
        os.close(fd)
        os.unlink(path)


def inline_sync(directory: Path, span_ms: int) -> dict[str, float]:
    """The same sync with the loop held."""
    fd, path = tempfile.mkstemp(dir=directory)
    os.posix_fallocate(fd, 0, 1 << 20)
    os.fsync(fd)
    body = bytes(1024)

    async def append() -> None:
        os.pwrite(fd, body, 0)
        os.fdatasync(fd)

    try:
        return {"inline: 1 KiB and fdatasync": asyncio.run(_each(append, 4 * span_ms))}
    finally:
        os.close(fd)
        os.unlink(path)


def main() -> None:
    """Measure, and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: does it still work?")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=_HERE.parent / "build")
    options = parser.parse_args()
    runs, span_ms = (1, 5) if options.smoke else (options.runs, 50)
    refused = _native.io_uring_errno()
    figures: dict[str, list[float]] = {}
    options.directory.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        for _ in range(runs):
            found: dict[str, Any] = inline_sync(options.directory, span_ms)
            found |= asyncio.run(in_a_loop(options.directory, span_ms, ring=False))
            if not refused:
                found |= in_c(Path(home), span_ms) | bound(span_ms)
                found |= asyncio.run(in_a_loop(options.directory, span_ms, ring=True))
            for what, value in found.items():
                figures.setdefault(what, []).append(value)
    rows = [
        {"what": what, "ns": round(statistics.median(values), 1), "low": round(min(values)), "high": round(max(values))}
        for what, values in figures.items()
    ]
    if options.json:
        print(json.dumps({"bench": "engine", "runs": runs, "io_uring_errno": refused, "figures": rows}))
        return
    if refused:
        print(f"no io_uring here: {os.strerror(refused)}")
    for row in sorted(rows, key=lambda row: str(row["what"])):
        print(f"{row['what']:55} {row['ns']:>12,} ns   {row['low']:,}–{row['high']:,}")


if __name__ == "__main__":
    main()
