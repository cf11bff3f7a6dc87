"""The daemon under a service manager: the sockets it is passed, what it says and when, and what it says no more."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Agentctl
from daemons import PATIENCE_S, Daemon, wait_until

ACTIVATE = shutil.which("systemd-socket-activate")
#: Passes the sockets at the paths in argv[1] and argv[2] on to the command behind them, as systemd does.
PASS_ON = """
import os, socket, sys
stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); stream.bind(sys.argv[1]); stream.listen()
packet = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); packet.bind(sys.argv[2]); packet.listen()
assert (stream.fileno(), packet.fileno()) == (3, 4)
for sock in (stream, packet): os.set_inheritable(sock.fileno(), True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[3], "LISTEN_FDNAMES": "agentd:agentd"}
os.execv(sys.executable, [sys.executable, "-P", "-m", "agentd.daemon"])
"""


class Manager:
    """The service manager's ear."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(PATIENCE_S)

    def hear(self) -> list[str]:
        """The next datagram's lines."""
        return self._socket.recv(4096).decode().splitlines()

    def hear_until(self, line: str) -> list[list[str]]:
        """Everything up to the datagram that has this line."""
        heard = [self.hear()]
        while line not in heard[-1]:
            heard.append(self.hear())
        return heard

    def nothing_for(self, seconds: float) -> bool:
        """Whether all is silent for so long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def supervised(daemon: Daemon, manager: Manager, tmp_path: Path) -> Daemon:
    """A daemon that runs under `manager`, without a watchdog."""
    daemon.stop()
    daemon.env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    daemon.start()
    return daemon


def test_ready_when_clients_can_connect(supervised: Daemon, manager: Manager) -> None:
    assert manager.hear() == ["READY=1", "STATUS=0 agents, 0 waiting, 0 held"]


def test_status_follows_what_happens(supervised: Daemon, manager: Manager, agentctl: Agentctl) -> None:
    manager.hear_until("READY=1")
    agentctl("send", "nobody-yet", "hi", "--allow-absent", status=0)
    assert manager.hear() == ["STATUS=0 agents, 1 waiting, 0 held"]
    id = agentctl("recv", "--hold", "10m", "--json", name="nobody-yet", status=0).json["id"]
    agentctl("reject", id, name="nobody-yet", status=0)
    manager.hear_until("STATUS=1 dead letters, 0 agents, 0 waiting, 0 held")


def test_stopping_is_said_first(supervised: Daemon, manager: Manager) -> None:
    manager.hear_until("READY=1")
    supervised.stop()
    assert manager.hear_until("STOPPING=1")
    supervised.start()


def test_a_manager_that_went_away_harms_nothing(supervised: Daemon, manager: Manager, agentctl: Agentctl) -> None:
    manager.hear_until("READY=1")
    manager.close()
    agentctl("send", "nobody-yet", "hi", "--allow-absent", status=0)
    wait_until(lambda: "does not listen any more" in supervised.stderr)
    agentctl("send", "nobody-yet", "hi", status=0)


def test_abstract_socket(daemon: Daemon) -> None:
    name = f"agentd-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    daemon.stop()
    daemon.env["NOTIFY_SOCKET"] = f"@{name}"
    daemon.start()
    assert "READY=1" in manager.hear()
    manager.close()


def test_without_a_watchdog_there_is_no_timer(supervised: Daemon, manager: Manager) -> None:
    manager.hear_until("READY=1")
    wait_until(lambda: manager.nothing_for(0.3), "for the daemon's silence")
    assert manager.nothing_for(0.5)


@pytest.fixture
def watched(daemon: Daemon, manager: Manager, tmp_path: Path) -> Daemon:
    """A daemon whose manager wants to hear of it every 200 ms."""
    daemon.stop()
    daemon.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    daemon.start()
    return daemon


def test_watchdog_is_fed_from_the_loop(watched: Daemon, manager: Manager) -> None:
    manager.hear_until("READY=1")
    for _ in range(5):
        manager.hear_until("WATCHDOG=1")
    watched.stop()
    manager.hear_until("STOPPING=1")
    watched.start()


def test_blocked_loop_feeds_no_watchdog(watched: Daemon, manager: Manager) -> None:
    manager.hear_until("WATCHDOG=1")
    os.kill(watched.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: manager.nothing_for(1.0), "for a stopped daemon's silence")
    finally:
        os.kill(watched.pid, signal.SIGCONT)
    manager.hear_until("WATCHDOG=1")


def test_watchdog_of_another_process_is_not_ours(daemon: Daemon, manager: Manager, tmp_path: Path) -> None:
    daemon.stop()
    daemon.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
    daemon.start()
    assert manager.hear()[0] == "READY=1"
    wait_until(lambda: manager.nothing_for(0.5), "for silence")


@pytest.fixture
def activated(daemon: Daemon) -> Callable[[int], None]:
    """Starts the daemon with so many of the two sockets."""

    def start(count: int) -> None:
        daemon.stop()
        grants = daemon.runtime_dir / "agentd.grants"
        daemon.command = [sys.executable, "-c", PASS_ON, str(daemon.socket), str(grants), str(count)]
        daemon.start()

    return start


def test_both_sockets_are_taken_over_and_left_in_place(
    daemon: Daemon, activated: Callable[[int], None], agentctl: Agentctl
) -> None:
    activated(2)
    assert agentctl("status", "--json", status=0).json["pid"] == daemon.pid
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(str(daemon.runtime_dir / "agentd.grants"))
        caller.send(b"no token")
        assert caller.recv(4096) == b""  # it is ours to answer
    daemon.stop()
    assert daemon.socket.exists()  # the manager's, not ours
    daemon.socket.unlink()
    (daemon.runtime_dir / "agentd.grants").unlink()
    daemon.start()


def refused(daemon: Daemon, script: str, environ: dict[str, str] | None = None) -> str:
    """What the daemon says when it is started by `script`; exit 78."""
    daemon.stop()
    env = daemon.env | (environ or {})
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    daemon.start()
    assert done.returncode == 78, done
    return done.stderr


EXEC = "os.execv(sys.executable, [sys.executable, '-P', '-m', 'agentd.daemon'])"
GIVE = "import os, socket, sys; os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'};"


def test_what_is_no_socket_is_refused(daemon: Daemon) -> None:
    opened = "f = os.open('/dev/null', 0); os.dup2(f, 3); os.set_inheritable(3, True);"
    assert "Descriptor 3" in refused(daemon, GIVE + opened + EXEC)


def test_a_socket_that_does_not_listen_is_refused(daemon: Daemon) -> None:
    opened = "s = socket.socket(socket.AF_UNIX); os.set_inheritable(3, True);"
    assert "no listening Unix socket" in refused(daemon, GIVE + opened + EXEC)


def test_a_socket_where_no_client_looks_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    opened = f"s = socket.socket(socket.AF_UNIX); s.bind({str(tmp_path / 'x')!r}); s.listen(); s.set_inheritable(True);"
    said = refused(daemon, GIVE + opened + EXEC)
    assert str(tmp_path / "x") in said
    assert str(daemon.socket) in said


def test_sockets_for_another_process_are_not_ours(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.stop()
    daemon.env |= {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    daemon.start()
    agentctl("status", status=0)


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed here (Debian: systemd)")
def test_first_caller_starts_it_by_systemd_socket_activate(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.stop()
    passed = [f"--setenv={name}={value}" for name, value in daemon.env.items() if name.startswith("AGENTD_")]
    run = [sys.executable, "-P", "-m", "agentd.daemon"]
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [ACTIVATE or "", f"--listen={daemon.socket}", *passed, *run], stdout=log, stderr=log, env=daemon.env
        )
    wait_until(daemon.socket.exists)
    assert agentctl("status", "--json", status=0).json["pid"] == daemon.pid  # it became the daemon
    assert daemon.stop() == 0
    daemon.socket.unlink()
    daemon.start()
