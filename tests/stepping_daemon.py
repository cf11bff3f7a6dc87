"""A daemon whose journal names its steps to the library of steps.py, which is preloaded."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

from agentd.daemon import main
from agentd.hub.stored import Stored
from agentd.server.journal import Journal

_STEPS: Final = ("append", "note", "move", "_sync", "_end_sync", "_collect", "_checkpoint_written")
_step: Final = ctypes.CDLL(None).agentd_test_step


def _stepping(owner: type, name: str) -> None:
    whole = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        _step(f"{owner.__name__}.{name}".encode())
        found = whole(*args, **options)
        _step(f"end of {owner.__name__}.{name}".encode())
        return found

    setattr(owner, name, wrapped)


for step in _STEPS:
    _stepping(Journal, step)
_stepping(Stored, "reached")
sys.exit(main())
