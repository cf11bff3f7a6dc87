"""The daemon's directories: ours alone, and held by one daemon at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from agentd.host.process import command_of
from agentd.wire.errors import Busy, NotPermitted

_LOCK: Final = "agentd.lock"


def prepare_directory(path: Path) -> None:
    """Make the directory 0700, or check the one that is there: a foreign or laxer one is refused, not mended."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except FileExistsError:
        raise NotPermitted(f"{path} is not a directory", "Remove it, or name another directory.") from None
    except OSError as error:
        raise NotPermitted(
            f"{path} can't be made: {error.strerror}",
            "Set AGENTD_RUNTIME_DIR and AGENTD_STATE_DIR to directories of yours.",
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotPermitted(f"{path} is a link or a file, not a directory", "Remove it, or name another directory.")
    if found.st_uid != os.getuid():
        raise NotPermitted(
            f"{path} belongs to uid {found.st_uid}, not to uid {os.getuid()}",
            "Somebody else made it; name a directory of yours in AGENTD_RUNTIME_DIR or AGENTD_STATE_DIR.",
        )
    if found.st_mode & 0o077:
        raise NotPermitted(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others can reach into it",
            f"chmod 700 {path}",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise NotPermitted(f"{path} can't be written", "Check its mode and its file system.")


def lock_directory(path: Path) -> int:
    """Hold the directory against other daemons; the descriptor to keep. The kernel lets go when we are gone, however
    we go; the file stays, since removing a lock file would let two daemons hold two files of one name."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NotPermitted(f"{path}/agentd.lock can't be opened: {error.strerror}", "Remove it.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        who = f"pid {holder} ({command_of(int(holder))})" if holder.isdigit() else "another daemon"
        raise Busy(
            f"agentd is running already: {who} holds {path}", "Stop it first, or use another directory."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def lock_holder(path: Path) -> int | None:
    """The process that holds the directory now. Only looks: trying the lock, even for a moment, could make a daemon
    that starts in that moment believe that another runs."""
    try:
        found = os.stat(path / _LOCK)
        held = Path("/proc/locks").read_text()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in held.splitlines():
        words = line.split()  # 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5] == device:
            return int(words[4])
    return None
