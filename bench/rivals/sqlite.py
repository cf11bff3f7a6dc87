"""SQLite in the process itself, from Python's standard library: WAL, synchronous=FULL, one table.

A message is an INSERT with a commit of its own. There is one writer at a time whatever the number of connections, and
no group commit: 64 tasks get what one gets. "64 a commit" is what a program gains that gathers them itself.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import low_ends


def missing(home: Path) -> str:
    return ""


class Table:
    """One connection. `gathered` messages are one commit."""

    def __init__(self, home: Path, gathered: int) -> None:
        self._connection = sqlite3.connect(home / "kept.db", isolation_level=None)
        (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
        self._connection.execute("PRAGMA synchronous=FULL")
        if mode != "wal":
            raise SystemExit(f"SQLite is in the mode {mode}, not WAL")
        self._connection.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, body BLOB)")
        self._gathered = gathered
        self._number = 0

    def _store(self) -> None:
        if self._gathered == 1:
            self._insert()
            return
        self._connection.execute("BEGIN")
        for _ in range(self._gathered):
            self._insert()
        self._connection.execute("COMMIT")

    def _insert(self) -> None:
        self._connection.execute("INSERT INTO kept (body) VALUES (?)", (low_ends.body(self._number),))
        self._number += 1

    def each(self, span_ns: int) -> list[int]:
        return low_ends.timed_each(self._store, span_ns)

    def together(self, span_ns: int) -> low_ends.Together:
        first = self._number
        took_ns = sum(self.each(span_ns))
        return self._number - first, took_ns

    def close(self) -> None:
        ((count,),) = self._connection.execute("SELECT count(*) FROM kept")
        self._connection.close()
        if count != self._number:
            raise SystemExit(f"{self._number} were stored, {count} are there")


def store(mode: str, home: Path) -> Table:
    return Table(home, low_ends.TASKS if mode else 1)
