"""A daemon whose journal names its steps to the library of steps.py, which is preloaded."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

from agentd.daemon import main
from agentd.server.journal import Journal

_STEPS: Final = ("append", "note", "move", "_tell", "_sync", "_end_sync", "_collect", "_checkpoint_written")
_step: Final = ctypes.CDLL(None).agentd_test_step


def _stepping(name: str) -> None:
    whole = getattr(Journal, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        _step(f"Journal.{name}".encode())
        found = whole(*args, **options)
        _step(f"end of Journal.{name}".encode())
        return found

    setattr(Journal, name, wrapped)


for step in _STEPS:
    _stepping(step)
sys.exit(main())
