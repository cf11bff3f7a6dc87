"""`agentctl daemon`: one daemon or none, whoever starts and stops it, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from commands import Agentctl
from daemons import PATIENCE_S, wait_until
from raw import Raw

from agentd.host import counters
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Options


class Place:
    """Directories of a daemon's own, and agentctl in them."""

    def __init__(self, directory: Path) -> None:
        self.runtime_dir = directory / "run"
        self.state_dir = directory / "state"
        home = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory / "config")}
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTD_", "XDG_"))}
        self.env = env | home | {"AGENTD_RUNTIME_DIR": str(self.runtime_dir), "AGENTD_STATE_DIR": str(self.state_dir)}
        self.agentctl = Agentctl(self.env, directory)

    def daemons(self) -> list[int]:
        """The processes of daemons that live here."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if str(self.state_dir / "agentd.log") in command:
                found.append(process.pid)
        return found

    def left(self) -> set[str]:
        """The files in its runtime directory."""
        return {path.name for path in self.runtime_dir.iterdir()}

    def close(self) -> None:
        for pid in self.daemons():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.daemons())
        counters.remove_stale(counters.name_of(self.runtime_dir, os.getuid()), os.getuid())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_start_comes_back_when_it_answers_and_stop_when_it_is_gone(place: Place) -> None:
    started = place.agentctl("daemon", "start", "--json", status=0).json
    assert started["started"]
    assert place.agentctl("status", "--json", status=0).json["pid"] == started["pid"]
    assert place.agentctl("daemon", "stop", "--json", status=0).json == {"stopped": True, "pid": started["pid"]}
    assert place.daemons() == []
    assert place.left() == {"agentd.lock"}


def test_it_has_no_terminal_no_directory_and_no_parent_to_miss(place: Place) -> None:
    pid = place.agentctl("daemon", "start", "--json", status=0).json["pid"]
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    assert stat.S_IMODE((place.state_dir / "agentd.log").stat().st_mode) == 0o600


def test_start_and_stop_twice_do_no_harm(place: Place) -> None:
    first = place.agentctl("daemon", "start", "--json", status=0).json
    again = place.agentctl("daemon", "start", "--json", status=0).json
    assert (again["started"], again["pid"]) == (False, first["pid"])
    place.agentctl("daemon", "stop", status=0)
    assert place.agentctl("daemon", "stop", "--json", status=0).json == {"stopped": False, "pid": None}


def test_several_starts_at_once_make_one_daemon(place: Place) -> None:
    with ThreadPoolExecutor(6) as pool:
        started = [done.json for done in pool.map(lambda _: place.agentctl("daemon", "start", "--json"), range(6))]
    assert len({one["pid"] for one in started}) == 1
    assert sum(one["started"] for one in started) == 1
    assert len(place.daemons()) == 1


def race(place: Place, rounds: int) -> None:
    """Starts and stops at the same time; each succeeds, and what is left is one daemon or none."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(rounds):
            verbs = ["start", "stop", "start", "stop"]
            for done in pool.map(lambda verb: place.agentctl("daemon", verb), verbs):
                assert done.status == 0, done
            assert len(place.daemons()) <= 1
    place.agentctl("daemon", "stop", status=0)
    assert place.daemons() == []
    assert place.left() == {"agentd.lock"}
    assert {path.name for path in place.state_dir.iterdir()} <= {"agentd.lock", "agentd.log", "agentd.log.1", "journal"}


def test_start_raced_with_stop(place: Place) -> None:
    race(place, 5)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_start_raced_with_stop_500_times(place: Place) -> None:
    race(place, 250)


def test_restart_keeps_the_mail(place: Place) -> None:
    first = place.agentctl("daemon", "start", "--json", status=0).json
    place.agentctl("send", "builder", "hi", "--allow-absent", status=0)
    second = place.agentctl("daemon", "restart", "--json", status=0).json
    assert second["pid"] != first["pid"]
    assert place.agentctl("recv", name="builder", status=0).out.endswith("\nhi\n")


def test_killed_daemon_is_replaced(place: Place) -> None:
    first = place.agentctl("daemon", "start", "--json", status=0).json
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(first["pid"]))
    assert "agentd.sock" in place.left()  # the dead one's
    down = place.agentctl("daemon", "status", "--json", status=69).json
    assert (down["running"], down["pid"]) == (False, None)
    assert place.agentctl("daemon", "start", "--json", status=0).json["started"]


def test_one_that_does_not_end_is_named_and_killed_on_wish(place: Place) -> None:
    pid = place.agentctl("daemon", "start", "--json", status=0).json["pid"]
    os.kill(pid, signal.SIGSTOP)
    error = place.agentctl("daemon", "stop", "--timeout", "200ms", "--json", status=75).error
    assert str(pid) in error["message"]
    assert "--kill" in error["hint"]
    assert place.agentctl("daemon", "stop", "--timeout", "200ms", "--kill", "--json", status=0).json["stopped"]
    assert place.daemons() == []


def test_start_says_why_the_daemon_did_not_start(place: Place) -> None:
    error = place.agentctl("daemon", "start", "--json", env={"AGENTD_INBOX_MAX_MESSAGES": "many"}, status=78).error
    assert "AGENTD_INBOX_MAX_MESSAGES" in error["message"]


def test_start_waits_for_one_that_does_not_answer_yet(place: Place) -> None:
    pid = place.agentctl("daemon", "start", "--json", status=0).json["pid"]
    os.kill(pid, signal.SIGSTOP)
    error = place.agentctl("daemon", "start", "--timeout", "1s", "--json", status=75).error
    assert str(pid) in error["message"]
    os.kill(pid, signal.SIGCONT)
    assert not place.agentctl("daemon", "start", "--json", status=0).json["started"]


def test_logs(place: Place) -> None:
    assert "daemon start" in place.agentctl("daemon", "logs", status=1).err
    place.agentctl("daemon", "start", status=0)
    assert "Persistence:" in place.agentctl("daemon", "logs", status=0).out
    assert len(place.agentctl("daemon", "logs", "-n", "1", status=0).out.splitlines()) == 1
    follow = place.agentctl.start("daemon", "logs", "--follow", "--lines", "1")
    place.agentctl("daemon", "stop", status=0)
    follow.until("stopped")
    follow.end(signal.SIGTERM)


def test_log_is_bounded(place: Place) -> None:
    place.env["AGENTD_LOG_MAX_FILE_BYTES"] = "2048"
    for _ in range(4):
        place.agentctl("daemon", "restart", status=0)
    sizes = [path.stat().st_size for path in place.state_dir.glob("agentd.log*")]
    assert len(sizes) == 2
    assert max(sizes) <= 2048 + 512


def test_status_tells_a_foreground_daemon_from_one_in_the_background(place: Place) -> None:
    assert "daemon start" in place.agentctl("daemon", "status", status=69).out
    place.agentctl("daemon", "start", status=0)
    said = place.agentctl("daemon", "status", "--json", status=0).json
    assert (said["by"], said["log"]) == ("in the background", str(place.state_dir / "agentd.log"))
    place.agentctl("daemon", "stop", status=0)
    foreground = subprocess.Popen([sys.executable, "-P", "-m", "agentd.daemon"], env=place.env, stderr=subprocess.PIPE)
    wait_until(lambda: place.agentctl("status").status == 0)
    said = place.agentctl("daemon", "status", "--json", status=0).json
    assert (said["by"], said["log"]) == ("in the foreground", "its own stderr")
    place.agentctl("daemon", "stop", status=0)
    _, _ = foreground.communicate(timeout=PATIENCE_S)


def test_read_only_state_directory_is_named(place: Place) -> None:
    place.state_dir.mkdir(mode=0o700)
    (place.state_dir / "agentd.log").mkdir()  # as unwritable as a read-only file system, for root too
    error = place.agentctl("daemon", "start", "--json", status=78).error
    assert str(place.state_dir / "agentd.log") in error["message"]


SYSTEMCTL = """#!/bin/sh
echo "$(basename $0) $*" >> "$CALLS"
case "$*" in
*MainPID*) echo 0 ;;
*is-active*) echo inactive ;;
*show-user*) [ -e "$CALLS.linger" ] && echo yes || echo no ;;
*enable-linger*) touch "$CALLS.linger" ;;
*disable-linger*) rm -f "$CALLS.linger" ;;
esac
"""


@pytest.fixture
def managed(place: Place, tmp_path: Path) -> Path:
    """A place where a user manager seems to run; the calls of systemctl and loginctl are written down."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        (programs / name).write_text(SYSTEMCTL)
        (programs / name).chmod(0o755)
    (tmp_path / "xdg" / "systemd").mkdir(parents=True)
    (tmp_path / "xdg" / "systemd" / "private").touch()
    calls = tmp_path / "calls"
    place.env |= {
        "XDG_RUNTIME_DIR": str(tmp_path / "xdg"),
        "PATH": f"{programs}:{Path(sys.executable).parent}:{place.env['PATH']}",
        "CALLS": str(calls),
    }
    del place.env["AGENTD_RUNTIME_DIR"]
    return calls


def units(place: Place) -> Path:
    return Path(place.env["XDG_CONFIG_HOME"]) / "systemd" / "user"


def test_install_writes_what_uninstall_removes(place: Place) -> None:
    installed = place.agentctl("daemon", "install", "--json", status=0).json
    assert installed["files"] == [str(units(place) / name) for name in ("agentd.service", "agentd.socket")]
    service = (units(place) / "agentd.service").read_text()
    assert "@" not in service.replace("@system-service @io-event", "").replace("~@privileged @resources", "")
    assert str(place.state_dir) in service
    assert f'ExecStart="{Path(sys.executable).parent}/agentd"' in service
    place.agentctl("daemon", "install", status=0)  # again: the same
    removed = place.agentctl("daemon", "uninstall", "--json", status=0).json
    assert sorted(removed["removed"]) == installed["files"]
    assert not Path(place.env["XDG_CONFIG_HOME"]).exists()
    assert not (place.state_dir / "installed.json").exists()
    assert "Nothing was installed" in place.agentctl("daemon", "uninstall", status=0).out


def test_install_leaves_what_somebody_else_wrote(place: Place) -> None:
    units(place).mkdir(parents=True)
    (units(place) / "agentd.service").write_text("[Service]\nExecStart=/mine\n")
    error = place.agentctl("daemon", "install", "--json", status=77).error
    assert str(units(place) / "agentd.service") in error["message"]
    assert not (units(place) / "agentd.socket").exists()


def test_uninstall_leaves_what_was_changed(place: Place) -> None:
    place.agentctl("daemon", "install", status=0)
    with (units(place) / "agentd.service").open("a") as unit:
        unit.write("# mine\n")
    done = place.agentctl("daemon", "uninstall", "--json", status=0).json
    assert done["kept"] == [str(units(place) / "agentd.service")]
    assert (units(place) / "agentd.service").exists()


def test_install_switches_on_and_uninstall_off(place: Place, managed: Path) -> None:
    assert place.agentctl("daemon", "install", "--linger", "--json", status=0).json["enabled"]
    calls = managed.read_text()
    assert "systemctl --user daemon-reload" in calls
    assert "systemctl --user enable --now agentd.socket agentd.service" in calls
    assert "loginctl enable-linger" in calls
    assert json.loads((place.state_dir / "installed.json").read_text())["lingering"]
    managed.unlink()
    place.agentctl("daemon", "uninstall", status=0)
    calls = managed.read_text()
    assert "systemctl --user disable --now agentd.socket agentd.service" in calls
    assert "loginctl disable-linger" in calls


def test_linger_that_was_on_before_stays_on(place: Place, managed: Path) -> None:
    managed.with_name("calls.linger").touch()
    place.agentctl("daemon", "install", "--linger", status=0)
    assert "enable-linger" not in managed.read_text()
    place.agentctl("daemon", "uninstall", status=0)
    assert "disable-linger" not in managed.read_text()


def test_install_beside_a_running_daemon_takes_nothing_from_it(place: Place, managed: Path) -> None:
    pid = place.agentctl("daemon", "start", "--json", status=0).json["pid"]
    assert "agentctl daemon restart" in place.agentctl("daemon", "install", status=0).out
    assert "enable agentd.socket agentd.service" in managed.read_text()
    assert "--now" not in managed.read_text()
    again = place.agentctl("daemon", "start", "--json", status=0).json
    assert (again["started"], again["pid"]) == (False, pid)
    assert " start " not in managed.read_text()
    place.agentctl("daemon", "uninstall", status=0)


def test_a_disk_that_is_full_at_the_stop_loses_no_mail(place: Place) -> None:
    """What is said to be stored is already: a checkpoint that has no room is all that is missing."""
    pid = place.agentctl("daemon", "start", "--json", status=0).json["pid"]
    with Raw(place.runtime_dir / "agentd.sock", "planner") as me:
        for number in range(60):
            me.ask(wire.Send(0, "builder", Content.TEXT, f"{number}".encode(), Options(allow_absent=True)))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))  # no file may become longer: as on a full disk
    error = place.agentctl("daemon", "stop", "--json", status=74).error
    assert str(pid) in error["message"] and "agentd.log" in error["message"]
    assert str(place.state_dir / "journal") in place.agentctl("daemon", "logs", status=0).out
    assert not (place.state_dir / "journal" / "checkpoint.tmp").exists()
    place.agentctl("daemon", "start", status=0)
    rows = place.agentctl("inbox", "builder", "--json", "--limit", "1000", status=0).json
    assert rows["total"] == 60


def test_start_and_stop_go_through_systemd_where_it_is_installed(place: Place, managed: Path) -> None:
    place.agentctl("daemon", "install", status=0)
    place.agentctl("daemon", "start", "--timeout", "1s", status=69)  # this systemctl starts nothing
    assert "systemctl --user start agentd.socket agentd.service" in managed.read_text()
    place.agentctl("daemon", "stop", status=0)
    assert "systemctl --user stop agentd.socket agentd.service" in managed.read_text()
    place.agentctl("daemon", "uninstall", status=0)
