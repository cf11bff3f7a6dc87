"""The NORMAL lane, measured: every topology beside its rivals, and one table of promises.

Runs request_reply, one_to_one, many_agents, runaway, footprint and startup one after the other, each its own command,
with the options given here; prints their figures, then what was promised, what was measured, and whether it holds.
--json prints one object with the reports of all six. Exits 1 when a measurement failed, not when a promise is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import machine
import msgspec
import report

BENCHES: Final = ("request_reply", "one_to_one", "many_agents", "runaway", "footprint", "startup")


class Reports(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    bench: str
    machine: machine.Machine
    reports: list[report.Report]
    failed: list[str]


def main() -> None:
    """All of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", help=f"of {', '.join(BENCHES)} (all)", default=[])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--runs", type=int, help="runs of each (3)")
    parser.add_argument("--only", help="contenders, separated by commas")
    parser.add_argument("--no-pin", action="store_true", help="let the scheduler place the two ends")
    parser.add_argument("--smoke", action="store_true", help="tiny, without rivals and thresholds: does it work?")
    chosen = parser.parse_args()
    if unknown := set(chosen.bench) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    here = machine.describe()
    if not chosen.json:
        print(here.line(), flush=True)
    passed_on = ["--smoke"] * chosen.smoke + ["--no-pin"] * chosen.no_pin
    passed_on += [f"--runs={chosen.runs}"] if chosen.runs else []
    passed_on += [f"--only={chosen.only}"] if chosen.only else []
    reports: list[report.Report] = []
    failed: list[str] = []
    for name in chosen.bench or BENCHES:
        program = Path(__file__).with_name(f"{name}.py")
        done = subprocess.run([sys.executable, program, "--json", *passed_on], stdout=subprocess.PIPE)
        if done.returncode:
            failed.append(name)
            continue
        reports.append(msgspec.json.decode(done.stdout, type=report.Report))
        if not chosen.json:
            report.print_figures(reports[-1])
            sys.stdout.flush()
    if chosen.json:
        print(msgspec.json.encode(Reports("normal", here, reports, failed)).decode())
    else:
        report.print_verdicts(reports)
    if failed:
        sys.exit(f"These failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
