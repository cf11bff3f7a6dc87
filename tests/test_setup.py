"""Set-up: what is missing is named before anything is built, and the Makefile says what it can do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ["sh", "mktemp", "rm", "cat", "make", "cc", "as", "ld"]


class Machine:
    """A PATH that holds only what a test puts there, and the real interpreter with some of its parts hidden."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.site = folder / "site"
        self.bin.mkdir()
        self.site.mkdir()
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path is not None, tool
            (self.bin / tool).symlink_to(path)

    def remove(self, tool: str) -> None:
        (self.bin / tool).unlink()

    def script(self, tool: str, text: str) -> None:
        (self.bin / tool).unlink(missing_ok=True)
        (self.bin / tool).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / tool).chmod(0o755)

    def hide_module(self, name: str) -> None:
        (self.site / f"{name}.py").write_text(f"raise ImportError('no module named {name}')")

    def at_start_of_python(self, text: str) -> None:
        with (self.site / "sitecustomize.py").open("a") as file:
            file.write(text + "\n")

    def preflight(self, python: str = sys.executable, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [ROOT / ".ci/preflight", python],
            env={"PATH": str(self.bin), "PYTHONPATH": str(self.site), "TMPDIR": str(self.bin.parent), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


DEBIAN = "import sys; sys.base_prefix = '/usr'"
FOREIGN = "import sys; sys.base_prefix = '/usr/local'"
NO_HEADERS = "import sysconfig; sysconfig.get_path = lambda name: '/nonexistent'"


def test_nothing_is_missing(machine: Machine) -> None:
    assert machine.preflight() == (0, "")


def test_no_compiler(machine: Machine) -> None:
    machine.remove("cc")
    status, said = machine.preflight()
    assert status == 1
    assert "there is no C compiler" in said
    assert said.endswith("sudo apt-get install gcc libc6-dev\n")


def test_gcc_serves_without_cc(machine: Machine) -> None:
    (machine.bin / "cc").rename(machine.bin / "gcc")
    assert machine.preflight() == (0, "")


def test_cc_variable_is_the_compiler_that_counts(machine: Machine) -> None:
    assert machine.preflight(CC="cc -O1") == (0, "")
    status, said = machine.preflight(CC="nocc -O1")
    assert status == 1
    assert "there is no C compiler named nocc -O1" in said


def test_compiler_without_the_c_library(machine: Machine) -> None:
    machine.script("cc", "echo 'fatal error: stdio.h: No such file or directory' >&2; exit 1")
    status, said = machine.preflight()
    assert status == 1
    assert "can't build a program" in said
    assert said.endswith("sudo apt-get install libc6-dev\n")


def test_no_python(machine: Machine) -> None:
    status, said = machine.preflight("python3")
    assert status == 1
    assert "there is no python3" in said
    assert said.endswith("sudo apt-get install python3 python3-dev python3-venv\n")


def test_old_python(machine: Machine) -> None:
    # The probe itself must not need a new Python: only its version is a lie here.
    machine.at_start_of_python("import sys; sys.version_info = (3, 9, 2, 'final', 0)")
    status, said = machine.preflight()
    assert status == 1
    assert "is Python 3.9; agentd needs 3.11 or newer" in said
    assert "apt-get" not in said


def test_python_that_does_not_run(machine: Machine) -> None:
    machine.script("python3", "exit 127")
    status, said = machine.preflight("python3")
    assert status == 1
    assert "python3 does not run" in said


def test_debian_python_without_headers(machine: Machine) -> None:
    machine.at_start_of_python(f"{DEBIAN}\n{NO_HEADERS}")
    status, said = machine.preflight()
    assert status == 1
    assert "the headers (Python.h)" in said
    assert re.search(r"sudo apt-get install python3(\.\d+)?-dev\n$", said)


def test_debian_python_without_venv(machine: Machine) -> None:
    machine.at_start_of_python(DEBIAN)
    machine.hide_module("ensurepip")
    status, said = machine.preflight()
    assert status == 1
    assert "the venv and ensurepip modules" in said
    assert re.search(r"sudo apt-get install python3(\.\d+)?-venv\n$", said)


def test_a_python_that_is_not_debians_is_said_to_be_so(machine: Machine) -> None:
    machine.at_start_of_python(f"{FOREIGN}\n{NO_HEADERS}")
    status, said = machine.preflight()
    assert status == 1
    assert "not Debian's" in said
    assert "make PYTHON=/usr/bin/python3" in said


def test_everything_missing_is_one_sentence_each_and_one_command(machine: Machine) -> None:
    machine.remove("cc")
    machine.remove("make")
    machine.hide_module("ensurepip")
    machine.at_start_of_python(f"{DEBIAN}\n{NO_HEADERS}")
    status, said = machine.preflight()
    assert status == 1
    *sentences, command = said.splitlines()
    assert len(sentences) == 4
    assert all(line.startswith("agentd: ") and line.endswith(".") for line in sentences)
    assert set(command.split("apt-get install ")[1].split()) >= {"gcc", "libc6-dev", "make"}


def test_preflight_leaves_nothing_behind(machine: Machine) -> None:
    before = set(os.listdir(machine.bin.parent))
    machine.preflight()
    assert set(os.listdir(machine.bin.parent)) == before


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """make as its user calls it: nothing inherited from the make that may have started these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "-C", folder, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_make_alone_lists_the_targets() -> None:
    done = make()
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))
    assert listed >= {"build", "demo", "test", "check", "stress", "bench-normal", "clean", "format"}
    assert listed == set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_names_what_is_missing_before_it_touches_anything(tmp_path: Path) -> None:
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    made_with = folder / ".venv/made-with"
    made_with.parent.mkdir()
    made_with.write_text("an older interpreter")
    done = make("build", "PYTHON=no-such-python", folder=folder)
    assert done.returncode != 0
    assert "there is no no-such-python" in done.stderr
    assert made_with.read_text() == "an older interpreter"
    assert not (folder / "build").exists()


def test_groups_of_requirements() -> None:
    def required(group: str) -> set[str]:
        command = [sys.executable, str(ROOT / ".ci/requirements"), group]
        lines = subprocess.check_output(command, text=True).splitlines()
        return {re.split("[<>=]", line)[0] for line in lines}

    assert required("build") == {"meson-python", "meson", "ninja"}
    assert required("run") == {"click", "msgspec", "posix_ipc", "psutil", "uvloop"}
    assert "pytest" in required("test")
