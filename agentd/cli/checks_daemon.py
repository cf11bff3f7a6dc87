"""What doctor looks at in the daemon and around it, one function a check."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from agentd.cli import show
from agentd.cli.patient import ERROR, NOTICE, OK, WARNING, Finding, Patient
from agentd.host import counters, systemd
from agentd.host.arguments import VERSION
from agentd.host.directories import lock_directory, lock_holder
from agentd.wire.errors import AgentdError
from agentd.wire.names import SUBSCRIPTION

_OLD_MAIL_S: Final = 86400.0
_VERY_OLD_MAIL_S: Final = 7 * 86400.0


def daemon(patient: Patient) -> Iterator[Finding]:
    """Whether it runs and answers."""
    status, holder = patient.status, lock_holder(patient.runtime_dir)
    if status is not None and status.draining:
        yield Finding("daemon", WARNING, f"pid {status.pid} is stopping and takes no new work", "agentctl daemon start")
    elif status is not None:
        yield Finding("daemon", OK, f"pid {status.pid}, up {show.span(status.up_s)}")
    elif holder is not None:
        state = counters.state_of(holder)
        why = "is stopped (SIGSTOP)" if state == "T" else "does not answer"
        remedy = f"kill -CONT {holder}" if state == "T" else "`agentctl daemon logs`; `agentctl daemon restart --kill`"
        yield Finding("daemon", ERROR, f"pid {holder} {why}", remedy)
    else:
        said = patient.silence.message if patient.silence is not None else "none answers"
        yield Finding("daemon", ERROR, f"It does not run: {said}", "agentctl daemon start")


def version(patient: Patient) -> Iterator[Finding]:
    """One release of everything."""
    if patient.status is None:
        return
    running = patient.status.daemon
    if running != VERSION:
        yield Finding(
            "version", WARNING, f"The daemon is {running}, this agentctl {VERSION}", "agentctl daemon restart"
        )
    else:
        yield Finding("version", OK, VERSION)


def service(patient: Patient) -> Iterator[Finding]:
    """Who keeps it running."""
    environ = patient.environ
    installed = (systemd.unit_directory(environ) / systemd.SERVICE).exists()
    if not systemd.user_manager_runs(environ):
        remedy = "`agentctl daemon start` runs it in the background; nobody restarts it after a crash."
        yield Finding("service", NOTICE, "No systemd of yours runs here", remedy)
        return
    if not installed:
        yield Finding("service", NOTICE, "It is not installed: it does not start by itself", "agentctl daemon install")
        return
    state = systemd.unit_state(environ, systemd.SERVICE)
    if state == "failed":
        yield Finding(
            "service",
            ERROR,
            f"{systemd.SERVICE} has failed",
            f"`agentctl daemon logs`, then systemctl --user reset-failed {systemd.SERVICE}",
        )
    elif patient.status is not None and systemd.main_pid(environ) != patient.status.pid:
        yield Finding(
            "service",
            WARNING,
            f"It is installed, but pid {patient.status.pid} was started otherwise: nobody restarts it after a crash",
            "agentctl daemon restart",
        )
    elif not systemd.lingers(_user(patient.uid)):
        remedy = "agentctl daemon install --linger"
        yield Finding("service", NOTICE, "It ends with your last login (no linger)", remedy)
    else:
        yield Finding("service", OK, f"{systemd.SERVICE} is {state}, and lingers")


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def stale_files(patient: Patient) -> Iterator[Finding]:
    """What dead daemons left. Only what no live one can own: the lock tells."""
    found = False
    if patient.status is None and lock_holder(patient.runtime_dir) is None:
        for path in [*_dead_sockets(patient), *_leftovers(patient.runtime_dir, ".agentd.sock.*")]:
            found = True
            yield _removable(patient, path, "of a daemon that is gone")
        for path in _leftovers(patient.state_dir, "*.tmp"):
            found = True
            yield _removable(patient, path, "half written by a daemon that is gone")
    if aside := _leftovers(patient.state_dir / "journal", "*broken*"):
        found = True
        yield _set_aside(aside)
    for name in counters.stale(patient.uid):
        found = True
        own = name == counters.name_of(patient.runtime_dir, patient.uid)
        yield Finding(
            "stale files",
            WARNING if own else NOTICE,
            f"/dev/shm/{name}: counters of a dead daemon{'' if own else ' in another directory'}",
            f"rm /dev/shm/{name}",
            partial(_remove_segment, name, patient.uid),
        )
    if not found:
        yield Finding("stale files", OK, "none")


def _set_aside(paths: list[Path]) -> Finding:
    """Nothing needs them, but only people can know that they do not either."""
    takes = show.size(sum(path.lstat().st_size for path in paths))
    where, files = paths[0].parent, show.count(len(paths), "file")
    names = " ".join(path.name for path in paths[:3]) + (" …" if len(paths) > 3 else "")
    what = f"{where} has {files} of what was found damaged, or was never synced: {names}, {takes}"
    return Finding("stale files", NOTICE, what, f"Look at what went wrong, then: rm {where}/*broken*")


def _dead_sockets(patient: Patient) -> list[Path]:
    """The socket in the daemon's own place, if nobody listens on it. One named elsewhere may be anybody's."""
    path = patient.socket
    if path != patient.runtime_dir / "agentd.sock" or not _is_deaf(path):
        return []
    return [path]


def _is_deaf(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _leftovers(directory: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in directory.glob(pattern) if path.lstat().st_uid == os.getuid())
    except OSError:
        return []


def _removable(patient: Patient, path: Path, what: str) -> Finding:
    return Finding("stale files", WARNING, f"{path}: {what}", f"rm {path}", partial(_remove, patient.runtime_dir, path))


def _remove(runtime_dir: Path, path: Path) -> str:
    """Under the lock, so that no daemon begins to live here meanwhile."""
    try:
        lock = lock_directory(runtime_dir)
    except AgentdError as error:
        return f"left {path}: {error.message}"
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _is_deaf(path):
            return f"left {path}: somebody listens on it"
        path.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return f"removed {path}"


def _remove_segment(name: str, uid: int) -> str:
    gone = counters.remove_stale(name, uid)
    return f"removed /dev/shm/{name}" if gone else f"left /dev/shm/{name}: a daemon has it by now"


def agents(patient: Patient) -> Iterator[Finding]:
    """Who is in trouble, or makes it."""
    found = False
    for agent in patient.agents:
        stopped = agent.pid is not None and agent.live and counters.state_of(agent.pid) == "T"
        trouble = ", ".join(part for part in ("its process is stopped" if stopped else "", agent.trouble) if part)
        if not trouble:
            continue
        found = True
        who = f"{agent.name} (pid {agent.pid}, {agent.command or '?'})" if agent.pid else agent.name
        if stopped:
            remedy = f"kill -CONT {agent.pid}"
        elif agent.limited:
            remedy = f"See what pid {agent.pid} is at; [rate] in the configuration bounds it."
        elif agent.dead:
            remedy = f"agentctl dead list {agent.name}"
        else:
            remedy = f"agentctl inbox {agent.name}"
        yield Finding("agents", WARNING, f"{who}: {trouble}", remedy)
    if not found and patient.status is not None:
        yield Finding("agents", OK, f"{patient.status.live} live of {patient.status.agents}, none in trouble")


def unread_mail(patient: Patient) -> Iterator[Finding]:
    """Mail that nobody comes for."""
    for agent in patient.agents:
        if agent.live or not agent.waiting or agent.oldest_s is None or agent.oldest_s < _OLD_MAIL_S:
            continue
        severity = WARNING if agent.oldest_s >= _VERY_OLD_MAIL_S else NOTICE
        many = show.count(agent.waiting, "message")
        what = "is absent"
        if agent.name.startswith(SUBSCRIPTION):
            what = "is a subscription that nobody reads"
        yield Finding(
            "unread mail",
            severity,
            f"{agent.name} {what}; {many}, the oldest for {show.span(agent.oldest_s)}",
            _way_to_mail(agent.name),
        )


def _way_to_mail(name: str) -> str:
    """What to do about mail that waits there."""
    if name.startswith(SUBSCRIPTION):
        return f"agentctl inbox {name}, or agentctl unsubscribe {name.removeprefix(SUBSCRIPTION)}"
    return f"agentctl recv --as {name}, or agentctl inbox {name}"


def journal(patient: Patient) -> Iterator[Finding]:
    """Room for what is kept, and who holds it."""
    disk = patient.status.disk if patient.status is not None else None
    if disk is None:
        return
    takes = f"It takes {show.size(disk.bytes)} of {show.size(disk.max_bytes)}"
    holder = ""
    remedy = "journal.max_bytes and journal.min_free_bytes in the configuration set the limits."
    if disk.holder is not None:
        many = show.count(disk.holder_messages, "message")
        holder = f"; the oldest of what is kept is {disk.holder}'s, which has {many}"
        remedy = f"{_way_to_mail(disk.holder)}; agentctl dead list {disk.holder}"
    if disk.full:
        yield Finding("journal", ERROR, f"Mail that has to be kept is refused: {disk.full}{holder}", remedy)
    elif disk.holder is not None and disk.bytes > disk.max_bytes // 2:
        yield Finding("journal", WARNING, f"{takes}{holder}", remedy)
    else:
        yield Finding("journal", OK, takes)


def promises(patient: Patient) -> Iterator[Finding]:
    """What a crash would cost."""
    if patient.status is not None:
        yield Finding(
            "persistence", NOTICE, patient.status.persistence, "send --durable keeps what live agents are sent, too."
        )


def crowds(patient: Patient) -> Iterator[Finding]:
    """Connections that were turned away."""
    if patient.stats is not None and patient.stats.turned_away:
        yield Finding(
            "connections",
            WARNING,
            f"{show.count(patient.stats.turned_away, 'connection')} turned away since the start",
            "`agentctl daemon logs` says why; [connections] in the configuration has the limits.",
        )


DAEMON_CHECKS: Final[tuple[Callable[[Patient], Iterator[Finding]], ...]] = (
    daemon,
    version,
    service,
    stale_files,
    agents,
    unread_mail,
    journal,
    promises,
    crowds,
)

__all__ = ["DAEMON_CHECKS", "ERROR"]
