"""Processes, ours and others', as far as people are told of them."""

from __future__ import annotations

import os
import resource
from functools import cache
from typing import Final, NamedTuple

import psutil

_MAX_COMMAND = 60
#: Descriptors that are not connections, and how many a connection takes: its socket and its process. One that is
#: attached to shared memory has a second socket, three doorbells, and of both its relays a doorbell and a process.
SPARE_FILES: Final = 32
_FILES_A_CONNECTION: Final = 2
_FILES_ATTACHED: Final = 8


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


@cache
def _this_process(_pid: int) -> psutil.Process:
    return psutil.Process()


def usage() -> Usage:
    """What this process uses now."""
    process = _this_process(os.getpid())  # kept: to make one takes longer than all that is asked of it
    times = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(rss_bytes(), times.ru_utime + times.ru_stime, process.num_fds())


def rss_bytes() -> int:
    """The memory this process uses now."""
    return int(_this_process(os.getpid()).memory_info().rss)


def files_for(connections: int) -> int:
    """As many as they can need, all attached."""
    return SPARE_FILES + (_FILES_A_CONNECTION + _FILES_ATTACHED) * connections


def connections_for(files: int, wanted: int) -> tuple[int, int]:
    """For how many connections that limit is enough, and how many of them can be attached: what connections leave, and
    not less than a quarter, or there would be no shared memory at all where the limit is low."""
    files = max(0, files - SPARE_FILES)
    for_attached = max(files - _FILES_A_CONNECTION * wanted, files // 4)
    attached = min(wanted, for_attached // _FILES_ATTACHED)
    return min(wanted, (files - _FILES_ATTACHED * attached) // _FILES_A_CONNECTION), attached


def raise_file_limit(wanted: int) -> int:
    """Raise the soft limit of open files as far as needed and allowed; the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return soft
