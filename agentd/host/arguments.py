"""The command line of `agentd`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agentd.host.config import Config, load_config
from agentd.wire.paths import check_socket_path, config_path, runtime_dir, state_dir

VERSION = "0.1.0"

_EPILOG = """examples:
  agentd
  agentd --set inbox.max_messages=1000 --set log.level=debug
  AGENTD_RUNTIME_DIR=/tmp/try AGENTD_STATE_DIR=/tmp/try/state agentd

It runs in the foreground until SIGTERM or Ctrl-C, then delivers or keeps what it accepted and exits 0.
"""


class Settings(NamedTuple):
    """What the daemon is started with."""

    config: Config
    origins: dict[str, str]
    runtime_dir: Path
    state_dir: Path
    socket: Path
    log_file: Path | None


def parse_arguments(arguments: Sequence[str], environ: Mapping[str, str], uid: int) -> Settings:
    """Flags over environment over file over defaults."""
    parser = argparse.ArgumentParser(
        prog="agentd",
        description="The daemon through which local agents message and coordinate.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument("--runtime-dir", type=Path, metavar="DIR", help="directory of the socket")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="directory of what outlives the daemon")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, such as inbox.max_messages=100"
    )
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="log there, bounded, not to stderr")
    parser.add_argument("--version", action="version", version=f"agentd {VERSION}")
    given = parser.parse_args(arguments)
    required = given.config is not None or bool(environ.get("AGENTD_CONFIG"))
    config, origins = load_config(given.config or Path(config_path(environ)), environ, given.set, required=required)
    runtime = (given.runtime_dir or Path(runtime_dir(environ, uid))).absolute()
    chosen = environ.get("AGENTD_SOCKET") if given.runtime_dir is None else None
    return Settings(
        config,
        origins,
        runtime,
        (given.state_dir or Path(state_dir(environ))).absolute(),
        Path(check_socket_path(str(Path(chosen).absolute() if chosen else runtime / "agentd.sock"))),
        given.log_file,
    )
