"""`agentctl journal`: what is on disk, read from the files themselves: the daemon may run or not. What writes is
in journal_care.py.

What a record's body means is the daemon's business. Here it is what its msgpack says, or its first bytes.
"""

from __future__ import annotations

from typing import Any, Final

import click

from agentd.cli import show
from agentd.cli.call import Call, Verbs, argument, option, verb
from agentd.cli.journal_care import journal_backup, journal_gc, journal_repair
from agentd.cli.segments import Finding, look_at, place_of

#: A body beyond that is shown by its first bytes: a line is for reading.
_MOST_DECODED_BYTES: Final = 64 << 10
_FIRST_BYTES: Final = 32


class Position(click.ParamType[int]):
    """A place in the journal: SEGMENT:OFFSET, or the number that is both."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that `value` stands for."""
        from agentd.wire.journal import position_value

        position = value if isinstance(value, int) else position_value(value)
        if position is None:
            self.fail(f"{value!r} is no position: write SEGMENT:OFFSET as `dump` prints it, or its number.", param, ctx)
        return position


@verb("agentctl journal check\nagentctl journal check /backup/journal", name="check")
@argument("directory", required=False)
def journal_check(call: Call, directory: str | None) -> int:
    """Read every record of every segment, and say what is damaged.

    Exit code 1 where something is. What a crash left unfinished is named too, and is no damage: it was never synced.
    Without DIRECTORY the journal of the daemon that this environment would start.
    """
    place = place_of(directory)
    findings: list[Finding] = []
    segments = look_at(place, findings)
    if any(finding.is_damage for finding in findings):
        # A record that a daemon was just storing can look like damage once, in one place: real damage stays.
        before = {finding.position for finding in findings}
        findings = []
        segments = look_at(place, findings)
        findings = [finding for finding in findings if not finding.is_damage or finding.position in before]
    damaged = [finding for finding in findings if finding.is_damage]
    records, size_bytes = sum(one["records"] for one in segments), sum(one["bytes"] for one in segments)
    if call.as_json:
        told = [finding.as_object() for finding in findings]
        more = {"segments": len(segments), "records": records, "bytes": size_bytes}
        show.emit({"ok": not damaged, "directory": place, **more, "findings": told})
        return bool(damaged)
    for finding in findings:
        show.say(show.paint(str(finding), "red" if finding.is_damage else "yellow"))
    what = f"{show.count(records, 'record')} in {show.count(len(segments), 'segment')}, {show.size(size_bytes)}"
    show.say(f"{place}: {what}: {show.count(len(damaged), 'place') + ' damaged' if damaged else 'fine'}")
    return bool(damaged)


@verb("agentctl journal ls\nagentctl journal ls --json", name="ls")
@argument("directory", required=False)
def journal_ls(call: Call, directory: str | None) -> int:
    """List the segments: how many records each has, of how many bytes, and since when it is there."""
    place = place_of(directory)
    findings: list[Finding] = []
    segments = look_at(place, findings)
    if call.as_json:
        show.emit({"directory": place, "segments": segments})
        return 0
    rows = []
    for one in segments:
        first, last = (str(one[which] or "") for which in ("first", "last"))
        written = show.clock(one["written_at"])
        size = show.size(one["bytes"])
        rows.append([str(one["segment"]), str(one["records"]), size, first, last, show.clock(one["made_at"]), written])
    show.say(*show.table(["segment", "records", "size", "first", "last", "made", "written"], rows))
    damaged = sum(finding.is_damage for finding in findings)
    if damaged:
        show.say(f"{show.count(damaged, 'place')} damaged: `agentctl journal check` tells where.")
    return 0


@verb("agentctl journal dump --limit 20\nagentctl journal dump --from 3:4096 --json", name="dump")
@argument("directory", required=False)
@option("--from", "start", type=Position(), default=0, metavar="POSITION", help="Begin there; SEGMENT:OFFSET.")
@option("--limit", type=click.IntRange(1), metavar="N", help="End after so many.")
def journal_dump(call: Call, directory: str | None, start: int, limit: int | None) -> int:
    """Print the records, a line each: position, sequence, type, size, and what is in it.

    A body that is msgpack is shown as JSON, another by its first bytes in hexadecimal.
    """
    from agentd.wire.journal import position_text

    printed = 0
    findings: list[Finding] = []  # all are known before the first record

    def record(position: int, sequence: int, type: int, body: bytes) -> bool:
        nonlocal printed
        printed += 1
        pass_findings(position)
        value, is_value = _decoded(body)
        if call.as_json:
            show.emit(
                {
                    "position": position,
                    "sequence": sequence,
                    "type": type,
                    "size_bytes": len(body),
                    **({"body": value} if is_value else {"first_bytes": value}),
                }
            )
        else:
            text = _as_text(value) if is_value else value
            show.say(f"{position_text(position):>12}  {sequence:>8}  {type:>4}  {len(body):>8}  {show.cell(text)}")
        return limit is None or printed < limit

    def pass_findings(until: int) -> None:
        while findings and findings[0].position < until:
            finding = findings.pop(0)
            if call.as_json:
                show.emit({"no_record": finding.as_object()})
            else:
                show.warn(str(finding))

    place = place_of(directory)
    if not call.as_json:
        show.say(show.paint(f"{'position':>12}  {'sequence':>8}  {'type':>4}  {'size':>8}  body", "dim"))
    look_at(place, findings, record, start)
    if limit is None or printed < limit:
        pass_findings(1 << 64)
    return 0


def _decoded(body: bytes) -> tuple[Any, bool]:
    """What JSON can show of a body, and whether that is its value; else its first bytes."""
    from agentd.wire.journal import shown_body

    if len(body) <= _MOST_DECODED_BYTES:
        try:
            return shown_body(body), True
        except ValueError:
            pass  # no msgpack: it has bytes at least
    return body[:_FIRST_BYTES].hex() + ("…" if len(body) > _FIRST_BYTES else ""), False


def _as_text(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


journal = Verbs(
    "journal",
    help="Look at what is on disk, also while the daemon is down.",
    example="agentctl journal\nagentctl journal check\nagentctl journal dump --from 3:4096 --limit 20",
    default="ls",
    commands={
        "check": journal_check,
        "ls": journal_ls,
        "dump": journal_dump,
        "backup": journal_backup,
        "gc": journal_gc,
        "repair": journal_repair,
    },
)
