"""A writer killed at any moment: what it leaves is a prefix of what it appended, with all that it acknowledged."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import pytest
from daemons import PATIENCE_S
from journals import SEGMENT_BYTES, Report, everything, opened

#: Appends records with the next numbers, in turns as the daemon does, and says on stdout what it acknowledged.
WRITER: Final = f"""
import os, random, sys, threading, zlib
from agentd import _native

directory, seed = sys.argv[1], int(sys.argv[2])
luck = random.Random(seed)
journal = _native.Journal(directory, {SEGMENT_BYTES})
number = journal.sequence
preparing = threading.Thread()

def say(what):
    os.write(1, b"%s %d\\n" % (what, number))

def body():
    size = luck.choice([0, 100, 1000, 30_000])
    return zlib.crc32(b"%d" % number).to_bytes(4, "little") * (size // 4)

def sync():
    upto, fds = journal.begin_sync()
    flushed = number
    say(b"flushed")
    if luck.random() < 0.5:
        append()  # beside the sync
    for fd in fds:
        os.fdatasync(fd)
    journal.end_sync()
    os.write(1, b"synced %d\\n" % flushed)

def append():
    global number
    try:
        journal.append(number % 1000, body())
    except BlockingIOError:
        return
    number += 1

while True:
    for _ in range(luck.randrange(20)):
        append()
    journal.flush()
    say(b"flushed")
    if luck.random() < 0.3:
        sync()
    if journal.needs_prepare and not preparing.is_alive() and luck.random() < 0.3:
        make = (directory, journal.id, journal.next_number, journal.segment_bytes)
        preparing = threading.Thread(target=_native.prepare_segment, args=make)
        preparing.start()
"""


def killed_after(directory: Path, lines: int, seed: int) -> int:
    """How many records a writer had acknowledged when it was killed, at some moment behind so many lines."""
    command = [sys.executable, "-P", "-c", WRITER, str(directory), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        assert writer.wait(PATIENCE_S) == -signal.SIGKILL
    told += rest[: rest.rfind(b"\n") + 1].splitlines()
    return max((int(line.split()[1]) for line in told), default=0)


def is_record(number: int, type: int, body: bytes) -> bool:
    """Whether it is what the writer appends as its record of that number."""
    return type == number % 1000 and body == zlib.crc32(b"%d" % number).to_bytes(4, "little") * (len(body) // 4)


def survives(directory: Path, n_kills: int, seed: int) -> None:
    luck = random.Random(seed)
    before = 0
    for round in range(n_kills):
        acknowledged = killed_after(directory, luck.randrange(60), seed + round)
        reports: list[Report] = []
        with opened(directory, reports) as journal:
            records = everything(journal)
            assert [what for what, _, _ in reports if what != "cut"] == []
            wrong = [number for number, (_, type, body) in enumerate(records) if not is_record(number, type, body)]
            assert not wrong
            assert len(records) == journal.sequence >= max(acknowledged, before)
        before = len(records)
    assert before > 0


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    survives(tmp_path / "journal", 12, 20261121)


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_two_hundred_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    for seed in range(10):
        survives(tmp_path / f"journal-{seed}", 20, seed * 1000)
