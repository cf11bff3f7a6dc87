"""The daemon's counters in shared memory: whoever may read them can, while the daemon is busy, stopped or dead.

One segment a runtime directory, `agentd.<uid>.<hash of the directory>`, 0600, made anew by each daemon under the
directory's lock and unlinked at its orderly end; what a killed one left is replaced by the next, and by `agentctl
doctor --fix` where there will be no next. Its one writer copies a snapshot in:

     0  magic, 8 bytes           24  pid, 8                  48  when, nanoseconds of CLOCK_BOOTTIME, 8
     8  turn, 8: odd while it    32  start of that process,  56  size of the snapshot, 4
        is being written             clock ticks, 8          60  its crc32c, 4
    16  size of the segment, 8   40  number of snapshots, 8  64  the snapshot

A reader copies all of it and believes the copy if `turn` was the same even number before and after and the checksum is
right. No reader ever holds up the writer.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple

import posix_ipc

from agentd._native import boottime_ns, crc32c

_MAGIC: Final = b"agentdC1"
_HEAD: Final = struct.Struct("<8sQQQQQQII")
_TURN_AT: Final = 8
_TURN: Final = struct.Struct("<Q")
_PREFIX: Final = "agentd."
_DIRECTORY: Final = "/dev/shm"
_TRIES: Final = 100
#: So long may a segment be without a word before its daemon is taken for dead.
_BEING_MADE_S: Final = 60.0
#: Room for what there is one of, and for an agent with the longest name.
_FIXED_BYTES: Final = 8192
_ROW_BYTES: Final = 512


class Snapshot(NamedTuple):
    """What a daemon last said, and whether it is still there."""

    pid: int
    alive: bool
    age_s: float
    data: bytes


def name_of(runtime_dir: Path, uid: int) -> str:
    """The segment of the daemon in that directory."""
    digest = hashlib.blake2s(os.fsencode(os.path.realpath(runtime_dir)), digest_size=8).hexdigest()
    return f"{_PREFIX}{uid}.{digest}"


class Counters:
    """The writer's end. Where there is no shared memory to be had nothing is written, and `reason` says why."""

    def __init__(self, runtime_dir: Path, uid: int, max_agents: int) -> None:
        max_bytes = _FIXED_BYTES + max_agents * _ROW_BYTES
        self.name = name_of(runtime_dir, uid)
        self.reason = ""
        self._map: mmap.mmap | None = None
        self._turn = 0
        self._written = 0
        self._pid = os.getpid()
        self._started = start_of(self._pid)
        self._capacity = max_bytes - _HEAD.size
        _unlink(self.name)  # a dead daemon's: we hold the lock
        try:
            memory = posix_ipc.SharedMemory("/" + self.name, posix_ipc.O_CREX, mode=0o600, size=max_bytes)
            try:
                # Reserved now: a full /dev/shm is an error here, not a SIGBUS at some later write.
                os.posix_fallocate(memory.fd, 0, max_bytes)
                self._map = mmap.mmap(memory.fd, max_bytes)
            finally:
                memory.close_fd()
        except (posix_ipc.Error, OSError) as error:
            _unlink(self.name)
            self.reason = str(error)
        self.write(b"")  # whose it is, from the beginning: a segment of nobody's would never be swept

    def write(self, data: bytes) -> bool:
        """A new snapshot; whether it had room."""
        if self._map is None or len(data) > self._capacity:
            return False
        self._written += 1
        self._set_turn(self._turn + 1)
        head = _HEAD.pack(
            _MAGIC, self._turn, len(self._map), self._pid, self._started, self._written, boottime_ns(),
            len(data), crc32c(data),
        )  # fmt: skip
        self._map[_TURN_AT + _TURN.size : _HEAD.size] = head[_TURN_AT + _TURN.size :]
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        self._map[:_TURN_AT] = _MAGIC
        self._set_turn(self._turn + 1)
        return True

    def _set_turn(self, turn: int) -> None:
        assert self._map is not None
        self._turn = turn
        _TURN.pack_into(self._map, _TURN_AT, turn)

    def close(self) -> None:
        """The daemon ends in order: nobody needs them any more."""
        if self._map is not None:
            self._map.close()
            self._map = None
            _unlink(self.name)


def read(runtime_dir: Path, uid: int) -> Snapshot | None:
    """The latest snapshot; None when there is none, or none that can be believed."""
    try:
        with open(f"{_DIRECTORY}/{name_of(runtime_dir, uid)}", "rb") as file:
            if os.fstat(file.fileno()).st_uid != uid:
                return None
            for _ in range(_TRIES):
                if (found := _believed(file.read())) is not None:
                    return found
                file.seek(0)
    except OSError:
        pass
    return None


def _believed(copy: bytes) -> Snapshot | None:
    """The snapshot in a copy of the segment. The copy may have been made while it was written: its checksum tells."""
    if len(copy) < _HEAD.size:
        return None
    magic, turn, _, pid, started, _, at_ns, size, crc = _HEAD.unpack_from(copy)
    data = copy[_HEAD.size : _HEAD.size + size]
    if magic != _MAGIC or turn % 2 or len(data) != size or crc32c(data) != crc:
        return None
    age_s = max(0.0, (boottime_ns() - at_ns) / 1e9)
    return Snapshot(pid, start_of(pid) == started and state_of(pid) != "Z", age_s, data)


def start_of(pid: int) -> int:
    """When that process started, in clock ticks since boot: with it a number names one process for ever. 0: none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def state_of(pid: int) -> str:
    """R running, S asleep, T stopped, Z dead and not buried, as /proc has it; empty: none."""
    fields = _stat(pid)
    return fields[0].decode() if fields else ""


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the command, which may have anything in it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def stale(uid: int) -> list[str]:
    """This user's segments whose daemon is dead."""
    found = []
    for name in os.listdir(_DIRECTORY) if os.path.isdir(_DIRECTORY) else ():
        if not name.startswith(f"{_PREFIX}{uid}."):
            continue
        try:
            with open(f"{_DIRECTORY}/{name}", "rb") as file:
                if os.fstat(file.fileno()).st_uid != uid:
                    continue
                head = file.read(_HEAD.size)
                old = time.time() - os.fstat(file.fileno()).st_mtime > _BEING_MADE_S
        except OSError:
            continue
        if len(head) == _HEAD.size and head.startswith(_MAGIC):
            _, _, _, pid, started, *_ = _HEAD.unpack(head)
            if start_of(pid) != started:
                found.append(name)
        elif old:  # its daemon died before it wrote a word
            found.append(name)
    return found


def remove_stale(name: str, uid: int) -> bool:
    """Remove this one, if its daemon is still dead."""
    if name not in stale(uid):
        return False
    _unlink(name)
    return True


def _unlink(name: str) -> None:
    try:
        posix_ipc.unlink_shared_memory("/" + name)
    except posix_ipc.ExistentialError:
        pass
    except OSError:
        pass
