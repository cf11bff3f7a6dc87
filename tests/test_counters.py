"""The counters in shared memory: who may read them, what is believed, what is swept."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.host import counters
from agentd.host.counters import Counters

UID = os.getuid()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Counters]:
    own = Counters(tmp_path, UID, 4)
    assert not own.reason
    yield own
    own.close()


def path_of(directory: Path) -> Path:
    return Path("/dev/shm") / counters.name_of(directory, UID)


def test_what_is_written_is_read(own: Counters, tmp_path: Path) -> None:
    for data in (b"first", b"the second, longer", b""):
        assert own.write(data)
        found = counters.read(tmp_path, UID)
        assert found is not None
        assert (found.data, found.pid, found.alive) == (data, os.getpid(), True)


def test_nobody_else_may_read_it(own: Counters, tmp_path: Path) -> None:
    found = path_of(tmp_path).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, UID)


def test_nothing_was_written_yet(own: Counters, tmp_path: Path) -> None:
    found = counters.read(tmp_path, UID)
    assert found is not None and (found.data, found.alive) == (b"", True)
    assert counters.read(tmp_path / "elsewhere", UID) is None


def test_too_much_is_not_written(own: Counters, tmp_path: Path) -> None:
    own.write(b"small")
    assert not own.write(b"x" * (1 << 20))
    found = counters.read(tmp_path, UID)
    assert found is not None and found.data == b"small"


@pytest.mark.parametrize("place", [0, 8, 56, 60, 64])
def test_a_torn_or_foreign_snapshot_is_not_believed(own: Counters, tmp_path: Path, place: int) -> None:
    own.write(b"whole")
    with path_of(tmp_path).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))
    assert counters.read(tmp_path, UID) is None


def test_readers_never_see_half_of_one(tmp_path: Path) -> None:
    """A writer at full speed in another process: every snapshot that is believed is whole."""
    script = (
        "from pathlib import Path; from agentd.host.counters import Counters\n"
        f"own = Counters(Path({str(tmp_path)!r}), {UID}, 4)\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n    own.write(b'%c' % (65 + n % 26) * (n % 4000)); n += 1\n"
    )
    writer = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline()
    try:
        believed = set()
        for _ in range(5000):
            found = counters.read(tmp_path, UID)
            if found is not None:
                assert len(set(found.data)) <= 1
                believed.add(found.data)
        assert len(believed) > 10
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    found = counters.read(tmp_path, UID)
    assert found is None or not found.alive
    assert path_of(tmp_path).name in counters.stale(UID)
    assert counters.remove_stale(path_of(tmp_path).name, UID)
    assert not path_of(tmp_path).exists()


def test_a_live_ones_is_not_swept(own: Counters, tmp_path: Path) -> None:
    own.write(b"x")
    assert path_of(tmp_path).name not in counters.stale(UID)
    assert not counters.remove_stale(path_of(tmp_path).name, UID)
    assert path_of(tmp_path).exists()


def test_a_dead_ones_is_replaced(tmp_path: Path) -> None:
    first = Counters(tmp_path, UID, 4)
    first.write(b"old")
    second = Counters(tmp_path, UID, 4)
    assert not second.reason
    found = counters.read(tmp_path, UID)
    assert found is not None and found.data == b""
    second.close()
    assert not path_of(tmp_path).exists()


def test_one_directory_by_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert counters.name_of(tmp_path / "real", UID) == counters.name_of(tmp_path / "link", UID)
    assert counters.name_of(tmp_path / "real", UID) != counters.name_of(tmp_path, UID)


def test_one_whose_daemon_died_before_its_first_word_is_stale_after_a_while(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    path.write_bytes(bytes(1000))
    assert path.name not in counters.stale(UID)
    os.utime(path, (0, 0))
    assert counters.remove_stale(path.name, UID)
