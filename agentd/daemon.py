"""agentd: builds every object in order, serves, closes them in reverse. No logic of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

from agentd.host.activation import check_same_place, inherited_sockets
from agentd.host.arguments import VERSION, Settings, parse_arguments
from agentd.host.counters import Counters
from agentd.host.directories import lock_directory, prepare_directory
from agentd.host.logs import finish_logging, start_logging
from agentd.host.notify import Notifier, watchdog_s
from agentd.host.process import connections_for, files_for, raise_file_limit
from agentd.host.topology import read_topology
from agentd.hub.hub import Hub
from agentd.lanes.choice import Lanes
from agentd.lanes.closed import ClosedLane
from agentd.lanes.direct import DirectLane
from agentd.lanes.low import LowLane
from agentd.lanes.normal import NormalLane
from agentd.server.alertness import Alertness
from agentd.server.direct import Direct
from agentd.server.grants import GrantsDoor
from agentd.server.journal import Journal
from agentd.server.listener import bind_socket, inode_of, remove_socket
from agentd.server.server import Server
from agentd.server.shapes import how_submitted, no_shared_memory
from agentd.server.spare_memory import SpareMemory
from agentd.server.supervision import Supervision
from agentd.wire.errors import AgentdError, LimitReached
from agentd.wire.messages import Priority
from agentd.wire.paths import grants_path, is_shared_place

log = logging.getLogger("agentd")

_NOT_BUILT = "this version does not have it"
_IO_ERROR = 74
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """The daemon, in the foreground."""
    try:
        return _run(parse_arguments(sys.argv[1:], os.environ, os.getuid()))
    except AgentdError as error:
        sys.stderr.write(f"agentd: {error}\n")
        return error.exit_status
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        sys.stderr.write(f"agentd: {what}\n")
        return _IO_ERROR
    finally:
        finish_logging()


def _run(settings: Settings) -> int:
    config = settings.config
    os.umask(0o077)
    start_logging(config.log.level, os.environ, settings.log_file, config.log.max_file_bytes)
    for directory in (settings.runtime_dir, settings.state_dir):
        prepare_directory(directory)
    locks = [lock_directory(path) for path in dict.fromkeys((settings.runtime_dir, settings.state_dir))]
    wanted = config.connections.max_connections
    files = raise_file_limit(files_for(wanted))
    max_connections, max_attached = connections_for(files, wanted)
    if not max_connections:
        raise LimitReached(
            f"A limit of {files} open files leaves none for a connection", "Raise it: ulimit -n, or LimitNOFILE=."
        )

    hub = Hub(config, first_id=(time.time_ns() << 32) // 10**9)  # seconds and their fraction, 32 bits each
    no_memory = no_shared_memory(config.direct.enabled)
    critical = DirectLane(Priority.CRITICAL, hub, no_memory)
    high = DirectLane(Priority.HIGH, hub, no_memory, how_submitted(config.high.io_uring))
    journal = Journal(config.journal, settings.state_dir)
    lanes = Lanes(
        (
            critical,
            high,
            NormalLane(hub.router),
            LowLane(hub.router, lambda: journal.failed, config.journal.level),
            ClosedLane(Priority.BATCH, _NOT_BUILT),
        )
    )
    counters = Counters(settings.runtime_dir, os.getuid(), config.stats.max_agents)
    server = Server(config, hub, lanes, journal, settings.socket, max_connections, counters)
    server.measures.spare_memory = SpareMemory()
    if len(os.sched_getaffinity(0)) > 1:  # else whoever is to say the next thing needs this core
        server.alertness = Alertness(config.connections.spin_us, server.clock)
    notifier = Notifier(os.environ)
    if notifier:
        server.supervision = Supervision(notifier, watchdog_s(os.environ, os.getpid()), server.summary)
    inherited = inherited_sockets(os.environ, os.getpid())
    if inherited.main is not None:
        check_same_place(inherited.main, settings.socket)
    stops: list[int] = []  # signals that came before there was a loop to hear them
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda number, _: stops.append(number))
    sock = inherited.main or bind_socket(settings.socket)
    inode = inode_of(settings.socket) if inherited.main is None else None  # what we did not make stays
    grants = Path(grants_path(str(settings.socket)))
    grants_sock = inherited.grants or bind_socket(grants, socket.SOCK_SEQPACKET)
    grants_inode = inode_of(grants) if inherited.grants is None else None
    server.direct = Direct(server, (critical, high), grants, read_topology(os.environ), max_attached)
    door = GrantsDoor(server.direct, grants_sock)
    try:
        journal.restore(hub, server.now())
        _say_what_is(settings, journal, lanes, counters, max_connections, max_attached)
        gc.freeze()  # what is there now stays: the collector need not look at it again
        # Messages come and go without cycles. By default a few hundred more are enough for a search among all of them
        # that came since the last, which holds everybody up for half a millisecond.
        gc.set_threshold(10_000, 10, 10)
        uvloop.run(_serve(server, sock, door, stops))
    finally:
        inherited.close()
        counters.close()
        remove_socket(settings.socket, inode)
        remove_socket(grants, grants_inode)
        for lock in reversed(locks):
            os.close(lock)
    log.info("stopped")
    return 0


async def _serve(server: Server, sock: socket.socket, door: GrantsDoor, stops: list[int]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    if stops:
        stop.set()
    door.open(loop)
    try:
        await server.serve(sock, stop)
    finally:
        door.close()
        server.keep()  # while the loop still holds the signals: a second one must not cut this short


def _say_what_is(
    settings: Settings, journal: Journal, lanes: Lanes, counters: Counters, max_connections: int, max_attached: int
) -> None:
    if is_shared_place(str(settings.runtime_dir), os.getuid()):
        log.warning(
            "no XDG_RUNTIME_DIR: the socket lies in %s, which does not end with the login", settings.runtime_dir
        )
    log.info("agentd %s, pid %d, socket %s", VERSION, os.getpid(), settings.socket)
    log.info("Persistence: %s", journal.persistence)
    for lane in lanes.views():
        log.info("lane %s: %s", lane.lane.value, lane.reason if lane.open else f"unavailable, {lane.reason}")
    if counters.reason:
        log.warning("no counters in shared memory, `agentctl stats` has to ask: %s", counters.reason)
    if max_connections < settings.config.connections.max_connections:
        log.warning(
            "the limit of open files allows %d connections, %d are configured; %d can be attached to shared memory",
            max_connections,
            settings.config.connections.max_connections,
            max_attached,
        )


if __name__ == "__main__":
    sys.exit(main())
