"""A file to another agent, in steps: offered in a message on a pair of its own, and sent when its receiver asks for it.

    sender    offer (name, size)            pieces, as many as fit a window    end (size, checksum; or an error)
    receiver           saving 0: "send it"       saving n: "n bytes are saved"                saved        acked

The pieces lie in the pair's pool, where the disk's bytes are read to and written from. Since the pair has nothing else
in it, a file that nobody saves holds up nothing but itself, and other messages overtake it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from agentd import _native
from agentd.wire import messages as wire
from agentd.wire import records
from agentd.wire.bodies import Content
from agentd.wire.errors import (
    AgentdError,
    Backpressure,
    BadRequest,
    FileChanged,
    FileIncomplete,
    LaneUnavailable,
    ReceiverGone,
    Timeout,
    Undelivered,
)
from agentd.wire.messages import Priority, State
from agentd_client._asked import Sent
from agentd_client._disk import BlockingDisk, Disk, Job, LoopDisk, Wake
from agentd_client._pairs import Outgoing
from agentd_client._refusals import RETRY_S
from agentd_client.receipt import Receipt, Steps, ended

if TYPE_CHECKING:
    from agentd_client._direct import Direct
    from agentd_client._options import FilePath, Progress

#: Read and written at a time, and how many bytes are between both at most: what fits into caches is fastest.
PIECE_BYTES: Final = 512 << 10
WINDOW_BYTES: Final = 8 << 20
_PAGE_BYTES: Final = 4096
#: What the details of an offer or an end may take of a record.
_MAX_NAME_BYTES: Final = 255
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def deadline(timeout: float | None) -> float | None:
    """When it is over, if nothing moves until then."""
    return None if timeout is None else monotonic() + timeout


class Source:
    """The file that is sent, as it was when that began."""

    def __init__(self, path: FilePath) -> None:
        self.path = os.fspath(path)
        self.fd = -1
        self.size = 0
        self._seen: tuple[int, ...] = ()

    def open(self) -> None:
        """An OSError where it can't be read; BadRequest for what is no file that ends."""
        self._check(os.stat(self.path))  # opening a FIFO or a device may do something to it
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        now = os.fstat(self.fd)
        self._check(now)
        self.size = now.st_size
        self._seen = _identity(now)

    def _check(self, seen: os.stat_result) -> None:
        for is_kind, kind in _KINDS:
            if is_kind(seen.st_mode):
                raise BadRequest(f"{self.path} is {kind}", "Only regular files can be sent: their size is known.")

    def check_unchanged(self, read_to: int) -> None:
        """FileChanged where it is not what it was, or ends sooner."""
        now = os.fstat(self.fd)
        if _identity(now) != self._seen or read_to < self.size:
            what = f"from {self.size} to {now.st_size} bytes" if now.st_size != self.size else "its content"
            raise FileChanged(f"{self.path} changed while it was sent: {what}", "Send it again when it is complete.")

    def close(self) -> None:
        """No more of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)


def offered_name(path: str, name: str | None) -> str:
    """What the receiver is told that it is called."""
    given = os.path.basename(path) if name is None else name
    text = given.encode("utf-8", "replace")[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
    if not text:
        raise BadRequest("A file needs a name", "name= says what the receiver should call it.")
    return text


def send_file(
    direct: Direct,
    to: str,
    path: FilePath,
    name: str | None,
    timeout: float | None,
    options: wire.Options,
    progress: Progress | None,
) -> Steps[Receipt]:
    """Until it is saved there, or acked; any other end is an error, and then nothing of it stays there."""
    if options.wait in (State.ACCEPTED, State.STORED):
        raise BadRequest(
            "Who sends a file waits until it is saved, at least",
            "wait is delivered or acked; for more do it in a task of its own.",
        )
    until = deadline(timeout)
    wake = Wake()
    engine = direct.submission.engine
    disk: Disk = BlockingDisk() if engine is None else LoopDisk(engine, wake)
    source = Source(path)
    try:
        opening = disk.do(source.open)
        while not opening.done:
            yield wake.renew(), until
        opening.outcome()
        offer = records.Offer(offered_name(os.fsdecode(source.path), name), source.size)
        try:
            channel = yield from direct.channel(to, Priority.HIGH, until)
        except LaneUnavailable as error:
            raise LaneUnavailable(
                error.message,
                "Files need shared memory: `agentctl recv --save DIR` has it; priority normal takes up to 16 MiB.",
            ) from None
        try:
            sending = Sending(channel, disk, wake, source, offer, progress, timeout)
            return (yield from sending.steps(options))
        finally:
            direct.drop(channel, "its file was sent")
    finally:
        disk.last(source.close)


class _Piece:
    """A part of the file that is being read."""

    def __init__(self, block: _native.Block | None, buffer: memoryview, offset: int, job: Job) -> None:
        self.block, self.buffer, self.offset, self.job = block, buffer, offset, job
        self.filled = 0


class Sending:
    """One file into one pair."""

    def __init__(
        self,
        channel: Outgoing,
        disk: Disk,
        wake: Wake,
        source: Source,
        offer: records.Offer,
        progress: Progress | None,
        timeout: float | None,
    ) -> None:
        self._channel, self._disk, self._wake, self._source = channel, disk, wake, source
        self._offer = offer
        self._size = offer.size
        self._progress = progress
        self._timeout = timeout
        self._until = deadline(timeout)
        self._sent = Sent(0, waits_for=State.ACKED)
        self._position = 0
        self._pieces: deque[_Piece] = deque()
        self._begun = self._written = self._crc = 0
        self._shown = -1
        self._is_ended = False
        pool_bytes = channel.shape[3]
        self._pooled = offer.size > channel.max_inline_bytes and pool_bytes >= 4 * _PAGE_BYTES
        largest = pool_bytes // 4 // _PAGE_BYTES * _PAGE_BYTES if self._pooled else channel.max_inline_bytes
        self._piece_bytes = min(PIECE_BYTES, largest)
        self._window = min(WINDOW_BYTES, 4 * largest)

    def steps(self, options: wire.Options) -> Steps[Receipt]:
        """See send_file."""
        deadline_ns = 0 if options.ttl is None else _native.boottime_ns() + int(options.ttl * 1e9)
        details = records.encode_file(None, offer=self._offer)
        self._position = self._channel.ticket(self._sent, b"", Content.BYTES, 0, details, deadline_ns)
        self._sent.news = self._wake.ring
        self._sent.when_settled(self._wake.ring)
        self._channel.look()
        try:
            while not self._is_over(options.wait):
                call = self._wake.renew()
                pause_until = self._go_on()
                self._show()
                if self._until is not None and monotonic() >= self._until:
                    raise self._late()
                yield call, pause_until
            return self._receipt()
        except BaseException as error:
            self._give_up(error)
            raise

    def _is_over(self, wait: State) -> bool:
        return self._sent.settled or (self._sent.whole and wait is State.DELIVERED)

    def _go_on(self) -> float | None:
        """Do what can be done; until when to wait for more at most."""
        saved = min(self._sent.saved, self._written)
        if saved < 0:
            return self._until  # nobody has asked for it
        size, disk = self._size, self._disk
        try:
            can_begin = self._begun < size and len(self._pieces) < disk.depth and self._begun - saved < self._window
            if can_begin:
                self._begin()
                if disk.depth == 1:
                    self._hand_over()
            while self._pieces and self._pieces[0].job.done:
                self._hand_over()
            if self._written == size and not self._is_ended:
                self._source.check_unchanged(self._written)
                self._say_end(records.End(size, self._crc))
                self._is_ended = True
        except Backpressure as error:  # paused, or what is given back has not been seen yet
            retry = monotonic() + (error.retry_after or RETRY_S)
            return retry if self._until is None else min(retry, self._until)
        except ReceiverGone as error:
            self._channel.look()  # it may have said why
            if not self._sent.settled:
                raise self._gone(error.message) from None
            return self._until
        # One block at a time: a new one is filled with zeros first, and the loop's other callbacks go on between two.
        return monotonic() if can_begin else self._until

    def _begin(self) -> None:
        size = min(self._piece_bytes, self._size - self._begun)
        block = self._channel.allocate(size) if self._pooled else None
        buffer = memoryview(bytearray(size)) if block is None else block.buffer
        job = self._disk.read(self._source.fd, buffer, self._begun)
        self._pieces.append(_Piece(block, buffer, self._begun, job))
        self._begun += size

    def _hand_over(self) -> None:
        """The first piece, if all of it has been read, is the receiver's."""
        piece = self._pieces[0]
        if piece.filled < len(piece.buffer):
            read = piece.job.outcome()
            piece.filled += read
            if not read:
                self._source.check_unchanged(piece.offset + piece.filled)
            if piece.filled < len(piece.buffer):  # as some file systems read
                rest = piece.buffer[piece.filled :]
                piece.job = self._disk.read(self._source.fd, rest, piece.offset + piece.filled)
                return
        crc = _native.crc32c(piece.buffer, self._crc)
        if piece.block is None:
            self._channel.ask(bytes(piece.buffer), 0, 0, b"", 0)
        else:
            self._channel.send_block(piece.block, 0, 0, b"", 0)
        self._crc = crc
        self._pieces.popleft().buffer.release()
        self._written += piece.filled

    def _say_end(self, end: records.End) -> None:
        self._channel.ask(b"", 0, 0, records.encode_file(None, end=end), 0)

    def _show(self) -> None:
        saved = self._size if self._sent.whole else min(self._sent.saved, self._size)
        if saved > self._shown:
            self._shown = saved
            self._until = deadline(self._timeout)
            if self._progress is not None:
                self._progress(saved, self._size)

    def _receipt(self) -> Receipt:
        self._show()
        sent, channel, name = self._sent, self._channel, self._offer.name
        if sent.whole:
            if not sent.settled:
                channel.tell(sent, self._position, State.DELIVERED)
            return ended(sent)
        if not sent.answered:
            raise self._gone(f"{channel.agent}: {channel.gone}")
        if sent.answer.state is State.ACKED:
            error = Undelivered(
                f"{channel.agent} acked {name} without saving it", "It has to call message.save() before."
            )
            error.receipt = sent.known()
            raise error
        return ended(sent)

    def _gone(self, why: str) -> ReceiverGone:
        doubt = "whether it was saved is unknown" if self._is_ended else "it was not saved"
        return ReceiverGone(f"{why}; {self._offer.name}: {doubt}", "Send it again when it is live.")

    def _late(self) -> Timeout:
        saved = max(0, self._sent.saved)
        what = "asked for" if self._sent.saved < 0 else "saved"
        return Timeout(
            f"{self._channel.agent} has not {what} {self._offer.name} in time: {saved} of {self._size} bytes",
            f"Nothing has moved for {self._timeout:g} s, and nothing of it stays there.",
        )

    def _give_up(self, error: BaseException) -> None:
        """Have the receiver hear why there is no more."""
        self._pieces.clear()
        if self._sent.settled or self._sent.whole or self._sent.saved < 0:
            return  # where nobody has asked for it, it would be taken for mail: that the pair is over will do
        code, why = FileIncomplete.code, "its sender has given up"
        if isinstance(error, FileChanged):
            code, why = error.code, error.message
        elif isinstance(error, (AgentdError, OSError)):
            why = str(error).partition("\n")[0]
        try:
            self._say_end(records.End(self._written, 0, code, why[:500]))
        except (AgentdError, ValueError):
            pass  # then it sees that the pair is over
