"""The folders are the architecture: imports point down, libraries stay where they belong, files stay short."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 450  # the aim is 400
MAX_STUB_LINES = 650  # one file documents a whole extension: it can't be two

# Top to bottom. Those that share a line don't know of each other.
LAYERS = [
    ["agentd.__main__"],
    ["agentd.daemon"],
    ["agentd.cli"],
    ["agentd.workspaces", "agentd.bridges"],
    ["agentd_client"],
    ["agentd.server"],
    ["agentd.lanes"],
    ["agentd.hub"],
    ["agentd.host"],
    ["agentd.wire"],
    ["agentd._native"],
]
DEPTH = {part: depth for depth, parts in enumerate(LAYERS) for part in parts}

# Narrower than the order.
NEVER = {
    "agentd.cli": {"agentd.server", "agentd.lanes", "agentd.hub"},
    "agentd.workspaces": {"agentd.server", "agentd.lanes", "agentd.hub"},
    "agentd.bridges": {"agentd.server", "agentd.lanes", "agentd.hub"},
    "agentd_client": {"agentd.server", "agentd.lanes", "agentd.hub", "agentd.host"},
    "agentd.hub": {"asyncio", "socket", "psutil", "time"},
}

# A hub for the tests of agents is the daemon's own code, in their process. Only who tests imports it, see below.
TESTING = {"agentd_client.testing", "agentd_client._memory", "agentd_client._memory_journal"}

PLUGIN = "agentd_client.pytest_plugin"

# Which modules may import which library. A module stands for all below it.
LIBRARIES = {
    "uvloop": ["agentd.daemon"],
    "click": ["agentd.cli"],
    "rich": ["agentd.cli"],
    "psutil": ["agentd.server.reaper", "agentd.host"],
    "posix_ipc": ["agentd.host.counters", "agentd.lanes.batch"],
    # hub: for its record types. Creating a Struct costs a third of creating a class with __slots__.
    "pytest": [PLUGIN],
    "msgspec": ["agentd.wire", "agentd.hub", "agentd.host.config", "agentd_client"],
}


def within(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


def part_of(module: str) -> str | None:
    return next((part for part in DEPTH if within(module, part)), None)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of all that the tree imports, at any depth, for type checkers only or by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                if level:
                    above = module.split(".") + ["__init__"] * is_package
                    origin = ".".join(above[:-level] + ([origin] if origin else []))
                # `from agentd import hub` imports agentd.hub; `from agentd.hub import Hub` names no further module.
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def violations(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    own = part_of(module)
    if own is None:
        if source.strip():
            yield f"{module} has no layer: name its place in tests/test_layers.py (agentd/__init__.py stays empty)"
        return
    for line, target in imports(ast.parse(source), module, is_package):
        part = part_of(target)
        library = target.split(".")[0]
        where = f"{module}, line {line}: imports {target}"
        if any(within(target, forbidden) for forbidden in NEVER.get(own, ())) and module not in TESTING:
            yield f"{where}, which {own} must never do"
        elif part is not None:
            if part != own and DEPTH[part] <= DEPTH[own]:
                yield f"{where}, which is not below {own}"
            elif any(within(target, tests) for tests in TESTING) and module not in TESTING | {PLUGIN}:
                yield f"{where}, which is for tests only"
        elif library in LIBRARIES:
            if not any(within(module, allowed) for allowed in LIBRARIES[library]):
                yield f"{where}, which only {', '.join(LIBRARIES[library])} may do"
        elif library == "agentd":
            if target != "agentd":
                yield f"{where}, which has no layer"
        elif library not in sys.stdlib_module_names:
            yield f"{where}, a library that has no place yet: see LIBRARIES in tests/test_layers.py"


def module_name(path: Path, base: Path) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(folder: str, *suffixes: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)


MODULES = [(path, module_name(path, ROOT)) for path in files("agentd", ".py")]
MODULES += [(path, module_name(path, ROOT / "clients/python")) for path in files("clients/python/agentd_client", ".py")]


@pytest.mark.parametrize(("path", "module"), [pytest.param(*both, id=both[1]) for both in MODULES])
def test_imports_point_down(path: Path, module: str) -> None:
    assert list(violations(path.read_text(), module, path.name == "__init__.py")) == []


def test_files_stay_short() -> None:
    sources = files("agentd", ".py") + files("clients", ".py", ".js", ".ts") + files("native", ".c", ".h")
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}, "the aim is 400 lines"
    stubs = {path.name: len(path.read_text().splitlines()) for path in files("agentd", ".pyi")}
    assert {name: length for name, length in stubs.items() if length > MAX_STUB_LINES} == {}


def test_only_the_binding_knows_python() -> None:
    """A sanitizer, a fuzzer or another language links native/ without Python; module*.c alone binds it."""
    knowing = {
        path.name for path in files("native", ".c", ".h") if re.search(r"#\s*include\s*<Python\.h>", path.read_text())
    }
    assert {name for name in knowing if not name.startswith("module")} == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agentd.hub.inbox", "import agentd.server"),
        ("agentd.hub.inbox", "from agentd.server.session import Session"),
        ("agentd.hub.inbox", "from agentd import lanes"),
        ("agentd.hub.inbox", "from ..server import session"),
        ("agentd.hub.inbox", "def late():\n    from agentd.server import session"),
        ("agentd.hub.inbox", "if TYPE_CHECKING:\n    from agentd.server import session"),
        ("agentd.hub.inbox", "importlib.import_module('agentd.server')"),
        ("agentd.hub.inbox", "import time"),
        ("agentd.hub.inbox", "from asyncio import Future"),
        ("agentd.hub.inbox", "from agentd import surprise"),
        ("agentd.cli.send", "from agentd.hub import hub"),
        ("agentd.cli.send", "from agentd.daemon import main"),
        ("agentd.bridges.fifo", "from agentd.server import listener"),
        ("agentd_client.connection", "from agentd.host.config import Config"),
        ("agentd_client.connection", "import click"),
        ("agentd_client.connection", "from agentd_client import testing"),
        ("agentd.cli.send", "from agentd_client.testing import memory"),
        ("agentd.wire.frames", "import psutil"),
        ("agentd.server.session", "import msgspec"),
        ("agentd.server.listener", "import uvloop"),
        ("agentd.server.listener", "import requests"),
        ("agentd.surprise", "x = 1"),
        ("agentd", "x = 1"),
    ],
)
def test_a_violation_is_seen(module: str, source: str) -> None:
    assert len(list(violations(source, module))) == 1


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        ("agentd", True, ""),
        ("agentd.daemon", False, "import uvloop\nfrom agentd.server import listener\nfrom agentd.hub.hub import Hub"),
        ("agentd.cli.send", False, "import click\nfrom agentd_client import blocking\nfrom agentd.wire import errors"),
        ("agentd.hub.inbox", False, "import msgspec\nfrom .topics import Topic\nfrom ..wire import names"),
        ("agentd.hub", True, "from .inbox import Inbox\nfrom ..wire import names"),
        ("agentd.server.reaper", False, "import asyncio, psutil\nfrom agentd import _native"),
        ("agentd_client._memory", False, "from agentd.hub.hub import Hub\nfrom agentd.server.server import Server"),
        ("agentd_client", True, "import msgspec\nfrom agentd.wire import frames\nfrom .connection import connect"),
    ],
)
def test_what_is_allowed_passes(module: str, is_package: bool, source: str) -> None:
    assert list(violations(source, module, is_package)) == []
