"""The systemd units: sound, closed up, and saying what README promises of them."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent / "systemd"
MAX_EXPOSURE = 1.5
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed here (Debian: systemd)")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with this machine's paths in them."""
    directory = tmp_path / "units"
    directory.mkdir()
    for unit in UNITS.glob("*/*"):
        text = unit.read_text().replace("@AGENTD@", "/bin/true").replace("@STATE@", str(tmp_path))
        (directory / unit.name).write_text(text)
    return directory


def analyze(*words: str | Path, cwd: Path) -> str:
    env = os.environ | {"XDG_RUNTIME_DIR": str(cwd), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run([ANALYZE or "", *words], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(unit: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser


@needs_systemd
def test_systemd_finds_nothing_to_say(units: Path) -> None:
    user = [units / "agentd.service", units / "agentd.socket"]
    assert analyze("verify", "--user", *user, cwd=units) == ""
    assert analyze("verify", units / "agentd@.service", cwd=units) == ""


@needs_systemd
@pytest.mark.parametrize("name", ["agentd.service", "agentd@.service"])
def test_little_is_exposed(units: Path, name: str) -> None:
    said = analyze("security", "--offline=true", "--no-pager", f"./{name}", cwd=units)
    exposure = float(said.rsplit("exposure level for", 1)[1].split(":")[1].split()[0])
    assert exposure <= MAX_EXPOSURE


@pytest.mark.parametrize("name", ["user/agentd.service", "system/agentd@.service"])
def test_promises(name: str) -> None:
    service = settings(UNITS / name)["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert int(service["WatchdogSec"]) > 0
    assert service["ProtectHome"] == "read-only"  # workspaces lie in the home directory


def test_both_sockets_are_activated() -> None:
    socket = settings(UNITS / "user/agentd.socket")["Socket"]
    assert socket["ListenStream"] == "%t/agentd/agentd.sock"
    assert socket["ListenSequentialPacket"] == "%t/agentd/agentd.grants"
    assert (socket["SocketMode"], socket["DirectoryMode"]) == ("0600", "0700")


def test_the_two_services_are_closed_up_alike() -> None:
    """What one of them forbids the other forbids."""
    user, system = (settings(UNITS / name)["Service"] for name in ("user/agentd.service", "system/agentd@.service"))
    own = {"ReadWritePaths", "Environment", "Slice", "User"}
    placed = {"RuntimeDirectory", "RuntimeDirectoryMode", "StateDirectory", "StateDirectoryMode"}
    assert {key: user[key] for key in user if key not in own} == {
        key: system[key] for key in system if key not in own | placed
    }
