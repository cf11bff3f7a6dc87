"""What a benchmark says: figures, verdicts and what was left out; as a table for people, as one JSON object for tools.

A verdict compares a figure with its target in every run and every regime that occurred: "holds" if all of them meet it,
"misses" if none does, "mixed" otherwise. What was not measured is "not run", with its reason; nothing is assumed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import machine
import msgspec
from sampler import Summary, median


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measured quantity: the median of the runs, and their range."""

    what: str
    contender: str
    value: float
    unit: str
    low: float
    high: float
    size_bytes: int = 0
    regime: str = ""
    verified: int = 0  # how many operations were checked: all that were counted
    summary: Summary | None = None  # of all samples of all runs


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """A promise beside what was measured."""

    what: str
    target: str
    verdict: Literal["holds", "misses", "mixed", "not run"]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    reason: str = ""


class Left(msgspec.Struct, frozen=True):
    """What was left out, and why."""

    what: str
    reason: str


class Report(msgspec.Struct):
    """The one object that `--json` prints."""

    bench: str
    machine: machine.Machine
    smoke: bool
    runs: int
    settings: dict[str, float | int | str | bool]
    figures: list[Figure] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)
    left_out: list[Left] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def figure(self, what: str, contender: str, unit: str, by_run: Sequence[float], **more: object) -> None:
        """Add the figure of these runs."""
        value, low, high = map(_rounded, (median(by_run), min(by_run), max(by_run)))
        fields = {"what": what, "contender": contender, "unit": unit, "value": value, "low": low, "high": high}
        self.figures.append(msgspec.convert({**fields, **more}, Figure))

    def at_most(self, what: str, bound: float, measured: Sequence[float], unit: str = "", reason: str = "") -> None:
        """Judge `measured` (one value a run and regime) against an upper bound."""
        self._judge(what, f"≤ {bound:g} {unit}", [value <= bound for value in measured], measured, unit, reason)

    def at_least(self, what: str, bound: float, measured: Sequence[float], unit: str = "", reason: str = "") -> None:
        """Judge `measured` against a lower bound."""
        self._judge(what, f"≥ {bound:g} {unit}", [value >= bound for value in measured], measured, unit, reason)

    def _judge(
        self, what: str, target: str, met: Sequence[bool], measured: Sequence[float], unit: str, reason: str
    ) -> None:
        target = target.strip()
        if self.smoke:
            self.verdicts.append(Verdict(what, target, "not run", reason="a smoke run has no thresholds"))
        elif not measured:
            self.verdicts.append(Verdict(what, target, "not run", reason=reason or "no chunk was kept"))
        else:
            verdict: Literal["holds", "misses", "mixed"] = "holds" if all(met) else "mixed" if any(met) else "misses"
            value, low, high = map(_rounded, (median(measured), min(measured), max(measured)))
            self.verdicts.append(Verdict(what, target, verdict, value, low, high, unit))

    def leave_out(self, what: str, reason: str) -> None:
        """Say what was not measured."""
        if Left(what, reason) not in self.left_out:
            self.left_out.append(Left(what, reason))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10_000 else f"{value:g}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_number(low)}–{_number(high)}"


def size(size_bytes: int) -> str:
    """For people."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


def print_figures(report: Report) -> None:
    """The figures and notes of one benchmark."""
    print(f"\n{report.bench}  ({report.runs} runs; median, range of the runs)")
    rows = [["what", "contender", "size", "regime", "figure", "range", "p99", "p99.9", "max", "verified"]]
    for f in report.figures:
        s = f.summary
        in_unit = {"ms": 1000, "ns": 0.001}.get(f.unit, 1)
        tail = [_number(round(v / in_unit)) for v in (s.p99_us, s.p999_us, s.max_us)] if s else ["", "", ""]
        value = f"{_number(f.value)} {f.unit}"
        verified = f"{f.verified:,}" if f.verified else ""
        rows.append(
            [
                f.what,
                f.contender,
                size(f.size_bytes) if f.size_bytes else "",
                f.regime,
                value,
                _span(f.low, f.high),
                *tail,
                verified,
            ]
        )
    print(*_aligned(rows), sep="\n")
    for note in report.notes:
        print(f"  {note}")


def print_verdicts(reports: Sequence[Report]) -> None:
    """One table of promises, then what was left out."""
    rows = [["promise", "target", "figure", "range", "verdict"]]
    for report in reports:
        for v in report.verdicts:
            outcome = f"{v.verdict}: {v.reason}" if v.reason else v.verdict
            value = f"{_number(v.value)} {v.unit}".strip()
            rows.append([v.what, v.target, value, _span(v.low, v.high), outcome])
    print()
    print(*_aligned(rows), sep="\n")
    left_out = {(left.what, left.reason) for report in reports for left in report.left_out}
    for what, reason in sorted(left_out):
        print(f"  {what}: {reason}")


class Sizes(msgspec.Struct):
    """How large a benchmark is: its defaults, and what --smoke makes of them."""

    seconds: float = 2.0  # of measuring, a contender, size and run
    count: int = 10_000  # messages a chunk, or whatever the benchmark counts
    runs: int = 3
    smoke_seconds: float = 0.1
    smoke_count: int = 500


def options(doc: str, sizes: Sizes) -> argparse.Namespace:
    """The command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--seconds", type=float, help=f"measuring time a contender, size and run ({sizes.seconds:g})")
    parser.add_argument("--count", type=int, help=f"messages a chunk, or things counted ({sizes.count})")
    parser.add_argument("--runs", type=int, help=f"({sizes.runs})")
    parser.add_argument("--only", default="", help="contenders, separated by commas: agentd/asyncio,nats/uvloop")
    parser.add_argument("--no-pin", action="store_true", help="let the scheduler place the two ends")
    parser.add_argument("--smoke", action="store_true", help="tiny, without rivals and thresholds: does it work?")
    chosen = parser.parse_args()
    smoke = chosen.smoke
    chosen.seconds = chosen.seconds or (sizes.smoke_seconds if smoke else sizes.seconds)
    chosen.count = chosen.count or (sizes.smoke_count if smoke else sizes.count)
    chosen.runs = chosen.runs or (1 if smoke else sizes.runs)
    return chosen


def begin(bench: str, chosen: argparse.Namespace) -> Report:
    """An empty report of this benchmark."""
    settings = {key: value for key, value in vars(chosen).items() if key not in ("json", "smoke", "runs")}
    return Report(bench, machine.describe(), chosen.smoke, chosen.runs, settings)


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for sockets, stores and logs, with a path short enough for a socket; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="abench", dir="/tmp") as path:
        yield Path(path)


def main(doc: str, sizes: Sizes, measure: Callable[[argparse.Namespace, Path], Report]) -> None:
    """The command of one benchmark."""
    chosen = options(doc, sizes)
    if not chosen.json:
        print(machine.describe().line(), flush=True)
    try:
        with workplace() as home:
            report = measure(chosen, home)
    except RuntimeError as error:
        sys.exit(f"The benchmark failed: {error}")
    if chosen.json:
        print(msgspec.json.encode(report).decode())
    else:
        print_figures(report)
        print_verdicts([report])
