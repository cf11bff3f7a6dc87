"""Programs in C that are built for a test, with the project's own C files."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
C_CLIENT = ROOT / "clients" / "c"
CORE = [ROOT / "native" / f"{name}.c" for name in ("mailbox", "pair", "ring")]
LIBRARY = [path for path in sorted(C_CLIENT.glob("*.c")) if path.name != "example.c"] + CORE
_WARNINGS = ["-Wall", "-Wextra", "-Werror"]
_SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(program: Path, *sources: Path) -> Path:
    """Build it, under AddressSanitizer where the compiler has that; skips the test where there is no compiler."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        pytest.skip(f"there is no C compiler {compiler[:1]}")
    command = [*compiler, "-std=gnu11", "-O1", "-g", "-pthread", *_WARNINGS, "-o", str(program), *map(str, sources)]
    if subprocess.run([*command, *_SANITIZED], capture_output=True).returncode != 0:
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return program
