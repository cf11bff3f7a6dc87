"""Measured values by size, regime, contender and run, and the ratios that may be formed of them.

A ratio is of two values of the same run, size and regime: what was measured at another time, or while the cores were
elsewhere, is never set beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Row = tuple[int, str, str]  # size, regime, contender


class Table:
    """One quantity."""

    def __init__(self) -> None:
        self._rows: dict[Row, dict[int, float]] = {}

    def add(self, run: int, size_bytes: int, values: Mapping[tuple[str, str], float]) -> None:
        """The values of one run and size, by contender and regime."""
        for (name, regime), value in values.items():
            self._rows.setdefault((size_bytes, regime, name), {})[run] = value

    def rows(self) -> Iterator[tuple[Row, list[float]]]:
        """Each row with its value in every run that has one."""
        for row, by_run in sorted(self._rows.items()):
            yield row, list(by_run.values())

    def ratios(self, size_bytes: int, ours: str, theirs: str, only: str = "") -> list[float]:
        """Ours divided by theirs, for every run and regime that has both, or for `only` that regime."""
        return [
            value / rival
            for (size, regime, name), by_run in sorted(self._rows.items())
            if size == size_bytes and name == ours and only in ("", regime)
            for run, value in by_run.items()
            if (rival := self._rows.get((size, regime, theirs), {}).get(run))
        ]

    def of(self, name: str, only: str = "") -> list[float]:
        """The values of one contender, for every run and regime, or for `only` that regime."""
        return [v for (_, regime, n), by_run in self.rows() if n == name and only in ("", regime) for v in by_run]
