"""What one `agentctl send` costs a script: wall time from fork to exit, beside `python3 -c pass`.

Both are run in turn, --count times, by the same interpreter, with warm caches (the first of each is not counted), to
an agent that is joined and takes nothing. Each must exit 0, and the daemon must have accepted exactly as many messages.
What it imports is read from -X importtime: asyncio, and everything beneath it, has no place in a one-shot verb.

After them, as often: `agentctl inbox --notice`, which hooks run with every prompt, and what the completion scripts
start at each TAB, which must offer that agent.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import own
import process
import report
from sampler import Sampler

from agentd.cli import complete, completion

BOUND_MS: Final = 100
BOUND_RATIO: Final = 8
NOTICE_BOUND_MS: Final = 60
COMPLETION_BOUND_MS: Final = 50
_TO: Final = "idle-0"


def measure(chosen: argparse.Namespace, home: Path) -> report.Report:
    """All runs."""
    result = report.begin("startup", chosen)
    send_ms: list[float] = []
    pass_ms: list[float] = []
    sends = Sampler()
    passes = Sampler()
    notice_ms: list[float] = []
    completion_ms: list[float] = []
    for run in range(chosen.runs):
        with ExitStack() as undo:
            place = home / str(run)
            place.mkdir()
            daemon = own.start(place)
            undo.callback(daemon.close)
            undo.callback(own.Crowd(daemon, 1).close)
            environ = process.clean_environ(daemon.environ)
            command = [*agentctl(), "send", "--as", "bench", _TO, "hello"]
            nothing = [sys.executable, "-c", "pass"]
            for warm in (command, nothing):
                _timed(warm, environ)
            before = own.counters(daemon).accepted
            of_send, of_pass = Sampler(), Sampler()
            for _ in range(chosen.count):
                of_send.record(_timed(command, environ))
                of_pass.record(_timed(nothing, environ))
            accepted = own.counters(daemon).accepted - before
            if accepted != chosen.count:
                raise RuntimeError(f"{chosen.count} were sent, {accepted} accepted")
            imported = _asyncio_modules(command, environ)
            notice_ms.append(_p50_ms([*agentctl(), "inbox", "--notice", "--as", _TO], environ, chosen.count, ""))
            tab = [*completion.command(), "fish", "send", _TO[:2]]
            environ[complete.TABLE] = completion.table()
            completion_ms.append(_p50_ms(tab, environ, chosen.count, _TO))
        send_ms.append(of_send.summary().p50_us / 1000)
        pass_ms.append(of_pass.summary().p50_us / 1000)
        sends.extend(of_send.listed())
        passes.extend(of_pass.listed())
    result.figure("agentctl send, wall p50", "agentctl", "ms", send_ms, verified=len(sends), summary=sends.summary())
    result.figure("python -c pass, wall p50", "python", "ms", pass_ms, summary=passes.summary())
    result.figure("agentctl inbox --notice, wall p50", "agentctl", "ms", notice_ms)
    result.figure("completion of an agent, wall p50", "agentctl", "ms", completion_ms)
    result.figure("modules of asyncio imported", "agentctl", "", [len(imported)])
    if imported:
        result.notes.append(f"imported: {', '.join(imported)}")
    result.at_most("agentctl send", BOUND_MS, send_ms, "ms")
    result.at_most("agentctl inbox --notice", NOTICE_BOUND_MS, notice_ms, "ms")
    result.at_most("completion of an agent", COMPLETION_BOUND_MS, completion_ms, "ms")
    ratios = [ours / theirs for ours, theirs in zip(send_ms, pass_ms, strict=True)]
    result.at_most("agentctl send of python -c pass", BOUND_RATIO, ratios, "×")
    result.at_most("modules of asyncio imported by agentctl send", 0, [len(imported)])
    return result


def _p50_ms(command: list[str], environ: dict[str, str], count: int, prints: str) -> float:
    """Of so many calls, each of which must print this."""
    sampler = Sampler()
    _timed(command, environ)
    for _ in range(count):
        sampler.record(_timed(command, environ, prints))
    return sampler.summary().p50_us / 1000


def agentctl() -> list[str]:
    """The installed command, run by this interpreter; from a checkout that is not installed, its module."""
    installed = Path(sys.executable).with_name("agentctl")
    return [sys.executable, str(installed)] if installed.exists() else [sys.executable, "-P", "-m", "agentd.cli"]


def _timed(command: list[str], environ: dict[str, str], prints: str = "") -> int:
    start = time.perf_counter_ns()
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True)
    duration_ns = time.perf_counter_ns() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exits {done.returncode}: {done.stderr.decode()[-500:]}")
    if prints not in done.stdout.decode():
        raise RuntimeError(f"{' '.join(command)} prints {done.stdout!r}, not {prints!r}")
    return duration_ns


def _asyncio_modules(command: list[str], environ: dict[str, str]) -> list[str]:
    """What -X importtime names of asyncio."""
    python, *rest = command
    done = subprocess.run([python, "-X", "importtime", *rest], env=environ, capture_output=True, text=True)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    if done.returncode or not names:
        raise RuntimeError(f"-X importtime says nothing: {done.stderr[-500:]}")
    return [name for name in names if name == "asyncio" or name.startswith(("asyncio.", "_asyncio"))]


if __name__ == "__main__":
    report.main(__doc__, report.Sizes(count=20, smoke_count=2), measure)
