"""`agentctl doctor`: everything that can be wrong, looked at, worst first, each with its remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agentd.cli import show
from agentd.cli.call import Call, option, verb
from agentd.cli.patient import ERROR, NOTICE, OK, SEVERITIES, WARNING, Finding, Patient, examine_patient

_COLOURS = {ERROR: "red", WARNING: "yellow", NOTICE: "bold", OK: "dim"}


@verb("agentctl doctor\nagentctl doctor --fix\nagentctl doctor --json")
@option("--fix", is_flag=True, help="Do the remedies that can harm nothing: modes of own directories, dead files.")
def doctor(call: Call, fix: bool) -> int:
    """Look at everything that agentd needs, and at everybody who uses it; say what is wrong and what to do.

    Works without a daemon, too. Exit code 1 when there is a warning or an error, 0 when there are at most notices.
    """
    if call.socket is not None:
        os.environ["AGENTD_SOCKET"] = call.socket
    findings = list(diagnose(examine_patient(os.environ)))
    fixed: list[str] = []
    if fix:
        fixed = [_fixed(finding) for finding in findings if finding.fix is not None]
        findings = list(diagnose(examine_patient(os.environ)))
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    wrong = any(finding.severity in (ERROR, WARNING) for finding in findings)
    if call.as_json:
        names = ("check", "severity", "what", "remedy")
        rows = [
            {**dict(zip(names, finding[:4], strict=True)), "fixable": finding.fix is not None} for finding in findings
        ]
        show.emit({"findings": rows, "fixed": fixed, "ok": not wrong})
    else:
        show.say(*(f"fixed: {done}" for done in fixed), *_lines(findings))
    return int(wrong)


def diagnose(patient: Patient) -> Iterator[Finding]:
    """All that the checks find."""
    from agentd.cli.checks import MACHINE_CHECKS
    from agentd.cli.checks_daemon import DAEMON_CHECKS

    for check in (*DAEMON_CHECKS, *MACHINE_CHECKS):
        yield from check(patient)


def _fixed(finding: Finding) -> str:
    assert finding.fix is not None
    try:
        return finding.fix()
    except OSError as error:
        return f"could not: {finding.remedy}: {error.strerror}"


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark = show.paint(f"{finding.severity:7}", _COLOURS[finding.severity])
        yield f"{mark}  {finding.check:{width}}  {show.cell(finding.what)}"
        if finding.remedy and finding.severity != OK:
            yield f"{'':7}  {'':{width}}  → {show.cell(finding.remedy)}" + (
                "  (--fix does it)" if finding.fix is not None else ""
            )
