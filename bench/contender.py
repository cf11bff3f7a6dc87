"""What a message system must offer to be measured: the one small interface that agentd and its rivals satisfy.

A contender is a system in a mode: `nats/uvloop`. Its server is started by us, on a private socket or port, with a
private directory, and stopped by the process handle. Its two ends run in processes of their own (ends.py), which do
all timing and checking: an adapter here only says how this system sends and receives, in the idiom its own
documentation recommends, so that what is measured is what a user gets.

    asking   a coroutine (blocking: a function) from body to reply body        answer  echoes for ever
    posting  takes a list of bodies, returns how many the system confirmed     take    hands every body to a callback
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

Ready = Callable[[], None]
Taken = Callable[[bytes], None]
Environ = dict[str, str]

#: Contender to the module that adapts it. The part after the slash is the mode that module is asked for.
MODULES: Final = {
    "agentd/asyncio": "own",
    "agentd/uvloop": "own",
    "agentd/blocking": "own",
    "relay/asyncio": "relay",
    "relay/uvloop": "relay",
    "relay/blocking": "relay",
    "nats/asyncio": "rivals.nats",
    "nats/uvloop": "rivals.nats",
    "nats/jetstream": "rivals.nats",
    "redis/blocking": "rivals.redis",
    "high/asyncio": "own_high",
    "high/uvloop": "own_high",
    "high/blocking": "own_high",
    "socket/blocking": "sockets",
    "zmq/asyncio": "rivals.zeromq",
    "zmq/blocking": "rivals.zeromq",
    "zenoh/blocking": "rivals.zenoh",
    "iceoryx2/blocking": "rivals.iceoryx_events",
}
INSTALL_HINT: Final = "not installed: make bench-normal installs it"
INSTALL_HINT_HIGH: Final = "not installed: make bench-high installs it"


class Server(Protocol):
    """A running server of ours."""

    pid: int
    environ: Environ  # what an end needs to find it

    def close(self) -> None: ...


class Asynchronous(Protocol):
    """Both ends on an event loop."""

    def asking(self) -> AbstractAsyncContextManager[Callable[[bytes], Awaitable[bytes]]]: ...
    async def answer(self, ready: Ready) -> None: ...
    def posting(self) -> AbstractAsyncContextManager[Callable[[Sequence[bytes]], Awaitable[int]]]: ...
    async def take(self, ready: Ready, taken: Taken) -> None: ...


class Blocking(Protocol):
    """Both ends on plain threads."""

    def asking(self) -> AbstractContextManager[Callable[[bytes], bytes]]: ...
    def answer(self, ready: Ready) -> None: ...
    def posting(self) -> AbstractContextManager[Callable[[Sequence[bytes]], int]]: ...
    def take(self, ready: Ready, taken: Taken) -> None: ...


class Adapter(Protocol):
    """A module in MODULES."""

    def missing(self) -> str:
        """Why it can't run here; empty when it can."""

    def start(self, home: Path) -> Server:
        """Start its server; `home` is an empty directory of its own."""

    def ends(self, mode: str) -> Any:
        """An Asynchronous or, in mode "blocking", a Blocking. Called in the process of an end."""


def adapter(name: str) -> Adapter:
    """The module behind a contender."""
    return importlib.import_module(MODULES[name])


def is_rival(name: str) -> bool:
    """Whether it is somebody else's: a smoke run has none."""
    return MODULES[name].startswith("rivals.")


class Place:
    """The server of a system that has none: a directory of its own, which both ends know."""

    def __init__(self, home: Path) -> None:
        self.pid = 0
        self.environ = {"BENCH_PLACE": str(home)}

    def close(self) -> None:
        pass


def place() -> Path:
    """That directory, in an end."""
    return Path(os.environ["BENCH_PLACE"])


def missing_module(module: str) -> str:
    """INSTALL_HINT_HIGH, or why it can't be loaded, unless it can."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return INSTALL_HINT_HIGH if error.name == module else f"can't be loaded: {error}"
    except ImportError as error:
        return f"can't be loaded: {error}"
    return ""


def needs(program: str, *modules: str) -> str:
    """INSTALL_HINT unless the program and the Python modules are here."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            return INSTALL_HINT
    return "" if find_program(program) else INSTALL_HINT


def find_program(name: str) -> str | None:
    """Debian installs servers into sbin, which is not on everybody's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
