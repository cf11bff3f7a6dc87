"""Processes, ours and others', as far as people are told of them."""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

import psutil

_MAX_COMMAND = 60


def command_of(pid: int) -> str:
    """What to call a process: its program, and the script or module if the program is an interpreter."""
    try:
        words = psutil.Process(pid).cmdline()
    except (psutil.Error, OSError):
        return ""
    if not words:
        return ""
    name = os.path.basename(words[0])
    if name.startswith("python"):
        name = _script(words) or name
    return "".join(c if c.isprintable() else "?" for c in name)[:_MAX_COMMAND]


def _script(words: list[str]) -> str:
    """What a Python interpreter runs, if that has a name."""
    for place, word in enumerate(words[1:], 1):
        if word == "-c":
            return ""
        if word == "-m":
            return "".join(words[place + 1 : place + 2])
        if not word.startswith("-"):
            return os.path.basename(word)
    return ""


class Usage(NamedTuple):
    """What this process uses."""

    rss_bytes: int
    cpu_s: float
    fds: int


def usage() -> Usage:
    """What this process uses now."""
    process = psutil.Process()
    times = process.cpu_times()
    return Usage(process.memory_info().rss, times.user + times.system, process.num_fds())


def raise_file_limit(wanted: int) -> int:
    """Raise the soft limit of open files as far as needed and allowed; the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return soft
