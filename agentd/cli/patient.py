"""What doctor knows before it judges: the environment's paths, the machine, and the daemon's own word if it answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from agentd.host.machine import Machine, examine
from agentd.wire.errors import AgentdError, ConfigError, Timeout, Unreachable
from agentd.wire.paths import runtime_dir, socket_path, state_dir

if TYPE_CHECKING:
    from agentd.wire.messages import AgentView, StatsView, StatusView

#: A daemon that takes longer to say how it is is in trouble itself.
_PATIENCE_S: Final = 0.7

OK: Final = "ok"
NOTICE: Final = "notice"  # good to know; nothing is wrong
WARNING: Final = "warning"  # something will go wrong, or goes wrong for somebody
ERROR: Final = "error"  # agentd does not work
SEVERITIES: Final = (ERROR, WARNING, NOTICE, OK)


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str
    severity: str
    what: str
    remedy: str = ""
    fix: Callable[[], str] | None = None  # does the remedy where that is safe; says what it did


class Patient(NamedTuple):
    """All that the checks look at."""

    environ: Mapping[str, str]
    uid: int
    runtime_dir: Path
    state_dir: Path
    socket: Path
    machine: Machine
    status: StatusView | None = None
    stats: StatsView | None = None
    agents: tuple[AgentView, ...] = ()
    silence: AgentdError | None = None  # why the daemon did not answer

    @property
    def directories(self) -> dict[str, Path]:
        """The daemon's own."""
        return {"AGENTD_RUNTIME_DIR": self.runtime_dir, "AGENTD_STATE_DIR": self.state_dir}


def examine_patient(environ: Mapping[str, str]) -> Patient:
    """Look at everything once."""
    uid = os.getuid()
    runtime, state = Path(runtime_dir(environ, uid)).absolute(), Path(state_dir(environ)).absolute()
    try:
        path = Path(socket_path(environ, uid))
    except ConfigError:
        path = Path(environ.get("AGENTD_SOCKET") or runtime / "agentd.sock")
    patient = Patient(environ, uid, runtime, state, path, examine(environ, (runtime, state)))
    return _ask(patient)


def _ask(patient: Patient) -> Patient:
    from agentd_client.blocking import connect

    try:
        with connect(None, take=False, timeout=_PATIENCE_S) as me:
            return patient._replace(status=me.status(), stats=me.stats(agents=True), agents=tuple(me.agents().agents))
    except (Unreachable, Timeout) as error:
        return patient._replace(silence=error)
    except AgentdError as error:
        return patient._replace(silence=error)
