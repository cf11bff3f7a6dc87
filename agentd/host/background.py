"""A daemon in the background where no service manager runs one: started away from the terminal, found by the lock on
its directory, ended by its pidfd. Several may try at once: the lock lets one daemon live, and all wait for the outcome.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentd.host.directories import lock_holder, prepare_directory
from agentd.wire.errors import Busy, ConfigError, Timeout

if TYPE_CHECKING:
    from agentd.wire.messages import StatusView

LOG: Final = "agentd.log"
_BUSY: Final = Busy.exit_status
#: How soon it is looked again where nothing can be waited for: the kernel tells of the end of a process, not of a lock.
_LOOK_S: Final = 0.02
#: A killed process may still have to give much memory back.
_KILL_S: Final = 10.0
_LINES_SHOWN: Final = 3


def log_path(state_dir: Path) -> Path:
    """What a daemon in the background logs to."""
    return state_dir / LOG


def start(
    environ: Mapping[str, str],
    runtime_dir: Path,
    state_dir: Path,
    answering: Callable[[], StatusView | None],
    timeout_s: float,
) -> tuple[StatusView, bool]:
    """A daemon that answers: what it says of itself, and whether this call started it.

    While one is stopping its end is waited for. Timeout, ConfigError or what the daemon said when there is none.
    """
    until = time.monotonic() + timeout_s
    prepare_directory(runtime_dir)
    prepare_directory(state_dir)
    while True:
        if (view := answering()) is not None:
            return view, False
        holder = lock_holder(runtime_dir)
        if holder is None:
            child = _spawn(environ, runtime_dir, state_dir)
            if (view := _wait_for_answer(child, answering, until)) is not None:
                return view, True
            if child.returncode not in (0, _BUSY):
                raise _failed(child.returncode, log_path(state_dir))
            _check_time(until, "agentd is stopped again and again while it starts")
            continue  # another was faster, or somebody stopped it
        _check_time(until, f"pid {holder} holds {runtime_dir} and does not answer")
        _wait_for_end(holder, _LOOK_S)


def _spawn(environ: Mapping[str, str], runtime_dir: Path, state_dir: Path) -> subprocess.Popen[bytes]:
    """Away from the terminal, its session and its directory. What it says before its log is open goes there too."""
    log = log_path(state_dir)
    command = [sys.executable, "-P", "-m", "agentd.daemon", "--log-file", str(log)]
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{log} can't be written: {error.strerror}", "Name another AGENTD_STATE_DIR.") from None
    try:
        return subprocess.Popen(
            command,
            env=dict(environ) | {"AGENTD_STATE_DIR": str(state_dir)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    finally:
        os.close(out)


def _wait_for_answer(
    child: subprocess.Popen[bytes], answering: Callable[[], StatusView | None], until: float
) -> StatusView | None:
    while child.poll() is None:
        if (view := answering()) is not None and view.pid == child.pid:
            return view
        _check_time(until, f"agentd, pid {child.pid}, was started and does not answer yet")
        _wait_for_end(child.pid, _LOOK_S)
    return None


def _check_time(until: float, what: str) -> None:
    if time.monotonic() > until:
        raise Timeout(what, "`agentctl daemon logs` shows what it is at; `agentctl daemon stop --kill` ends it.")


def _failed(status: int, log: Path) -> ConfigError:
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 4096))
        lines = file.read().decode(errors="replace").splitlines()[-_LINES_SHOWN:]
    said = " / ".join(line.strip() for line in lines if line.strip())
    return ConfigError(f"agentd ended at once with exit {status}: {said}", f"See {log}.")


def stop(runtime_dir: Path, timeout_s: float, *, kill: bool) -> int | None:
    """End the daemon that holds the directory and wait until it is gone; its pid, None when there was none.

    Timeout when it takes longer; with `kill` it is then killed, and what it had only in memory is lost.
    """
    pid = lock_holder(runtime_dir)
    if pid is None:
        return None
    with _process(pid) as fd:
        # The number could have gone to another process before it was opened: only who still holds the lock is meant.
        if fd is None or lock_holder(runtime_dir) != pid:
            return pid
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if _gone(fd, timeout_s):
            return pid
        if not kill:
            raise Timeout(
                f"agentd, pid {pid}, has not ended within {timeout_s:g} s; it is still stopping",
                "Wait longer with --timeout, or lose what is only in its memory with --kill.",
            )
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not _gone(fd, max(timeout_s, _KILL_S)):
            raise Timeout(f"agentd, pid {pid}, was killed and is not gone: the kernel holds it", "See `ps -o stat`.")
        return pid


@contextmanager
def _process(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _gone(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _wait_for_end(pid: int, timeout_s: float) -> None:
    with _process(pid) as fd:
        if fd is None:
            return
        _gone(fd, timeout_s)
