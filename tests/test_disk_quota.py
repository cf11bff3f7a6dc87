"""No room for the journal though the file system has some, or none though the journal takes little: a quota that is
used up, what is held for checkpoints, and copies of what was cut off."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon, wait_until
from raw import Raw
from steps import Stepping, build
from test_disk_full import LIMITS, can_send, fill, journal_settings, number_of, small_mount, started, take_all

__all__ = ["small_mount", "started"]

MIB = 1 << 20


@pytest.fixture
def flagged(tmp_path: Path) -> Iterator[tuple[Stepping, Path]]:
    """A daemon whose quota is used up while a file is there."""
    daemon, flag = Stepping(tmp_path, build(tmp_path)), tmp_path / "flag"
    daemon.fail_with(errno.EDQUOT, flag)
    daemon.config(journal=journal_settings(1 << 30), **LIMITS)
    yield daemon, flag
    flag.unlink(missing_ok=True)
    daemon.close()


def test_a_quota_that_is_used_up_is_a_full_disk(flagged: tuple[Stepping, Path]) -> None:
    daemon, flag = flagged
    with Raw(daemon.socket, "planner") as me:
        stored = [number for number in range(10) if can_send(me, number)]
        flag.touch()
        more, error = fill(me, first=10)
        assert (error.code, error.retryable) == ("disk_full", True)
        assert "Disk quota exceeded" in error.message and str(daemon.state_dir) in error.message
    daemon.kill()
    daemon.start()
    with Raw(daemon.socket, "planner") as me:
        last = 10 + len(more)
        while can_send(me, last):  # what was made ahead
            last += 1
        assert daemon.process is not None and daemon.process.poll() is None
        flag.unlink()
        wait_until(lambda: can_send(me, last), "it goes on by itself")
    assert [number_of(message) for message in take_all(daemon)] == [*stored, *more, *range(10 + len(more), last + 1)]
    daemon.kill()
    daemon.start()
    assert not [message for message in take_all(daemon) if number_of(message) < last]


def test_a_checkpoint_has_room_on_a_full_disk(small_mount: Path, started: Daemon) -> None:
    """Before any segment went: nothing but what was held for it."""
    started.config(journal=journal_settings(1 << 30), **LIMITS)
    started.kill()  # without a checkpoint
    (started.state_dir / "journal" / "checkpoint").unlink(missing_ok=True)
    started.start()
    with Raw(started.socket, "planner") as me:
        assert can_send(me, 0)
        with (small_mount / "ballast").open("wb", 0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(1 << 12))
        assert not list((started.state_dir / "journal").glob("spare-*"))
        fill(me, first=1)
        wait_until((started.state_dir / "journal" / "checkpoint").exists, "for a checkpoint")
    assert "no checkpoint of the journal" not in started.stderr
    (small_mount / "ballast").unlink()


def test_only_the_latest_copies_of_what_was_cut_off_stay(started: Daemon) -> None:
    started.start()
    started.kill()
    place = started.state_dir / "journal"
    for number in range(1, 31):
        (place / f"broken-{number:016x}").write_bytes(b"x" * 1000)
    (place / "0000000000000001.broken").write_bytes(b"a segment's name, and none")
    started.start()
    left = sorted(name for name in os.listdir(place) if "broken" in name)
    assert left == ["0000000000000001.broken", *(f"broken-{number:016x}" for number in range(23, 31))]
    assert len(re.findall(r"broken-0{14}\w\w[,\n]", started.stderr)) == 22
    agentctl = Agentctl(started.env, started.directory)
    (row,) = [row for row in agentctl("doctor", "--json").json["findings"] if "never synced" in row["what"]]
    assert (row["check"], row["severity"]) == ("stale files", "notice")
    assert "9 files" in row["what"] and str(place) in row["remedy"]
    agentctl.close()
