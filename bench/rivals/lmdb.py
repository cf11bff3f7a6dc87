"""LMDB in the process itself (PyPI lmdb), as it comes: each commit is synced before it returns.

A message is a transaction of its own. There is one writer at a time and no group commit: 64 tasks get what one gets.
"64 a commit" is what a program gains that gathers them itself.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import contender
import low_ends

_MAP_BYTES = 8 << 30


def missing(home: Path) -> str:
    return "" if not contender.missing_module("lmdb") else "not installed: make bench-low installs it"


class Environment:
    """One environment. `gathered` messages are one transaction."""

    def __init__(self, home: Path, gathered: int) -> None:
        self._environment = importlib.import_module("lmdb").open(str(home / "kept"), map_size=_MAP_BYTES)
        self._gathered = gathered
        self._number = 0

    def _store(self) -> None:
        with self._environment.begin(write=True) as transaction:
            for _ in range(self._gathered):
                key = self._number.to_bytes(8, "big")
                if not transaction.put(key, low_ends.body(self._number), append=True):
                    raise SystemExit("LMDB did not take a message")
                self._number += 1

    def each(self, span_ns: int) -> list[int]:
        return low_ends.timed_each(self._store, span_ns)

    def together(self, span_ns: int) -> low_ends.Together:
        first = self._number
        took_ns = sum(self.each(span_ns))
        return self._number - first, took_ns

    def close(self) -> None:
        count = self._environment.stat()["entries"]
        self._environment.close()
        if count != self._number:
            raise SystemExit(f"{self._number} were stored, {count} are there")


def store(mode: str, home: Path) -> Environment:
    return Environment(home, low_ends.TASKS if mode else 1)
