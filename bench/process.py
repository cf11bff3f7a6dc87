"""Child processes and what /proc says of them.

Every child dies with the benchmark, however that ends, and is stopped by the handle that started it, never by name.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(
    command: Sequence[str], environ: Mapping[str, str] | None = None, log: Path | None = None
) -> subprocess.Popen[str]:
    """A child that reads and writes lines; with `log`, one that only writes, and into that file."""
    if log is None:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ(environ),
            preexec_fn=_die_with_parent,
        )
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environ(environ),
            preexec_fn=_die_with_parent,
        )


def clean_environ(added: Mapping[str, str] | None) -> dict[str, str]:
    """Ours without what would lead to an agentd of the user's, plus `added`."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("AGENTD_")}
    return {**ours, **(added or {})}


def stop(child: subprocess.Popen[str], grace_s: float = 5.0) -> int:
    """Ask it to end, make it end, and take its exit status."""
    child.terminate()
    try:
        status = child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                pass  # a command that it never read
    return status


def cpu_s(pid: int) -> float:
    """Processor time used so far, user and system, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wakeups(pid: int, *, kernels: bool = False) -> int:
    """How often any thread of it went to sleep of its own accord: each but the last was followed by a wake-up. Or the
    kernel's threads in it: behind an io_uring that has worked one looks up every 5 s, as long as any ring is open."""
    switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("iou-") is not kernels:
            continue
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                switches += int(line.split()[1])
    return switches
