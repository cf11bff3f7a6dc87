"""`agentctl daemon`: start, stop, look after the daemon. systemd does it where agentd is installed into a user manager
that runs; elsewhere, as in containers, it is a process in the background of nobody's terminal."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentd.cli import show
from agentd.cli.call import Call, Verbs, option, verb
from agentd.cli.installing import install, uninstall

if TYPE_CHECKING:
    from agentd.wire.messages import StatusView

#: The daemon may take [shutdown] drain_s to finish what is out, 5 s unless configured.
_STOP_S = 30.0
#: systemd kills it itself after TimeoutStopSec= of the unit.
_UNIT_S = 45.0


@verb("agentctl daemon start")
def start(call: Call) -> int:
    """Start the daemon, or say that it runs; comes back when it answers."""
    return _start(call)


def _start(call: Call) -> int:
    from agentd.host import background, systemd

    runtime, state = _directories()
    view = _answer(call)
    if view is not None:  # whoever runs it; under systemd a second start would only fight for its socket
        began = False
    elif _installed():
        began = True
        systemd.systemctl(os.environ, "start", systemd.SOCKET, systemd.SERVICE)
        with call.connect() as me:
            view = me.status()
    else:
        view, began = background.start(os.environ, runtime, state, lambda: _answer(call), call.patience_s)
    if call.as_json:
        show.emit({"started": began, "pid": view.pid, "socket": view.socket, "by": _by(view.pid), "log": _log(view)})
    else:
        show.say(f"agentd {'started' if began else 'runs already'}: pid {view.pid}, socket {view.socket}")
    return 0


@verb("agentctl daemon stop\nagentctl daemon stop --timeout 60s\nagentctl daemon stop --kill --timeout 5s")
@option("--kill", is_flag=True, help="Kill it when it has not ended in time: what is only in its memory is lost.")
def stop(call: Call, kill: bool) -> int:
    """Stop the daemon and wait until it is gone. It finishes what is out, and keeps the rest for its next start."""
    pid = _stop(call, kill)
    if call.as_json:
        show.emit({"stopped": pid is not None, "pid": pid})
    else:
        show.say("agentd does not run" if pid is None else f"agentd stopped: pid {pid} is gone")
    return 0


def _stop(call: Call, kill: bool) -> int | None:
    from agentd.host import background, systemd
    from agentd.host.background import log_path
    from agentd.host.directories import lock_holder
    from agentd.wire.errors import ConfigError

    runtime, state = _directories()
    holder = lock_holder(runtime)
    if _installed() and (holder is None or systemd.main_pid(os.environ) == holder):
        # The socket too, or the next caller would start it again.
        try:
            systemd.systemctl(os.environ, "stop", systemd.SOCKET, systemd.SERVICE, timeout_s=call.timeout or _UNIT_S)
        except ConfigError:
            if not kill:
                raise
            systemd.systemctl(os.environ, "kill", "--signal=KILL", systemd.SERVICE)
        return holder
    began = time.time()
    pid = background.stop(runtime, _STOP_S if call.timeout is None else call.timeout, kill=kill)
    if pid is not None and not kill and not _wrote_down(state, began):
        raise OSError(errno.EIO, f"agentd, pid {pid}, ended without writing its mail down", str(log_path(state)))
    return pid


def _wrote_down(state: Path, began: float) -> bool:
    """Whether the daemon that ended has written its checkpoint, as it does at an orderly stop."""
    try:
        return (state / "journal" / "checkpoint").stat().st_mtime >= began - 1
    except OSError:
        return False


@verb("agentctl daemon restart")
@option("--kill", is_flag=True, help="Kill it when it has not ended in time: what is only in its memory is lost.")
def restart(call: Call, kill: bool) -> int:
    """Stop the daemon, if it runs, and start it. Clients reconnect by themselves."""
    _stop(call, kill)
    return _start(call)


@verb("agentctl daemon logs\nagentctl daemon logs --lines 100 --follow")
@option("--lines", "-n", type=click.IntRange(0), default=50, metavar="N", help="So many of the last lines; 50.")
@option("--follow", "-f", is_flag=True, help="And what comes, until Ctrl-C.")
def logs(call: Call, lines: int, follow: bool) -> int:
    """Show what the daemon logged: systemd's journal, or the file of a daemon in the background."""
    from agentd.host import systemd
    from agentd.host.background import log_path

    if _installed():
        command = ["journalctl", "--user", "--unit", systemd.SERVICE, "--lines", str(lines)] + ["--follow"] * follow
    else:
        log = log_path(_directories()[1])
        if not log.exists():
            show.warn(
                f"agentctl: there is no {log}: no daemon was started in the background here",
                "One in the foreground logs to its own terminal; `agentctl daemon start` starts one with a log.",
            )
            return 1
        command = ["tail", "-n", str(lines), *["-F"] * follow, "--", str(log)]
    os.execvp(command[0], command)


@verb("agentctl daemon status\nagentctl daemon status --json")
def status(call: Call) -> int:
    """Say whether the daemon runs, who runs it, and where its log and directories are. Exit 69 when it does not run."""
    from agentd.host import systemd
    from agentd.host.directories import lock_holder

    runtime, state = _directories()
    holder = lock_holder(runtime)
    view = _answer(call)
    pid = view.pid if view is not None else holder
    rows: dict[str, Any] = {
        "running": view is not None,
        "pid": pid,
        "by": "" if pid is None else _by(pid),
        "installed": _installed(),
        "unit": systemd.unit_state(os.environ, systemd.SERVICE),
        "log": _log(view),
        "runtime_dir": str(runtime),
        "state_dir": str(state),
    }
    if call.as_json:
        show.emit(rows)
    else:
        how = "runs" if view is not None else "does not run" if pid is None else "does not answer"
        what = f"pid {pid}, {rows['by']}" if pid is not None else "`agentctl daemon start` starts it"
        text = [("agentd", f"{how}: {what}"), ("log", rows["log"]), ("sockets", str(runtime)), ("state", str(state))]
        show.say(*show.pairs(text))
    return 0 if view is not None else 69


def _directories() -> tuple[Path, Path]:
    """Where the daemon of this environment has its sockets and its state."""
    from agentd.wire.paths import runtime_dir, state_dir

    return Path(runtime_dir(os.environ, os.getuid())).absolute(), Path(state_dir(os.environ)).absolute()


def _installed() -> bool:
    """Whether systemd runs agentd for this environment: with other directories named, it is another daemon."""
    from agentd.host import systemd

    if os.environ.get("AGENTD_RUNTIME_DIR") or os.environ.get("AGENTD_SOCKET"):
        return False
    there = (systemd.unit_directory(os.environ) / systemd.SERVICE).exists()
    return there and systemd.user_manager_runs(os.environ)


def _by(pid: int) -> str:
    """Who runs the daemon."""
    from agentd.host import systemd

    if _installed() and systemd.main_pid(os.environ) == pid:
        return "systemd"
    return "in the background" if _has_no_terminal(pid) else "in the foreground"


def _has_no_terminal(pid: int) -> bool:
    """Started by `agentctl daemon start`: it leads a session of its own."""
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def _log(view: StatusView | None) -> str:
    from agentd.host import systemd
    from agentd.host.background import log_path

    if _installed():
        return f"journalctl --user -u {systemd.SERVICE}"
    if view is not None and not _has_no_terminal(view.pid):
        return "its own stderr"
    return str(log_path(_directories()[1]))


def _answer(call: Call) -> StatusView | None:
    """What the daemon says of itself; None when none answers, or it is about to stop."""
    from agentd.wire.errors import Timeout, Unreachable
    from agentd_client.blocking import connect

    try:
        with connect(None, take=False, timeout=min(call.patience_s, 2.0)) as me:
            view = me.status()
    except (Unreachable, Timeout):
        return None
    return None if view.draining else view


daemon = Verbs(
    "daemon",
    help="Start and stop the daemon, see its log, let systemd run it.",
    example="agentctl daemon start\nagentctl daemon install --linger",
    default="status",
    commands={
        "start": start,
        "stop": stop,
        "restart": restart,
        "status": status,
        "logs": logs,
        "install": install,
        "uninstall": uninstall,
    },
)
