"""A file from another agent, in steps: asked for when the application saves it, and written as its pieces come.

Its pair is taken out of the lane's mailbox for that and read by one of its own, so that the pieces come here and other
mail goes on. Until the file is whole it has no name where the file system can do that, else a hidden one.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from agentd import _native
from agentd.wire import records
from agentd.wire.errors import AgentdError, BadRequest, FileChanged, FileIncomplete, Timeout
from agentd_client._disk import BlockingDisk, Disk, Job, LoopDisk, Wake
from agentd_client._sending import deadline
from agentd_client._target import Target, safe_name
from agentd_client.message import failure
from agentd_client.receipt import Call, Steps

if TYPE_CHECKING:
    from agentd_client._options import FilePath, Progress
    from agentd_client._pairs import DirectRecord

#: How often it is looked whether another thread has let go of the pair, and how long what is said of a file waits
#: for room.
_LOOK_S: Final = 0.0002
_GONE_S: Final = 0.05
_NUMBER_BYTES: Final = 8


class File:
    """A file that a message offers."""

    def __init__(self, offer: records.Offer, position: int) -> None:
        self.position = position
        self.name = safe_name(offer.name)
        """What its sender calls it, made safe: one name without slashes, control characters or a leading dot."""
        self.size = offer.size
        """In bytes, as its sender says; checked when it is saved."""
        self.digest = ""
        """`crc32c:` and 8 hexadecimal digits, once it is saved."""
        self.is_taken = False  # it comes once

    def __repr__(self) -> str:
        return f"<File {self.name!r}: {self.size} bytes {self.digest}>"


class Part(_native.Record):
    """A piece of a file, or what ends it."""

    __slots__ = ()


class _Write:
    def __init__(self, part: Part, view: _native.View, data: memoryview, offset: int, job: Job) -> None:
        self.part, self.view, self.data, self.offset, self.job = part, view, data, offset, job

    def end(self) -> None:
        """Its block is the sender's again."""
        self.data.release()
        self.view.release()


class Saving:
    """One file out of one pair. `steps` are driven by a loop, or by a plain thread (`in_thread`)."""

    def __init__(
        self,
        record: DirectRecord,
        file: File,
        target: Target,
        timeout: float | None,
        progress: Progress | None,
        *,
        in_loop: bool,
    ) -> None:
        self._record, self._file, self._target, self._progress = record, file, target, progress
        self._timeout = timeout
        self._until = deadline(timeout)
        self._source = record.source
        self._direct = record.source.direct
        self._wake = Wake()
        engine = self._direct.submission.engine if in_loop else None
        self._disk: Disk = BlockingDisk() if engine is None else LoopDisk(engine, self._wake)
        self._io = self._direct.io if in_loop else None
        self._mailbox = _native.Mailbox(Part, self._has_left, bool, 0)
        self._is_armed = self._is_open = False
        self._is_stopped = self._is_left = False  # this client leaves the pair; its sender has
        self._writes: deque[_Write] = deque()
        self._received = self._saved = self._told = self._crc = 0
        self._end: records.End | None = None

    def steps(self) -> Steps[str]:
        """Where the file lies, once it is whole."""
        target, disk = self._target, self._disk
        try:
            yield from self._done(disk.do(target.open))
            self._file.is_taken = True
            try:
                yield from self._take_over()
                self._say(records.SAVING, 0)
                yield from self._write_all()
                yield from self._done(disk.do(target.place))
                yield from self._tell_saved()
            except BaseException as error:
                self._failed(error)
                raise
            self._file.digest = records.digest_text(self._crc)
            self._unwatch()
            self._direct.watcher.soon(self._give_back)
            return target.path
        finally:
            disk.last(target.close)

    def _done(self, job: Job) -> Steps[Any]:
        while not job.done:
            yield self._wake.renew(), self._until
            self._check_time()
        return job.outcome()

    def in_thread(self) -> str:
        """The same, waiting here."""
        steps = self.steps()
        try:
            while True:
                call, until = next(steps)
                while not call.settled and (until is None or monotonic() < until):
                    self._wait(until)
        except StopIteration as end:
            path: str = end.value
            return path
        finally:
            steps.close()

    def _wait(self, until: float | None) -> None:
        poll = select.poll()
        poll.register(self._mailbox.fileno(), select.POLLIN)
        if poll.poll(None if until is None else max(0.0, until - monotonic()) * 1000):
            self._rung()

    # The pair.

    def _take_over(self) -> Steps[None]:
        """From the lane's mailbox into ours. Pairs are added and released in the watcher's thread, one after the other:
        so none is added that was released."""
        source, mailbox = self._source, self._mailbox
        theirs = source.reading.mailbox
        with suppress(ValueError):  # closed: then ours will not have it either
            theirs.remove(source)
            while theirs.changing:
                yield Call(0), monotonic() + _LOOK_S
        self._is_open = True
        if self._io is not None:
            self._io.watch(mailbox.fileno(), self._rung)

        def take_over() -> None:
            if source.is_released:
                self._is_left = True
            else:
                bells = dict(zip(self._direct.readings, (source.bells[0], source.bells[2]), strict=True))
                mailbox.add_doorbell(os.dup(bells[source.lane]))
                source.saving = self
                mailbox.add(source)
            mailbox.wake()

        self._direct.watcher.soon(take_over)
        while source.saving is not self:
            call = self._wake.renew()
            self._is_stopped = self._is_stopped or self._direct.closed
            self._check()
            yield call, monotonic() + _GONE_S  # that thread may have ended
            self._check_time()

    def _unwatch(self) -> None:
        if self._io is not None and self._is_open:
            self._is_open = False
            self._io.unwatch(self._mailbox.fileno())

    def _give_back(self) -> None:
        """In the watcher's thread: what else comes is mail, as before."""
        source = self._source
        self._leave()
        if not source.is_released:
            with suppress(ValueError):
                source.reading.mailbox.add(source)

    def _let_go(self) -> None:
        """Likewise, where the file did not come: there may be more of it in the pair, which nobody wants."""
        self._leave()
        self._direct.let_go(self._source)

    def _leave(self) -> None:
        with suppress(ValueError):
            self._mailbox.remove(self._source)
        self._source.saving = None
        self._mailbox.close()

    def stop(self) -> None:
        """The pair is about to be released: nobody reads it when this returns."""
        self._is_stopped = True
        with suppress(ValueError):
            self._mailbox.remove(self._source)
            while self._mailbox.changing:
                sleep(_LOOK_S)
                self._mailbox.sweep()
            self._mailbox.wake()

    def wake(self) -> None:
        """There may be something to see."""
        self._mailbox.wake()

    def _has_left(self, _: object) -> None:
        self._is_left = True

    def _rung(self) -> None:
        self._disarm()
        self._wake.ring()

    def _arm(self) -> bool:
        self._is_armed = self._mailbox.arm()
        return self._is_armed

    def _disarm(self) -> None:
        self._is_armed = False
        self._mailbox.disarm()

    def _check(self) -> None:
        if self._is_stopped:
            raise FileIncomplete(f"This client has left before {self._file.name} was whole")
        if self._is_left:
            raise FileIncomplete(
                f"{self._source.sender} was gone before {self._file.name} was whole: "
                f"{self._saved} of {self._file.size} bytes came",
                "Ask its sender for it again.",
            )

    def _check_time(self) -> None:
        if self._until is not None and monotonic() >= self._until:
            raise Timeout(
                f"{self._saved} of {self._file.size} bytes of {self._file.name} came in time",
                f"Nothing has moved for {self._timeout:g} s, and nothing of it is kept.",
            )

    def _say(self, state: int, number: int) -> bool:
        """Whether there was room for it, or nobody will ever hear it."""
        try:
            self._source.settle(self._record.position, state, 0, number.to_bytes(_NUMBER_BYTES, "little"))
        except OSError as error:
            return error.errno != errno.EAGAIN
        return True

    def _tell_saved(self) -> Steps[None]:
        while not self._say(records.SAVED, self._saved):
            yield Call(0), monotonic() + _LOOK_S
            self._check_time()

    # The bytes.

    def _write_all(self) -> Steps[None]:
        while True:
            call = self._wake.renew()
            self._read_on()
            while self._writes and self._writes[0].job.done:
                self._written()
            if self._told < self._saved and self._say(records.SAVING, self._saved):
                self._told = self._saved
            if self._end is not None:
                if not self._writes:
                    return self._check_end(self._end)
            elif len(self._writes) < self._disk.depth:
                if not self._arm():
                    continue
                self._check()
            self._check_time()
            yield call, self._until

    def _read_on(self) -> None:
        if self._is_armed:
            self._disarm()
        while self._end is None and len(self._writes) < self._disk.depth:
            part = self._mailbox.take()
            if part is None:
                break
            self._take(part)
        if self._is_stopped:
            self._check()

    def _take(self, part: Part) -> None:
        if part.details_bytes is not None:
            self._end = records.decode_file(part.details_bytes).end
            return
        view = _native.Record.view(part)
        part.settled = True  # its block is given back with the view
        data = memoryview(view)
        if self._received + len(data) > self._file.size:
            raise FileIncomplete(f"{self._source.sender} sends more of {self._file.name} than {self._file.size} bytes")
        job = self._disk.write(self._target.fd, data, self._received)
        self._crc = _native.crc32c(data, self._crc)
        self._writes.append(_Write(part, view, data, self._received, job))
        self._received += len(data)
        if job.done:
            self._written()

    def _written(self) -> None:
        write = self._writes[0]
        written = write.job.outcome()
        if written < len(write.data):  # a full disk, which the next write says, or a limit
            rest = write.data[written:]
            write.data.release()
            write.data, write.offset = rest, write.offset + written
            write.job = self._disk.write(self._target.fd, rest, write.offset)
        else:
            self._writes.popleft().end()
        self._saved += written
        self._until = deadline(self._timeout)
        if self._progress is not None:
            self._progress(self._saved, self._file.size)

    def _check_end(self, end: records.End) -> None:
        sender, name = self._source.sender, self._file.name
        if end.code:
            kind = FileChanged if end.code == FileChanged.code else FileIncomplete
            raise kind(f"{sender} could not send all of {name}: {end.message}", "Ask it to send it again.")
        if end.size != self._file.size or self._saved != end.size:
            raise FileIncomplete(f"{self._saved} bytes of {name} came, not the {end.size} that {sender} says it sent")
        if end.crc != self._crc:
            sums = f"{records.digest_text(self._crc)} and not {records.digest_text(end.crc)}"
            raise FileIncomplete(f"The bytes of {name} are not those that {sender} read: {sums}", "Ask for it again.")

    def _failed(self, error: BaseException) -> None:
        """Its sender hears that, and nothing stays here. What is under way ends by itself."""
        if isinstance(error, (AgentdError, OSError)):
            reason = f"{self._file.name} was not saved: {failure(error)}"
        else:
            reason = f"{self._file.name} was not saved: its receiver has given up"
        self._record.finish(records.DIED, reason)
        self._unwatch()
        self._direct.watcher.soon(self._let_go)


def save(
    record: DirectRecord,
    path: FilePath,
    replace: bool,
    timeout: float | None,
    progress: Progress | None,
    *,
    in_loop: bool,
) -> Saving:
    """What saves the file that this message offers."""
    file = record.file
    if file is None:
        raise BadRequest(f"Message {record.id} offers no file", "Its body is what it has: message.body.")
    if file.is_taken or record.settled:
        raise BadRequest(f"{file.name} was saved or settled already: it comes once", "Its sender can send it again.")
    return Saving(record, file, Target(os.fspath(path), file.name, replace), timeout, progress, in_loop=in_loop)
