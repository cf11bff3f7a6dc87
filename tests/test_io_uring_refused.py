"""HIGH where io_uring is refused: the lane's own tests once more, their processes under a seccomp filter; and the
reason is shown wherever somebody would look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import AGENTCTL, Agentctl
from daemons import Daemon

HERE = Path(__file__).parent
WITHOUT = [sys.executable, "-P", str(HERE / "without_io_uring.py")]

#: Those of the lane; the soaks are for `make stress`.
SUITE = [
    *(path.name for path in sorted(HERE.glob("test_direct_*.py")) if path.name != "test_direct_soak.py"),
    *(path.name for path in sorted(HERE.glob("test_high_*.py"))),
]
RUNS = [*(("EPERM", name) for name in SUITE), ("ENOSYS", "test_high_lane.py")]


@pytest.fixture(scope="module", autouse=True)
def can_filter() -> None:
    """Some sandboxes allow no filter of one's own."""
    done = subprocess.run([*WITHOUT, "EPERM", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no seccomp filter can be installed here: {done.stderr.splitlines()[-1]}")


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_the_filter_bites(error: str) -> None:
    """Also in a child, and nothing else is refused."""
    ask = "import errno; from agentd._native import io_uring_errno; print(errno.errorcode[io_uring_errno()])"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', {ask!r}], check=True)"
    done = subprocess.run(
        [*WITHOUT, error, sys.executable, "-P", "-c", f"{ask}; print(end='', flush=True); {child}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [error, error]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("error", "file"), RUNS, ids=[f"{error}-{name}" for error, name in RUNS])
def test_the_lane_is_the_same(error: str, file: str) -> None:
    pytest_high = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "high", str(HERE / file))
    done = subprocess.run(
        [*WITHOUT, error, sys.executable, "-P", *pytest_high],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def refused(daemon: Daemon, error: str) -> None:
    """Start the daemon anew, under the filter."""
    daemon.stop()
    daemon.command = [*WITHOUT, error, *daemon.command]
    daemon.start()


def high(agentctl: Agentctl) -> str:
    """What `agentctl lanes` says of it."""
    rows = agentctl("lanes", "--json", status=0).json["lanes"]
    (row,) = [row for row in rows if row["lane"] == "high"]
    assert row["open"]
    return str(row["reason"])


def doctors(daemon: Daemon, *launcher: str) -> dict[str, Any]:
    """What doctor finds about io_uring."""
    done = subprocess.run(
        [*launcher, *AGENTCTL, "doctor", "--json"],
        env=daemon.env,
        cwd=daemon.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = [row for row in json.loads(done.stdout)["findings"] if row["check"] == "io_uring"]
    return dict(found)


@pytest.mark.parametrize(
    ("error", "why"), [("EPERM", "a sandbox forbids it (seccomp)"), ("ENOSYS", "a sandbox hides it (seccomp)")]
)
def test_the_reason_is_shown(daemon: Daemon, agentctl: Agentctl, error: str, why: str) -> None:
    if not Path("/proc/sys/kernel/io_uring_disabled").exists():  # then nobody can tell who has none
        why = why if error == "EPERM" else "this kernel has none"
    refused(daemon, error)
    assert f"lane high: shared memory without io_uring: {why}" in daemon.stderr
    assert high(agentctl).startswith(f"shared memory without io_uring: {why}")
    assert f"without io_uring: {why}" in agentctl("lanes", status=0).out
    filtered = doctors(daemon, *WITHOUT, error)
    assert filtered["severity"] == "notice" and why in filtered["what"] and "seccomp" in filtered["remedy"]
    free = doctors(daemon)
    assert free["severity"] == "notice" and f"without io_uring: {why}" in free["what"]


def test_a_setting_is_a_reason_too(daemon: Daemon, agentctl: Agentctl) -> None:
    daemon.config(high={"io_uring": False})
    assert high(agentctl).startswith("shared memory without io_uring: high.io_uring is false")
    assert "high.io_uring is false" in doctors(daemon)["what"]


def test_where_it_can_be_used_nothing_else_is_said(daemon: Daemon, agentctl: Agentctl) -> None:
    found = doctors(daemon)
    if found["severity"] != "ok":
        pytest.skip(f"no io_uring here: {found['what']}")
    assert high(agentctl).startswith("shared memory and io_uring, 0 pairs")
