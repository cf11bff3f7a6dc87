"""`daemon` starts `python -m agentd.daemon` in a directory of the test, ends it by SIGTERM, and fails the test when it
did not go quietly. `agentctl` runs the command line against it. `world` is one of those of the conformance suite."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import Daemon
from faces import Face, MemoryDaemon
from hypothesis import settings
from raw import Opener
from worlds import SETTINGS, DaemonWorld, World, make_world

from agentd_client import Priority, testing

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("agentd", deadline=None)
settings.load_profile("agentd")

# A shell script's `make test &` ignores Ctrl-C, and so would all that the tests start: some of it is interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """Those that were asked for so far: one daemon serves many behaviours."""
    with ExitStack() as stack:
        yield _Worlds(lambda kind: stack.enter_context(contextmanager(make_world)(kind, tmp_path_factory.mktemp(kind))))


class _Worlds(dict[str, World]):
    def __init__(self, make: Callable[[str], World]) -> None:
        self._make = make

    def __missing__(self, kind: str) -> World:
        world = self[kind] = self._make(kind)
        return world


@pytest.fixture(params=["hub", "binary", "json"])
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> Iterator[World]:
    """Each world in turn, empty."""
    yield worlds[request.param]
    _clean(worlds, request.param)


def _clean(worlds: dict[str, World], kind: str) -> None:
    """One behaviour that leaves something behind is one failure."""
    try:
        worlds[kind].clean()
    except BaseException:
        del worlds[kind]
        raise


@pytest.fixture(params=["hub", "binary", "json"])
def own_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each world in turn, for a behaviour that ends it."""
    with contextmanager(make_world)(request.param, tmp_path) as one:
        yield one
        one.close()


@pytest.fixture(params=["asyncio", "blocking", "asyncio-memory", "blocking-memory"])
def face(request: pytest.FixtureRequest, worlds: dict[str, World]) -> Iterator[Face]:
    """Each face of the client in turn, on a daemon without agents or mail and on the hub in memory."""
    kind, _, place = request.param.partition("-")
    if place:
        with testing.memory(*SETTINGS) as hub:
            yield Face(kind, hub)
        return
    world = worlds["binary"]
    assert isinstance(world, DaemonWorld)
    yield Face(kind, world.daemon.socket)
    _clean(worlds, "binary")


@pytest.fixture(params=["daemon", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon | MemoryDaemon]:
    """A daemon and a hub in memory in turn, each the test's own: to be stopped, killed, configured."""
    one = Daemon(tmp_path) if request.param == "daemon" else MemoryDaemon()
    one.start()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(params=["asyncio", "blocking"])
def own_face(request: pytest.FixtureRequest, place: Daemon | MemoryDaemon) -> Face:
    """Each face in turn, on the test's own `place`."""
    return Face(request.param, place.socket)


@pytest.fixture(params=["asyncio", "blocking"])
def daemon_face(request: pytest.FixtureRequest, daemon: Daemon) -> Face:
    """Each face in turn, on the test's own `daemon`."""
    return Face(request.param, daemon.socket)


@pytest.fixture(params=[Priority.CRITICAL, Priority.HIGH], ids=str)
def lane(request: pytest.FixtureRequest) -> Priority:
    """Each direct lane in turn: what goes from ring to ring is the same on both."""
    found: Priority = request.param
    return found
