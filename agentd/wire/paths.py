"""Where agentd lives on disk: every path is built here, for the daemon and for its clients alike.

Paths are str: importing pathlib would cost `agentctl` a tenth of its start.
"""

from __future__ import annotations

import os
import stat

from agentd.wire.errors import ConfigError

TYPE_CHECKING = False  # as typing has it; to import that would cost a completion a tenth of its time
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

#: sun_path holds 108 bytes with its final NUL.
MAX_SOCKET_PATH_BYTES: Final = 107


def runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """The directory of the socket: $AGENTD_RUNTIME_DIR, else $XDG_RUNTIME_DIR/agentd, else /run/user/UID/agentd if
    that is ours, else /tmp/agentd-UID (whoever uses the last verifies its owner: it can be squatted)."""
    if chosen := environ.get("AGENTD_RUNTIME_DIR"):
        return chosen
    if (chosen := environ.get("XDG_RUNTIME_DIR")) and os.path.isabs(chosen):
        return f"{chosen}/agentd"
    if _is_ours(f"/run/user/{uid}", uid):
        return f"/run/user/{uid}/agentd"
    return f"/tmp/agentd-{uid}"


def is_shared_place(path: str, uid: int) -> bool:
    """Whether this is the last resort, in a directory that everybody writes."""
    return path == f"/tmp/agentd-{uid}"


def _is_ours(path: str, uid: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def socket_path(environ: Mapping[str, str], uid: int) -> str:
    """The daemon's socket: $AGENTD_SOCKET, else agentd.sock in the runtime directory."""
    return check_socket_path(environ.get("AGENTD_SOCKET") or f"{runtime_dir(environ, uid)}/agentd.sock")


def grants_path(socket: str) -> str:
    """The grants socket, beside the main one."""
    return f"{os.path.dirname(socket) or '.'}/agentd.grants"


def check_socket_path(path: str) -> str:
    """`path` if the kernel can bind and connect it, else ConfigError."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"The socket's path is longer than {MAX_SOCKET_PATH_BYTES} bytes: {path}",
            "Set AGENTD_RUNTIME_DIR to a shorter directory.",
        )
    return path


def state_dir(environ: Mapping[str, str]) -> str:
    """Where names and mail outlive the daemon: $AGENTD_STATE_DIR, else agentd in $XDG_STATE_HOME."""
    if chosen := environ.get("AGENTD_STATE_DIR"):
        return chosen
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") + "/agentd"


def journal_dir(environ: Mapping[str, str]) -> str:
    """Where the daemon's journal is: in the state directory."""
    return f"{state_dir(environ)}/journal"


def config_path(environ: Mapping[str, str]) -> str:
    """The configuration file: $AGENTD_CONFIG, else agentd/config.toml in $XDG_CONFIG_HOME."""
    if chosen := environ.get("AGENTD_CONFIG"):
        return chosen
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") + "/agentd/config.toml"


def _xdg(environ: Mapping[str, str], name: str, default: str) -> str:
    chosen = environ.get(name)
    if chosen and os.path.isabs(chosen):  # the specification: relative paths are to be ignored
        return chosen
    return f"{environ.get('HOME') or os.path.expanduser('~')}/{default}"
