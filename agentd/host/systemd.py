"""What this machine's systemd can do for this user, asked of its own tools; and agentd's units in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentd.wire.errors import ConfigError

SERVICE: Final = "agentd.service"
SOCKET: Final = "agentd.socket"
#: TimeoutStopSec= of the unit is less.
_PATIENCE_S: Final = 45.0


def unit_directory(environ: Mapping[str, str]) -> Path:
    """Where this user's own units lie."""
    chosen = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(chosen if os.path.isabs(chosen) else f"{home}/.config", "systemd", "user")


def user_manager_runs(environ: Mapping[str, str]) -> bool:
    """Whether a systemd of this user's runs, so that it could run agentd. In a container there mostly is none."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return bool(runtime) and os.path.exists(f"{runtime}/systemd/private") and shutil.which("systemctl") is not None


def main_pid(environ: Mapping[str, str]) -> int:
    """The process of agentd.service; 0 when it does not run, or nobody could run it."""
    if not user_manager_runs(environ):
        return 0
    done = _run(["systemctl", "--user", "show", "--property=MainPID", "--value", SERVICE], environ)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else 0


def unit_state(environ: Mapping[str, str], unit: str) -> str:
    """`active`, `failed`, `inactive`; empty without a user manager."""
    if not user_manager_runs(environ):
        return ""
    return _run(["systemctl", "--user", "is-active", unit], environ).stdout.strip()


def systemctl(environ: Mapping[str, str], *words: str, timeout_s: float = _PATIENCE_S) -> None:
    """`systemctl --user ...`; ConfigError with what it said when it fails, or does not end in time."""
    _must(["systemctl", "--user", *words], environ, timeout_s)


def lingers(user: str) -> bool:
    """Whether this user's manager runs without a login. Without it agentd ends with the last one."""
    try:
        done = _run(["loginctl", "show-user", user, "--property=Linger", "--value"], os.environ)
        said = done.stdout.strip() if done.returncode == 0 else ""
    except ConfigError:
        said = ""
    return said == "yes" if said else os.path.exists(f"/var/lib/systemd/linger/{user}")


def set_linger(environ: Mapping[str, str], user: str, on: bool) -> None:
    """Switch it; ConfigError where that is not allowed."""
    _must(["loginctl", "enable-linger" if on else "disable-linger", user], environ)


def _must(command: list[str], environ: Mapping[str, str], timeout_s: float = _PATIENCE_S) -> None:
    done = _run(command, environ, timeout_s)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ConfigError(
            f"`{' '.join(command)}` failed: {said[-1] if said else f'exit {done.returncode}'}",
            f"`systemctl --user status {SERVICE}` and `journalctl --user -u {SERVICE}` tell more.",
        )


def _run(
    command: list[str], environ: Mapping[str, str], timeout_s: float = _PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"`{' '.join(command)}` did not run: {error}", "Is systemd in order?") from None
