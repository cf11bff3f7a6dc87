"""The journal in the daemon: what the hub wants kept is appended, synced together, and told of; checkpoints keep the
next start short.

What one turn of the loop appended leaves in one go at the turn's end. With `synced` it is answered when the disk has
it: one sync is under way at a time, and what comes meanwhile waits for the next one, together. With `mapped` it is
answered at the end of the turn, when the kernel has it: that survives a kill of the daemon, not a power cut.
What nobody waits for is synced a moment later, with what comes until then.

The first error of a sync ends it all: the kernel may have dropped what it could not write, so nothing more is said to
be stored until the daemon is started anew and has read what is really there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from agentd import _native
from agentd.host.config import JournalSettings
from agentd.host.directories import prepare_directory
from agentd.hub import checkpoint
from agentd.hub.checkpoint import Checkpoint
from agentd.hub.hub import Hub
from agentd.hub.receipts import Entry
from agentd.server import checkpoints, syncing
from agentd.server.ahead import PASSING, Ahead
from agentd.server.checkpoints import CHECKPOINT
from agentd.server.disk import FULL, drop_old_cuts, read_checkpoint, sync_directory
from agentd.server.history import History
from agentd.server.looking_back import LookingBack
from agentd.server.notes import Notes
from agentd.server.space import Space
from agentd.server.syncing import Later, Syncing, sync_all
from agentd.wire.errors import AgentdError, BadRequest, Busy, JournalFailed, TooLarge
from agentd.wire.messages import DiskView, Level
from agentd.wire.stored import Kept, Record, decode_record

log = logging.getLogger(__name__)

DIRECTORY: Final = "journal"
#: The one type of record: what it is, its body says.
_TYPE: Final = 1
_AT_A_TIME: Final = 1000
#: So long until a checkpoint is tried again that found no room, or made none.
_TRY_AGAIN_S: Final = 0.5
#: What nobody waits for is synced after that long, what is history alone after the second, or once there is that much.
_SOON_S: Final = 0.01
_LAZY_S: Final = 1.0
_LAZY_BYTES: Final = 1 << 20


class Journal:
    """Of one state directory, with one daemon at a time."""

    def __init__(self, settings: JournalSettings, state_dir: Path) -> None:
        self._settings = settings
        self._directory = state_dir / DIRECTORY
        self._native: _native.Journal
        self._hub: Hub
        self._threads = ThreadPoolExecutor(2, "agentd-journal")
        self._past = LookingBack(self._directory)
        self._after: Callable[[float], None] = lambda now: None
        self._clock: Callable[[], float]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._syncing: Syncing | None = None  # once there is a loop
        self._is_syncing = False
        self._is_checking = False
        self._flushed = 0  # up to where the kernel has it
        self._checked = 0  # what the latest checkpoint covers
        self._notes = Notes(lambda body: self._append_after(self._space.check_note, body))
        self._space = Space(settings, self._directory)
        self._ahead = Ahead(settings, self._directory, self._space.disk, self._do, self._fail)
        self._history = History(settings, self._directory, self._space, _TYPE, self._fail)
        self._wanted = 0  # what lies before it is to be synced soon
        self._later = Later(self._sync_later)
        self._next_try = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self.failed = ""  # why nothing is kept any more
        self._waiting: tuple[Checkpoint, list[Entry]] | None = None  # until what it builds on is synced

    @property
    def persistence(self) -> str:
        """For people."""
        if self.failed:
            return f"nothing more is kept: {self.failed}"
        survives = "power cuts" if self._settings.level == "synced" else "kills of the daemon, not power cuts"
        return f"names, mail for absent agents and dead letters are kept in {self._directory}; they survive {survives}"

    def disk_view(self) -> DiskView | None:
        """What it takes of the disk."""
        return self._space.view()

    # The start.

    def restore(self, hub: Hub, now: float) -> None:
        """Open it, and fill the fresh hub with what it has."""
        self._hub = hub
        prepare_directory(self._directory)
        sync_directory(self._directory.parent)  # or a power cut takes all of it
        data, known = read_checkpoint(self._directory / CHECKPOINT)
        start = 0 if known is None else known.position
        try:
            self._native = _native.Journal(str(self._directory), self._settings.segment_bytes, start, self._report)
        except OSError as error:
            raise OSError(error.errno, f"the journal can't be opened: {error.strerror}", str(self._directory)) from None
        if dropped := drop_old_cuts(self._directory):
            log.warning("removed the oldest copies of ends that were never synced: %s", ", ".join(dropped))
        recovered = checkpoint.recover(data, self._kept_at, self._records(start), self._native.expect)
        checkpoint.restore(hub, recovered, now)
        self._flushed = self._checked = self._native.tail
        self._space.open(self._native, hub)
        self._history.open(self._native, 0 if known is None else checkpoint.needed(known))
        hub.receipts.journal.book, hub.receipts.journal.level = self, Level(self._settings.level)
        hub.receipts.journal.reached(self._native.synced, now, Level.SYNCED)  # what was found there
        if recovered.missing:
            log.error("%d messages are lost: their records are damaged", recovered.missing)
        log.info("took over %s", checkpoint.counted(hub))

    def _report(self, what: str, position: int, size_bytes: int) -> None:
        log.error("the journal is damaged at %#x: %s, %d bytes", position, what, size_bytes)

    def _kept_at(self, position: int) -> Kept | None:
        try:
            found = self._native.read(position)
            record = None if found is None else decode_record(found[1])
        except (OSError, BadRequest):
            return None
        return record if isinstance(record, Kept) else None

    def _records(self, position: int) -> Iterator[tuple[int, Record]]:
        position = max(position, self._native.first)
        while found := self._native.scan(position, _AT_A_TIME):
            for at, _, body in found:
                try:
                    yield at, decode_record(body)
                except BadRequest as error:
                    log.error("the record at %#x is none of this version: %s", at, error.message)
            last, _, _ = found[-1]
            after = self._native.read(last)
            assert after is not None
            position = after[2]

    def serve(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], after: Callable[[float], None]
    ) -> None:
        """From now on there is a loop; `after(now)` is called when senders were told something outside their turn."""
        self._loop, self._clock, self._after = loop, clock, after
        self._syncing = syncing.make(loop, self._threads, self._settings.io_uring)
        self._history.serve(loop)
        self._look_ahead()

    # What the hub says.

    def append(self, body: bytes, *, wait: bool = False) -> int:
        """See Book."""
        if self.failed:
            raise self._failure()
        try:
            self._space.check_mail(len(body), is_preparing=self._ahead.is_preparing)
            try:
                position = self._append(body)
            except BlockingIOError:
                if not wait:
                    raise
                self._sync_here()
                position = self._append(body)
        except OSError as error:
            raise self._refusal(error) from None
        self._wanted = position + 1
        return position

    def note(self, body: bytes) -> None:
        """See Book."""
        self._notes.add(body)

    def record(self, body: bytes) -> None:
        """See Book."""
        if not self.failed:
            self._history.record(body, is_preparing=self._ahead.is_preparing)

    def move(self, body: bytes) -> int:
        """See Book."""
        return self._append_after(self._space.check_moved, body)

    def _append(self, body: bytes) -> int:
        """Behind what was noted before."""
        if not self._notes.write():
            raise BlockingIOError(errno.EAGAIN, "a note waits for a sync")
        return self._native.append(_TYPE, body)

    def _append_after(self, check: Callable[[int], None], body: bytes) -> int:
        if self.failed:
            raise self._failure()
        number = self._native.next_number
        try:
            check(len(body))
            position = self._native.append(_TYPE, body)
        except OSError as error:
            raise self._refusal(error) from None
        if self._native.next_number != number:
            self._space.note_rolled()
        self._wanted = position + 1
        return position

    def look_back(self, take: Callable[[Record], None], then: Callable[[str], None]) -> None:
        """See Book."""

        assert self._loop is not None
        with suppress(OSError):  # it has failed: what there is can be read all the same
            self._native.flush()
        self._past.look(self._loop, self._native.tail, take, then, self._again)

    def left_out(self, count: int, why: AgentdError) -> None:
        """See Book."""
        log.warning("%d messages for agents that have left are in memory alone: %s", count, why.message)

    def _refusal(self, error: OSError) -> AgentdError:
        if error.errno in FULL:
            self._space.disk.failed(error)
            return self._space.full(error.strerror or str(error))
        if error.errno in PASSING:
            return Busy(f"No segment can be opened: {error.strerror}", "Try again in a moment.", retry_after=0.5)
        if error.errno == errno.EAGAIN:
            return Busy("The disk is slower than what it has to keep", "Try again in a moment.", retry_after=0.05)
        if error.errno == errno.EMSGSIZE:
            return TooLarge(
                "The message does not fit into a segment of the journal", "journal.segment_bytes sets their size."
            )
        self._fail(error)
        return self._failure()

    def _failure(self) -> JournalFailed:
        return JournalFailed(
            f"Nothing is kept any more: {self.failed}",
            "Look at the disk, then restart agentd: it keeps what it can read.",
        )

    def _fail(self, error: OSError) -> None:
        if not self.failed:
            self.failed = f"{self._directory}: {error.strerror or error}"
            log.critical("the journal failed, nothing more is stored until agentd is started anew: %s", self.failed)
            self._hub.receipts.journal.failed(self._failure())
            if self._loop is not None:
                self._loop.call_soon(self._again)

    # Turns, syncs, checkpoints.

    def end_turn(self, now: float) -> None:
        """What the turn appended leaves, and what can be told is."""
        self._hub.receipts.journal.end_turn()
        native = self._native
        is_done = min(self._flushed, native.synced) >= native.tail and not self._notes
        if self.failed or (is_done and not (self._notes.has_holes or self._space.is_restless)):
            return
        self._notes.write()
        self._look_ahead()
        try:
            native.flush()
        except OSError as error:
            self._fail(error)
            return
        self._flushed = native.tail
        self._hub.receipts.journal.reached(native.tail, now, Level.MAPPED)
        unsynced = native.tail - native.synced
        if self._is_syncing or not unsynced:
            return
        is_awaited = self._hub.receipts.journal.is_awaited or self._waiting is not None
        if is_awaited or unsynced > _LAZY_BYTES or self._notes:
            self._sync()
        elif self._loop is not None:
            self._later.within(_SOON_S if native.synced < self._wanted else _LAZY_S, self._loop)

    def _sync_later(self) -> None:
        if not self._is_syncing and not self.failed and self._native.synced < self._native.tail:
            self._sync()

    def _sync(self) -> None:
        if self._syncing is None:
            return
        position, files = self._native.begin_sync()
        self._is_syncing = True
        self._syncing.begin(files, lambda error: self._synced(position, error))

    def _synced(self, position: int, error: OSError | None) -> None:
        self._is_syncing = False
        self._end_sync(error)
        now = self._clock()
        if not self.failed:
            self._hub.receipts.journal.reached(position, now, Level.SYNCED)
            self._write_checkpoint()
        self._after(now)

    def _sync_here(self) -> int:
        """Everything, while the caller waits; up to where. An OSError where it fails."""
        if self._is_syncing and self._syncing is not None:
            self._is_syncing = False
            self._end_sync(self._syncing.wait())
        position, files = self._native.begin_sync()
        error = sync_all(files)
        self._end_sync(error)
        if error is not None:
            raise error
        return position

    def _do(self, action: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """In a thread; and then in the loop, if there still is one."""
        loop = self._loop
        assert loop is not None

        def done(future: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: self._then(then, future.exception()))

        self._threads.submit(action).add_done_callback(done)

    def _then(self, then: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        if self._loop is not None:
            then(error)

    def _end_sync(self, error: OSError | None) -> None:
        if error is None and self._native.synced < self._native.tail:
            error = self._space.disk.missing(self._native.next_number - 1)
        self._native.end_sync(0 if error is None else error.errno or errno.EIO)
        if error is not None:
            self._fail(error)

    def _look_ahead(self) -> None:
        """See that there is a next segment, and a checkpoint once there is enough to read anew, or no room."""
        if self._loop is None or self.failed:
            return
        try:
            self._ahead.prepare(self._native)
        except OSError as error:
            self._fail(error)
            return
        space = self._space
        if self._waiting is None and not self._is_checking and not space.is_moving and self._is_due():
            space.begin_moving(self._hub.receipts.journal.untold(self._native.tail))
        elif not space.is_moving:
            return
        if space.move_some():
            self._loop.call_soon(self._again)
            return
        self._collect()
        self._write_checkpoint()

    def _is_due(self) -> bool:
        native = self._native
        if self._space.has_moved or native.tail - self._checked > self._settings.checkpoint_bytes:
            return True
        if not (self._notes.has_holes or (self._space.is_short and native.tail > self._checked)):
            return False
        now = time.monotonic()
        if now < self._next_try:
            if self._retry is None and self._loop is not None:
                self._retry = self._loop.call_later(self._next_try - now, self._again)
            return False
        self._next_try = now + _TRY_AGAIN_S
        return True

    def _again(self) -> None:
        self._retry = None
        if self._loop is not None:
            self._after(self._clock())

    def _collect(self) -> None:
        position = self._native.tail
        is_tight = self._space.is_short or self._notes.has_holes  # then it is as small as can be
        self._notes.has_holes = False
        found = checkpoint.collect(self._hub, position)
        self._waiting = (found, [] if is_tight else checkpoints.ended(self._hub, self._settings))

    def _write_checkpoint(self) -> None:
        if self._waiting is None or self._native.synced < self._waiting[0].position or self._loop is None:
            return
        (found, over), self._waiting = self._waiting, None
        self._is_checking = True
        self._do(partial(checkpoints.write, self._directory, found, over), partial(self._checkpoint_written, found))

    def _checkpoint_written(self, found: Checkpoint, error: BaseException | None) -> None:
        self._is_checking = False
        self._checked = found.position
        if error is None:
            lowest = checkpoint.needed(found)
            went_on = lowest >> 32 > self._history.needed >> 32
            self._history.needed = lowest
            try:
                self._history.retire()
            except OSError as failure:
                self._fail(failure)
                return
            self._space.has_moved = self._space.has_moved and went_on  # there may be more that is worth it
        else:
            self._notes.has_holes = True  # the old one has not what this one has
            self._space.has_moved = False
            log.warning("no checkpoint of the journal, the next start takes longer: %s", error)
            if not isinstance(error, OSError) or error.errno not in (*FULL, *PASSING):
                self._fail(error if isinstance(error, OSError) else OSError(errno.EIO, repr(error)))
                return
        if self._space.has_moved or self._notes.has_holes or self._space.is_short:
            self._again()

    # The end.

    def close(self, hub: Hub, now: float) -> None:
        """The sessions have left: what they left behind is synced, and a checkpoint makes the next start short. An
        OSError where that fails; what was stored before is there all the same."""
        self._loop = None
        self._later.cancel()
        self._past.close()
        self._threads.shutdown()
        hub.receipts.journal.end_turn()
        self._history.close()
        try:
            if self.failed:
                raise OSError(errno.EIO, f"what was not stored by then is lost: {self.failed}", str(self._directory))
            try:
                hub.receipts.journal.reached(self._sync_here(), now, Level.SYNCED)
                if self._notes and self._notes.write():
                    self._sync_here()
            except OSError as error:
                self._fail(error)
                raise OSError(
                    error.errno, f"{error.strerror}: what was not stored is lost", str(self._directory)
                ) from None
            self._collect()
            assert self._waiting is not None
            found, over = self._waiting
            try:
                checkpoints.write(self._directory, found, over)
            except OSError as error:
                why = f"{error.strerror}: no checkpoint was written, so the next start takes longer; nothing is lost"
                raise OSError(error.errno, why, str(self._directory)) from None
            self._history.needed = checkpoint.needed(found)
            self._history.retire()
            log.info("kept %s", checkpoint.counted(hub))
        finally:
            if self._syncing is not None:
                self._syncing.close()
            with suppress(OSError):  # one that failed says so once more
                self._native.close()
