"""What agentd checks before it serves: its directories, its socket, its settings. A refusal names what it refuses."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from daemons import PATIENCE_S, Daemon
from raw import Opener, Raw

from agentd.host.arguments import parse_arguments
from agentd.wire.errors import ConfigError
from agentd.wire.messages import Status

AGENTD = Daemon(Path()).command


class Attempt(NamedTuple):
    """A start that came to nothing, or was never meant to last."""

    status: int
    out: str
    err: str


def attempt(env: dict[str, str], *arguments: str) -> Attempt:
    """Start agentd with these arguments and wait for its end: it is expected not to serve."""
    done = subprocess.run([*AGENTD, *arguments], env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "Traceback" not in done.stderr, done.stderr
    return Attempt(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def idle(tmp_path: Path) -> Daemon:
    """A daemon's directories and environment; nothing runs."""
    one = Daemon(tmp_path)
    one.config_path.touch()
    return one


# One daemon at a time.


def test_a_second_daemon_on_the_same_runtime_directory_says_who_holds_it(daemon: Daemon, tmp_path: Path) -> None:
    refused = attempt({**daemon.env, "AGENTD_STATE_DIR": str(tmp_path / "other")})
    assert refused.status == 75
    assert f"pid {daemon.pid} (agentd.daemon) holds {daemon.runtime_dir}" in refused.err
    with Raw(daemon.socket) as me:  # and the first one serves on
        assert me.ask(Status(0)).pid == daemon.pid


def test_a_second_daemon_on_the_same_state_directory_says_who_holds_it(daemon: Daemon, tmp_path: Path) -> None:
    refused = attempt({**daemon.env, "AGENTD_RUNTIME_DIR": str(tmp_path / "other")})
    assert refused.status == 75
    assert f"pid {daemon.pid} (agentd.daemon) holds {daemon.state_dir}" in refused.err
    assert not (tmp_path / "other" / "agentd.sock").exists()


def test_a_dead_daemons_socket_is_replaced(daemon: Daemon) -> None:
    with Raw(daemon.socket) as before:
        first = before.ask(Status(0))
    daemon.kill()
    assert daemon.socket.is_socket()
    daemon.start()
    with Raw(daemon.socket) as after:
        second = after.ask(Status(0))
    assert second.pid == daemon.pid != first.pid
    assert second.boot != first.boot
    assert [path.name for path in daemon.runtime_dir.iterdir() if "sock" in path.name] == ["agentd.sock"]


@pytest.mark.parametrize("own_place", [True, False])
def test_somebody_elses_live_socket_is_left_alone(idle: Daemon, tmp_path: Path, own_place: bool) -> None:
    place = idle.runtime_dir if own_place else tmp_path / "elsewhere"
    place.mkdir(mode=0o700)
    path = place / "agentd.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        theirs.listen()
        refused = attempt({**idle.env, "AGENTD_SOCKET": str(path)})
        assert refused.status == 75
        assert f"Somebody listens on {path}" in refused.err
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))


def test_what_is_no_socket_is_left_alone(idle: Daemon) -> None:
    idle.runtime_dir.mkdir(mode=0o700)
    idle.socket.write_text("precious")
    refused = attempt(idle.env)
    assert refused.status == 77
    assert f"{idle.socket} is there and is no socket" in refused.err
    assert idle.socket.read_text() == "precious"


# Directories.


@pytest.mark.parametrize("how", ["lax", "foreign", "link", "file", "below a file"])
def test_a_directory_that_is_not_ours_alone_is_refused_by_name(idle: Daemon, tmp_path: Path, how: str) -> None:
    bad = tmp_path / "bad"
    match how:
        case "lax":
            bad.mkdir()
            bad.chmod(0o750)
        case "foreign":
            if os.getuid():
                pytest.skip("only root can make a directory that belongs to somebody else")
            bad.mkdir(mode=0o700)
            os.chown(bad, 65534, -1)
        case "link":
            (tmp_path / "real").mkdir(mode=0o700)
            bad.symlink_to(tmp_path / "real")
        case "file":
            bad.write_text("precious")
        case "below a file":
            bad.write_text("precious")
            bad /= "below"
    which = "AGENTD_STATE_DIR" if how in ("lax", "file") else "AGENTD_RUNTIME_DIR"
    refused = attempt({**idle.env, which: str(bad)})
    assert refused.status == 77
    assert str(bad) in refused.err
    said = {"lax": "mode 0750", "foreign": "belongs to uid 65534", "link": "is a link"}.get(how, "")
    assert said in refused.err
    assert len(refused.err.splitlines()) == 2  # what is wrong, and what to do about it
    assert not idle.socket.exists()


def test_what_agentd_makes_is_for_its_owner_only(daemon: Daemon) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(daemon.runtime_dir) == mode(daemon.state_dir) == 0o700
    assert mode(daemon.socket) == 0o600
    assert daemon.stop() == 0
    kept = [path for place in (daemon.runtime_dir, daemon.state_dir) for path in place.rglob("*")]
    assert kept and all(mode(path) == (0o700 if path.is_dir() else 0o600) for path in kept)
    assert not daemon.socket.exists()


def test_a_socket_path_that_is_too_long_is_refused(idle: Daemon, tmp_path: Path) -> None:
    long = tmp_path / ("d" * 100)
    refused = attempt({**idle.env, "AGENTD_RUNTIME_DIR": str(long)})
    assert refused.status == 78
    assert "longer than 107 bytes" in refused.err and str(long) in refused.err
    assert not long.exists()


def test_no_other_uid_is_heard(daemon: Daemon, raw: Opener) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    # The socket's own mode keeps others out; it is opened here to see what is behind it.
    for path in (daemon.directory, daemon.runtime_dir, *daemon.directory.parents[:2]):
        path.chmod(path.stat().st_mode | 0o011)
    daemon.socket.chmod(0o666)
    hello = '{"verb":"hello","version":1,"client":"x"}\n{"verb":"join","cid":1,"name":"mallory"}\n'
    script = f"""
import os, socket
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout({PATIENCE_S})
    s.connect({str(daemon.socket)!r})
    try:
        s.sendall({hello.encode()!r})
        print(s.recv(1))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""
    try:
        done = subprocess.run([AGENTD[0], "-I", "-S", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    finally:
        for path in (daemon.runtime_dir, daemon.directory):
            path.chmod(0o700)
    assert (done.stdout, done.stderr) == ("b''\n", "")
    assert "refused a connection of uid 65534" in daemon.stderr
    me = raw("me")
    assert me.ask(Status(0)).agents == 1


# Settings.


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("inbox.max_messages", '"many"', "expected int"),
        ("inbox.max_messages", "0", "expected int >= 1"),
        ("shutdown.drain_s", "-1.0", "expected float >= 0.0"),
        ("message.max_body_bytes", "1e3", "expected int"),
        ("log.level", '"loud"', "'loud'"),
        ("connections.max_connection", "1", "Did you mean connections.max_connections?"),
    ],
)
@pytest.mark.parametrize("origin", ["file", "environment", "flag"])
def test_a_bad_setting_is_refused_with_its_place_key_and_what_was_expected(
    idle: Daemon, origin: str, key: str, value: str, expected: str
) -> None:
    section, name = key.split(".")
    env, arguments = idle.env, []
    match origin:
        case "file":
            idle.config_path.write_text(f"[{section}]\n{name} = {value}\n")
            place = str(idle.config_path)
        case "environment":
            if "Did you mean" in expected:
                return  # a variable of another name is none of agentd's
            place = "AGENTD_" + key.upper().replace(".", "_")
            env = {**env, place: value.strip('"')}
        case _:
            place = "--set"
            arguments = ["--set", f"{key}={value.strip(chr(34))}"]
    with pytest.raises(ConfigError) as refused:
        parse_arguments(arguments, env, os.getuid())
    assert place in str(refused.value) and key in str(refused.value) and expected in str(refused.value)
    if key == "inbox.max_messages" and value == "0":  # the whole way, once for each place
        ended = attempt(env, *arguments)
        assert ended.status == 78 and ended.err == f"agentd: {refused.value}\n"
        assert not idle.socket.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("[inbox\n", "is not TOML"), ("\xff", "is not TOML"), ("inbox = 3\n", "there is no setting 'inbox'")],
)
def test_a_broken_file_is_refused_by_name(idle: Daemon, text: str, said: str) -> None:
    idle.config_path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as refused:
        parse_arguments([], idle.env, os.getuid())
    assert f"{idle.config_path}" in str(refused.value) and said in str(refused.value)


def test_a_named_file_that_is_not_there_is_refused(idle: Daemon) -> None:
    idle.config_path.unlink()
    refused = attempt(idle.env)
    assert refused.status == 78
    assert f"{idle.config_path} does not exist" in refused.err


def test_flag_over_environment_over_file(daemon: Daemon) -> None:
    daemon.env["AGENTD_CONNECTIONS_HELLO_S"] = "22"
    daemon.env["AGENTD_CONNECTIONS_MAX_CONNECTIONS"] = "22"
    daemon.command += ["--set", "connections.max_connections=1"]
    daemon.config(connections={"max_connections": 33, "hello_s": 33.0})
    with Raw(daemon.socket), Raw(daemon.socket, greet=False) as second:
        second.send(b"{")
        assert b"has 1 connections, the most it may have" in second.receive()


def test_help_and_version(idle: Daemon) -> None:
    shown = attempt(idle.env, "--help")
    assert shown.status == 0 and shown.err == ""
    assert all(word in shown.out for word in ("--config", "--set", "--runtime-dir", "--state-dir", "SIGTERM"))
    version = attempt(idle.env, "--version")
    assert version.status == 0 and re.fullmatch(r"agentd \d+\.\d+\.\d+\n", version.out)
    assert attempt(idle.env, "--nonsense").status == 2
    assert not idle.runtime_dir.exists()
