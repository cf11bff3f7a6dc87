"""`agentctl daemon install` and `uninstall`: agentd as a service of this user's systemd, and back to what was before.

What was done is written down beside the mail; uninstall undoes that, and nothing that somebody else did.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from agentd.cli import show
from agentd.cli.call import Call, option, verb
from agentd.host import systemd
from agentd.host.directories import lock_holder, prepare_directory
from agentd.wire.errors import ConfigError, NotPermitted

_UNITS: Final = (systemd.SOCKET, systemd.SERVICE)
_RECORD: Final = "installed.json"


@dataclass
class Installed:
    """What install did."""

    files: dict[str, str] = field(default_factory=dict)  # path: digest of what was written
    made_directories: list[str] = field(default_factory=list)
    enabled: bool = False
    lingering: bool = False  # whether we switched it on


@verb("agentctl daemon install\nagentctl daemon install --linger")
@option("--linger", is_flag=True, help="Keep your systemd running after you log out, too (loginctl enable-linger).")
def install(call: Call, linger: bool) -> int:
    """Let your systemd run the daemon: at login, when somebody connects, and again when it crashed.

    Writes the user units, says where, and remembers what it did for `agentctl daemon uninstall`.
    """
    from agentd.wire.paths import runtime_dir, state_dir

    state = Path(state_dir(os.environ)).absolute()
    prepare_directory(state)
    done = _read(state) or Installed()
    directory = systemd.unit_directory(os.environ)
    _check_foreign(directory, done)
    for parent in [directory, *directory.parents]:
        if not parent.exists():
            done.made_directories.append(str(parent))
    units = {directory / name: _unit(name, state) for name in _UNITS}
    done.files |= {str(path): _digest(data) for path, data in units.items()}
    _write(state, done)  # before anything is done: a half-done install can be undone
    directory.mkdir(parents=True, exist_ok=True)
    for path, data in units.items():
        _replace(path, data)
    runs = systemd.user_manager_runs(os.environ)
    handed_over = True
    if runs:
        systemd.systemctl(os.environ, "daemon-reload")
        done.enabled = True
        _write(state, done)
        # Not beside a daemon that runs already: systemd would take its socket away from it.
        now = ["--now"] if lock_holder(Path(runtime_dir(os.environ, os.getuid())).absolute()) is None else []
        systemd.systemctl(os.environ, "enable", *now, *_UNITS)
        handed_over = bool(now)
    if linger and not systemd.lingers(_user()):
        systemd.set_linger(os.environ, _user(), True)
        done.lingering = True
        _write(state, done)
    _report(call, done, runs, linger, handed_over)
    return 0


def _check_foreign(directory: Path, done: Installed) -> None:
    for name in _UNITS:
        path = directory / name
        if path.exists() and done.files.get(str(path)) != _digest(path.read_bytes()):
            raise NotPermitted(
                f"{path} is there and was not written by this command, or was changed since",
                "Move it away first; settings of your own belong into `systemctl --user edit agentd.service`.",
            )


def _unit(name: str, state: Path) -> bytes:
    """The unit with this installation's paths in it."""
    import agentd

    text = (Path(agentd.__path__[0]) / "systemd" / "user" / name).read_text()
    beside = [str(Path(path).absolute().with_name("agentd")) for path in (sys.argv[0], sys.executable)]
    found = next((path for path in beside if os.access(path, os.X_OK)), None) or shutil.which("agentd")
    if found is None:
        raise ConfigError("The program agentd is not beside agentctl, and not on PATH", "Install agentd with pip.")
    for mark, path in (("@AGENTD@", found), ("@STATE@", str(state))):
        if any(char in path for char in '"\\\n'):
            raise ConfigError(f"A unit can't name {path!r}", "Install agentd into a path without quotes.")
        text = text.replace(mark, path.replace("%", "%%"))
    return text.encode()


def _report(call: Call, done: Installed, runs: bool, linger: bool, handed_over: bool) -> None:
    lingers = systemd.lingers(_user())
    if call.as_json:
        show.emit({"files": sorted(done.files), "enabled": done.enabled, "lingers": lingers})
        return
    show.say(*(f"wrote {path}" for path in sorted(done.files)))
    if not runs:
        show.say("No systemd of yours runs here: `agentctl daemon start` runs the daemon in the background instead.")
    elif not handed_over:
        show.say("A daemon runs already: `agentctl daemon restart` hands over to systemd.")
    if runs and not lingers and not linger:
        show.say("It ends with your last login; `agentctl daemon install --linger` keeps it running.")


@verb("agentctl daemon uninstall")
def uninstall(call: Call) -> int:
    """Undo what install did: stop and disable the units, remove the files it wrote, and its linger."""
    from agentd.wire.paths import state_dir

    state = Path(state_dir(os.environ)).absolute()
    done = _read(state)
    if done is None:
        if call.as_json:
            show.emit({"removed": [], "kept": []})
        else:
            show.say(f"Nothing was installed: there is no {state / _RECORD}")
        return 0
    if done.enabled and systemd.user_manager_runs(os.environ):
        systemd.systemctl(os.environ, "disable", "--now", *_UNITS)
    removed, kept = _remove(done)
    if systemd.user_manager_runs(os.environ):
        systemd.systemctl(os.environ, "daemon-reload")
    if done.lingering and systemd.lingers(_user()):
        systemd.set_linger(os.environ, _user(), False)
    (state / _RECORD).unlink(missing_ok=True)
    if call.as_json:
        show.emit({"removed": removed, "kept": kept})
    else:
        show.say(*(f"removed {path}" for path in removed))
        show.warn(*(f"left {path}: it was changed since" for path in kept))
    return 0


def _remove(done: Installed) -> tuple[list[str], list[str]]:
    removed, kept = [], []
    for path, digest in done.files.items():
        if not os.path.exists(path):
            continue
        if _digest(Path(path).read_bytes()) == digest:
            os.unlink(path)
            removed.append(path)
        else:
            kept.append(path)
    for made in done.made_directories:  # the innermost first; what holds something else stays
        try:
            os.rmdir(made)
        except OSError:
            break
    return removed, kept


def _read(state: Path) -> Installed | None:
    try:
        return Installed(**json.loads((state / _RECORD).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{state / _RECORD} can't be read: {error}", "Remove it and the units it names.") from None


def _write(state: Path, done: Installed) -> None:
    _replace(state / _RECORD, json.dumps(asdict(done)).encode())


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        making.write_bytes(data)
        making.rename(path)
    except OSError:
        making.unlink(missing_ok=True)
        raise


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
