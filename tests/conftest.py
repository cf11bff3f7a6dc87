"""`daemon` starts `python -m agentd.daemon` in a directory of the test, ends it by SIGTERM, and fails the test when it
did not go quietly. `agentctl` runs the command line against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon
from raw import Opener


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon."""
    one = Daemon(tmp_path)
    one.start()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def agentctl(daemon: Daemon) -> Iterator[Agentctl]:
    """agentctl against that daemon."""
    run = Agentctl(daemon.env, daemon.directory)
    try:
        yield run
    finally:
        run.close()


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[Opener]:
    """Opens connections to that daemon without any client."""
    opener = Opener(daemon.socket)
    try:
        yield opener
    finally:
        opener.close()
