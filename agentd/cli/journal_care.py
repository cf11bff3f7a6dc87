"""`agentctl journal` backup, gc and repair: what is done with the files of a journal, rather than looked at."""

from __future__ import annotations

import os
import time
from typing import Final

import click

from agentd.cli import show
from agentd.cli.call import Call, argument, option, verb
from agentd.cli.segments import Finding, look_at, place_of
from agentd.wire.errors import AgentdError

#: A backup begins anew when what it needs goes meanwhile.
_TRIES: Final = 20
_COPIED_BYTES: Final = 1 << 20


class BackupFailed(AgentdError):
    """The daemon was faster, each time: what was to be copied was gone."""

    code = "busy"
    exit_status = 75
    retryable = True


class NotEmpty(AgentdError):
    """Something is there already."""

    code = "exists"
    exit_status = 73


@verb("agentctl journal backup /backup/journal", name="backup")
@argument("target", metavar="DIR")
@argument("directory", required=False)
def journal_backup(call: Call, target: str, directory: str | None) -> int:
    """Copy the journal into a fresh directory, as it is at one moment; the daemon may run or not.

    To restore it, put it in the place of the journal while the daemon is down.
    """
    place = place_of(directory)
    if os.path.isdir(target) and os.listdir(target):
        raise NotEmpty(f"{target} is not empty", "Name a directory that is not there yet.")
    os.makedirs(target, mode=0o700, exist_ok=True)
    for _ in range(_TRIES):
        copied = _copy_all(place, target)
        if copied is not None:
            break
        for name in os.listdir(target):
            os.unlink(os.path.join(target, name))
    else:
        raise BackupFailed(f"{place} changes faster than it can be copied", "Try again, or stop the daemon first.")
    segments, records, size_bytes = copied
    if call.as_json:
        show.emit({"directory": place, "copy": target, "segments": segments, "records": records, "bytes": size_bytes})
    else:
        what = f"{show.count(records, 'record')} in {show.count(segments, 'segment')}, {show.size(size_bytes)}"
        show.say(f"{target}: {what}")
    return 0


def _copy_all(place: str, target: str) -> tuple[int, int, int] | None:
    """What the checkpoint needs, and all records that are there now; None where some went meanwhile.

    The checkpoint is read first, so all that it needs is there or is missed. Of the last segment only what was there
    at one moment is copied: else a record could come without one before it.
    """
    from agentd.wire.journal import FIRST_RECORD

    checkpoint = _read(place, "checkpoint")
    needed = _needed(checkpoint)
    segments = [one for one in look_at(place, []) if one["segment"] >= needed >> 32]
    while len(segments) > 1 and not segments[-1]["records"]:
        segments.pop()  # made ahead of need
    records = size_bytes = 0
    for one in segments:
        name = f"{one['segment']:016x}.segment"
        end = max(one["end"] & 0xFFFFFFFF, FIRST_RECORD) if one is segments[-1] else one["file_bytes"]
        if not _copy(os.path.join(place, name), os.path.join(target, name), end, one["file_bytes"]):
            return None
        records += one["records"]
        size_bytes += one["file_bytes"]
    if checkpoint is not None:
        path = os.path.join(target, "checkpoint")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(checkpoint)
            file.flush()
            os.fsync(file.fileno())
        size_bytes += len(checkpoint)
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    return len(segments), records, size_bytes


def _copy(source: str, target: str, end: int, file_bytes: int) -> bool:
    """So much of a file, and zeros; whether it still has its name then, so that it was that segment all the time."""
    try:
        with open(source, "rb") as file, open(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            left = end
            while left > 0 and (data := file.read(min(_COPIED_BYTES, left))):
                copy.write(data)
                left -= len(data)
            copy.flush()
            os.posix_fallocate(copy.fileno(), 0, file_bytes)
            os.fsync(copy.fileno())
            return os.path.samestat(os.fstat(file.fileno()), os.stat(source))
    except FileNotFoundError:
        return False


def _read(place: str, name: str) -> bytes | None:
    try:
        with open(os.path.join(place, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _needed(checkpoint: bytes | None) -> int:
    from agentd.wire.journal import checkpoint_positions

    if checkpoint is None:
        return 0
    try:
        return checkpoint_positions(checkpoint)[1]
    except ValueError:
        return 0


@verb("agentctl journal gc --dry-run\nagentctl journal gc --dry-run --json", name="gc")
@argument("directory", required=False)
@option("--dry-run", is_flag=True, help="Only say it. The daemon removes them by itself, at its checkpoints.")
def journal_gc(call: Call, directory: str | None, dry_run: bool) -> int:
    """Say which segments nothing that is kept lies in, and which of those stay for a while, as history.

    For how long, journal.history_s and journal.history_bytes say, as a daemon started from this environment has them.
    """
    from pathlib import Path

    from agentd.cli.care import load_settings
    from agentd.host.retention import history_begins, segment_files
    from agentd.wire.journal import OFFSET_BITS, position_text

    if not dry_run:
        raise click.UsageError("The daemon removes them by itself, at its checkpoints. --dry-run says which they are.")
    place = place_of(directory)
    found = segment_files(Path(place))
    needed = _needed(_read(place, "checkpoint"))
    if not found:
        look_at(place, [])  # says what is wrong
    stays = history_begins(found, needed, load_settings(None)[0].journal, time.time())
    unneeded = [file for file in found[:-1] if file.number < needed >> OFFSET_BITS]
    gone = [file for file in unneeded if file.number < stays]
    history = [file for file in unneeded if file.number >= stays]
    freed, held = sum(file.size_bytes for file in gone), sum(file.size_bytes for file in history)
    kept = sum(file.size_bytes for file in found) - freed
    if call.as_json:
        files = [[{"segment": f.number, "file_bytes": f.size_bytes} for f in some] for some in (gone, history)]
        more = {"segments": files[0], "bytes": freed, "kept_bytes": kept, "history": files[1], "history_bytes": held}
        show.emit({"directory": place, "needed_from": needed, **more})
        return 0
    for file in unneeded:
        mark = "  history" if file.number >= stays else ""
        show.say(f"{file.number:016x}.segment  {show.size(file.size_bytes)}{mark}")
    what = f"{show.count(len(gone), 'segment')} not needed, {show.size(freed)}"
    what += f"; {show.count(len(history), 'segment')} history, {show.size(held)}" if history else ""
    show.say(f"{place}: {what}; {show.size(kept - held)} from {position_text(needed)} on needed")
    return 0


@verb("agentctl journal repair\nagentctl journal repair --json", name="repair")
@argument("directory", required=False)
def journal_repair(call: Call, directory: str | None) -> int:
    """Bring the journal of a daemon that is down in order, as its next start would, and say what was found.

    Where there is something to do, the journal as it was is copied beside itself first. Damage is left where it is and
    passed over; an end that was never synced is moved to broken-POSITION.
    """
    from agentd import _native
    from agentd.wire.journal import checkpoint_positions

    place = place_of(directory)
    findings: list[Finding] = []
    segments = look_at(place, findings)
    data, start, is_broken = _read(place, "checkpoint"), 0, False
    if data is not None:
        try:
            start = checkpoint_positions(data)[0]
        except ValueError:
            is_broken = True
    copy = None
    if findings or is_broken:
        copy = _copy_beside(place)
    told: list[Finding] = []
    size_bytes = segments[-1]["file_bytes"] if segments else 64 << 20
    try:
        journal = _native.Journal(place, size_bytes, start, lambda *what: told.append(Finding(*what)))
    except BlockingIOError as error:
        raise _in_use(place) from error
    journal.close()
    if is_broken:
        os.rename(os.path.join(place, "checkpoint"), os.path.join(place, "checkpoint.broken"))
    findings = told + [one for one in findings if one.is_damage and one.position not in {o.position for o in told}]
    if call.as_json:
        rows = [one.as_object() for one in findings]
        show.emit({"directory": place, "copy": copy, "checkpoint_is_broken": is_broken, "findings": rows})
        return 0
    for one in findings:
        show.say(str(one))
    if is_broken:
        show.say("the checkpoint can't be read: it is checkpoint.broken now, and the whole journal is read instead")
    show.say(f"{place}: {f'in order; as it was: {copy}' if copy else 'nothing was to be done'}")
    return 0


def _copy_beside(place: str) -> str:
    """Everything, while nobody may write it."""
    import fcntl
    import shutil

    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        copy = f"{place.rstrip('/')}.before-repair-{time.strftime('%Y%m%dT%H%M%S')}"
        shutil.copytree(place, copy)
    except BlockingIOError as error:
        raise _in_use(place) from error
    finally:
        os.close(lock)
    return copy


def _in_use(place: str) -> AgentdError:
    from agentd.wire.errors import Busy

    return Busy(f"{place} is in use: its daemon runs", "`agentctl daemon stop` first.")
