"""agentd's C core. Sources: native/; this file is its documentation.

Unless a function says otherwise: it never blocks, keeps the GIL, may be called from any thread, and holds no
reference to its arguments after it returned. A failed system call raises OSError (or its subclass) with that errno.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self, final

from _typeshed import ReadableBuffer, WriteableBuffer

def boottime_ns() -> int:
    """Nanoseconds since boot, the time asleep included (CLOCK_BOOTTIME).

    The clock of every deadline: it never goes back, nobody can set it, and all processes of the machine read the same.
    About 0.1 µs. Raises OSError only where a sandbox denies the clock.
    """

def monotonic_ns() -> int:
    """Nanoseconds on CLOCK_MONOTONIC, which stands still while the machine sleeps.

    The clock of durations, the same as time.monotonic_ns(). About 0.1 µs. Raises OSError only where a sandbox denies
    the clock.
    """

def crc32c(data: ReadableBuffer, initial: int = 0, /) -> int:
    """The CRC-32C (Castagnoli) of data, a number below 2**32.

    data: any contiguous buffer (bytes, bytearray, a contiguous memoryview, mmap); it is read in place.
    initial: the checksum of what came before: crc32c(b, crc32c(a)) == crc32c(a + b).

    Keeps the GIL for the whole run: about 0.05 ms a MiB with the CPU's instruction, 3 ms without, so give large data
    in pieces where other threads wait. Raises TypeError for what is no buffer (str too), BufferError for a buffer
    that is not contiguous, OverflowError for an initial outside 0..2**32-1.
    """

def release_spare_memory() -> bool:
    """Give the kernel what the process has freed and its allocator keeps; whether there was any.

    As long as it takes to unmap what is free: 18 ms after 200 MiB of small objects. False where the allocator has no
    such call.
    """

def io_uring_errno() -> int:
    """0 where this process may make an io_uring, else the errno of the attempt: ENOSYS where the kernel has none, EPERM
    where an administrator (kernel.io_uring_disabled) or a sandbox forbids it.

    Makes one of four entries and closes it: some 20 µs. The kernel's version would say less.
    """

# The direct lanes. What lies where in a pair's memory stands in native/pair.h, ring.h and record.h.

def create_pair(
    lane: int, number: int, ring_bytes: int, verdict_bytes: int, pool_bytes: int, huge_pages: bool, /
) -> int:
    """A fresh pair's memory: a sealed memfd, allocated but for the blocks of its pool. The caller closes it.

    lane: 1 critical, 2 high. number: what makes the ids of its messages its own. The sizes of both rings are powers of
    two between 1 KiB and 1 GiB; that of the pool, high's alone, is a multiple of 64 KiB up to 2 GiB, or 0 for none.
    huge_pages: made of them, or OSError where there are none; a pair with a pool never is.

    Raises OSError: EINVAL for a shape that is none, ENOSPC or ENOMEM where there is no memory for it.
    """

def message_id(number: int, position: int, /) -> int:
    """The id of the message at that position of that pair. Both ends know it without asking anybody."""

class Channel:
    """The sender's end of a pair. Used by one thread at a time.

    Making one maps the memory and touches every page of it but the pool's blocks; `memory_fd` stays the caller's,
    `doorbell_fd` (the receiver's eventfd) becomes the channel's. Raises OSError: EPERM for memory that is not sealed,
    EPROTO for what is no pair of that shape, ENOMEM or ENOSPC where it can't be made resident; then the doorbell stays
    the caller's.

    refuse(errno, size) is called for each refusal and must raise: EAGAIN the ring is full, EMSGSIZE the record is
    too large, EBUSY the receiver is paused, ESHUTDOWN it has left, ESTALE this is a child of the process that
    attached, EPROTO the other end is broken, ENOSPC or ENOMEM there is no memory for a body of that size.
    encode(body) makes (content, bytes) of what is neither bytes nor str.
    """

    def __new__(
        cls,
        memory_fd: int,
        lane: int,
        number: int,
        ring_bytes: int,
        verdict_bytes: int,
        pool_bytes: int,
        doorbell_fd: int,
        encode: Callable[[Any], tuple[int, bytes]] | None,
        refuse: Callable[[int, int], object],
        /,
    ) -> Self: ...
    sent: int
    """How many records were written."""
    number: int
    state: str
    """`open`, `paused` or `closed`: as the receiver says, or as `end` did."""
    left: bool
    """Whether the receiver has closed its end, which it does when nobody reads there any more. False once ours is."""
    taken: int
    """How many records the receiver says it has taken. Not to be trusted for more than a count."""
    max_body_bytes: int
    max_inline_bytes: int
    """The largest body that rides in the ring. A larger one is copied into the pool; without a pool there is none."""
    large: Callable[[bytes, int, int, bytes, int], Any] | None
    """Called in place of the copy for a body that is `bytes`, does not ride in the ring, and has `async_bytes` or more:
    large(body, content, flags, details, deadline_ns). What it returns is what send() and ask() return."""
    async_bytes: int
    grown: Callable[[], None] | None
    """Called when the pool comes to take more memory than it did since it was last trimmed."""
    lent: int
    """How many blocks the receiver has, or is promised."""
    touched_bytes: int
    """How much of the pool may take memory: all that was used since it was last trimmed."""

    def send(self, body: Any, /) -> int:
        """Write one record that wants no verdict; its position. No system call while the receiver is awake. 0.1 µs; by
        way of the pool a copy, without the GIL from 256 KiB on. A Block of this channel is sent without one."""

    def ask(self, body: bytes, content: int, flags: int, details: bytes, deadline_ns: int, /) -> int:
        """Write one record with all it can have; its position. deadline_ns: of CLOCK_BOOTTIME, 0 for none."""

    def claim_later(
        self, body: ReadableBuffer, content: int, flags: int, details: ReadableBuffer, deadline_ns: int, /
    ) -> tuple[int, int, int]:
        """As `ask`, but neither this record nor any behind it is seen before it is committed: by one byte in the pair's
        memory, which a chain of the engine stores when it has copied what the record speaks of. (position, the byte's
        offset in the memory, its value.)

            engine.write(memory_fd, body, block, True)            # what the record speaks of
            engine.write(memory_fd, bytes([value]), offset, True)  # the record
            engine.doorbell(bell)                                  # whatever the receiver's gate says

        bell: a duplicate of `doorbell_fd`, which the kernel looks up when the chain has come so far. Others may be sent
        meanwhile, and several be claimed, whose chains end in any order. EAGAIN where 64 are not committed yet.
        Whatever becomes of the chain, the record must be committed (`commit_now`), or nothing behind it arrives. Close
        the channel when `later` is 0: what is behind a record that was not committed is lost with it.
        """

    def commit_now(self, position: int, /) -> bool:
        """Commit that record, whose chain did not, and wake the receiver. What it speaks of must be there. False where
        it was committed already, by its chain or by this; and once closed. Never while its chain is under way."""
    later: int
    """How many records are claimed and not committed."""
    doorbell_fd: int
    """The receiver's; -1 once closed."""

    def allocate(self, size: int, /) -> Block:
        """A block of the pool, to fill and send. EAGAIN where there is no room until the receiver gives something back,
        EMSGSIZE where there never is."""

    def send_block(
        self, block: Block, content: int, flags: int, details: bytes, deadline_ns: int, size: int | None = None, /
    ) -> int:
        """Write one record whose body is the block, or the first `size` bytes of it; its position. As ask(), without a
        copy. Where it is refused the block stays the caller's."""

    def trim(self, keep_bytes: int, /) -> int:
        """Give back memory of the pool behind the blocks in use and the first `keep_bytes`; how many bytes."""

    def verdicts(self) -> list[tuple[int, int, int, bytes]]:
        """What was said of records since the last call: (position, state, content, reason or reply)."""

    def is_delivered(self, position: int, /) -> bool:
        """Whether the receiver has taken the record there; once this is closed, whether it had."""

    def ring_by(self, doorbells: Doorbells | None, /) -> None:
        """Ring through these from now on; None: by write(2), each record by itself, as from the start. With doorbells
        over an engine `send` and `ask` raise RuntimeError in another thread than the engine's."""

    def arm(self) -> None:
        """The receiver is to ring our doorbell when it says something. Look at `verdicts` once more before you wait."""

    def disarm(self) -> None:
        """It need not ring."""

    def end(self) -> None:
        """The receiver is known to be gone: nothing can be sent any more."""

    def lock(self) -> None:
        """Keep its memory from being swapped out, or OSError where the limits forbid it."""

    def close(self) -> None:
        """Leave the pair; the receiver reads what is in it. Twice does no harm. The memory goes when nobody has a
        buffer of a block any more."""

@final
class Block:
    """A place in a sender's pool, for one body. It has the buffer protocol, writable, until it is sent; what it holds
    before is what somebody left there. `with` gives it up at the end where it was not sent, and so does dropping it.
    A buffer that is still held after the block was sent stays memory, but the receiver reads there: who writes spoils
    the message. The first buffer makes the memory: refuse(ENOSPC or ENOMEM) where there is none. A child of the process
    can't use it.
    """

    slot: int
    generation: int
    offset: int
    """In the pair's memfd: who has the kernel write the body there needs no buffer."""
    size: int
    buffer: memoryview

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def reference(self, size: int = ..., /) -> bytes:
        """What the body of a record is that somebody writes later, with the flag POOLED (native/pool.h). From now on
        the block comes back from the receiver, or by abandon() where the record was not written after all."""

    def abandon(self) -> None:
        """It will not be sent. Twice does no harm; ValueError for one that was. With buffers of it out, it is free when
        the last of them is gone."""

class Incoming:
    """The receiver's end of a pair. Arguments and errors as Channel's, `doorbell_fd` is the sender's for verdicts;
    further arguments are for a subclass."""

    def __new__(
        cls,
        memory_fd: int,
        lane: int,
        number: int,
        ring_bytes: int,
        verdict_bytes: int,
        pool_bytes: int,
        doorbell_fd: int,
        *more: Any,
    ) -> Self: ...
    taken: int
    number: int
    held: int
    """How many blocks of the sender's pool are not given back: of records that nobody has read, and of views."""
    held_since_ns: int
    """Since when the oldest of them is: monotonic_ns(); 0 where there is none."""
    holds: Callable[[], None] | None
    """Called when there is one and was none. To be taken away again: the object is no part of a cycle."""

    def settle(self, position: int, state: int, content: int, payload: ReadableBuffer, /) -> None:
        """Tell the sender what became of its record (agentd.wire.records). OSError: EAGAIN where it does not read its
        verdicts, ESHUTDOWN where it is gone, EMSGSIZE."""

    def pause(self, on: bool, /) -> None:
        """Whether the sender may send nothing for now."""

    def end(self) -> None:
        """The sender is known to be gone: once its ring is empty a mailbox lets go of it."""

    def lock(self) -> None:
        """As Channel's."""

    def close(self) -> None:
        """Leave the pair. After Mailbox.remove(). Records and views that have blocks keep the memory."""

@final
class View:
    """A body where it lies, to read: `with record.view() as data` gives a memoryview. It has the buffer protocol
    itself, read-only.

    What lies in a pool is live memory, which a broken sender can change. It is lent until the view is released and
    what was made from it, slices and arrays, is gone."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> memoryview: ...
    def __exit__(self, *error: object) -> None: ...
    def release(self) -> None:
        """Nobody reads it any more. Twice does no harm."""

class Record:
    """A message out of a ring, copied. Made by a mailbox; subclasses may add no members.

    A body that came by way of the pool stays there, and its block is lent, until somebody reads `body`; until its views
    are released and the message is settled; or until the record is dropped.
    """

    source: Incoming
    body: bytes
    """Our own copy; of one in the pool made at the first look, while other threads run. ValueError where only views
    were taken and it is given back."""
    size: int
    """How many bytes the body has. Copies nothing."""
    details_bytes: bytes | None
    decoded: Any
    """The face's to use; AttributeError until it is set."""
    window: Any
    """The face's to use; None until it is set."""
    settled: bool
    """The face's to use."""
    position: int
    sent_ns: int
    """CLOCK_REALTIME, when it was written."""
    deadline_ns: int
    """CLOCK_BOOTTIME, 0 for none."""
    content_code: int
    flags: int
    number: int
    """The message's id."""

    def view(self) -> View:
        """The body without a copy; of one that came in the ring, of ours."""

class Mailbox:
    """The pairs of one lane of one session. One thread waits or takes at a time; add, remove and wake may be called
    from any other.

    record: the subclass of Record that is made. finished(incoming) is called, in the reader's thread, for each pair
    that was taken out because its sender is gone and it is empty, or because its memory is no ring any more.
    stopped(record) is called for a record that asks to stop. spin_ns: how long a wait looks before it sleeps.
    """

    def __new__(
        cls, record: type[Record], finished: Callable[[Any], object], stopped: Callable[[Any], object], spin_ns: int, /
    ) -> Self: ...
    busy: int
    changing: int
    """Whether a thread that reads here has still to hear of what was added or removed."""
    closed: int
    shut: bool
    """While it is true receive() and drain() give nothing; take() does."""
    n_taken: int
    """How many records it has made."""
    sampled: int
    """How many durations `samples` would give."""
    spin_ns: int
    without_look: int
    """How many waits to come sleep at once, because looks lately were in vain."""

    def add(self, incoming: Incoming, /) -> None:
        """Read this pair too."""

    def remove(self, incoming: Incoming, /) -> None:
        """Read it no more; what is in it stays unread."""

    def receive(self, timeout: float | None = None) -> Any:
        """The next record, None when the time is over or the mailbox was closed. Looks for `spin_ns`, the GIL released
        after the first microseconds, then sleeps; who looks in vain looks less and less. Expired records are answered
        and passed over. RuntimeError while another thread waits here."""

    def receive_bytes(self, timeout: float | None = None) -> bytes | None:
        """The body alone; a record that asked for a verdict is acked."""

    def drain(self, n: int, /) -> list[Any]:
        """What is there, at most so many records. Never waits."""

    def drain_bytes(self, n: int, /) -> list[bytes]:
        """Their bodies alone, as receive_bytes()."""

    def take(self) -> Any:
        """The next record, or None. Never waits."""

    def has_mail(self) -> bool:
        """Whether there may be something to take."""

    def arm(self) -> bool:
        """Whether there is nothing to take, and senders will ring: then the caller may sleep on fileno()."""

    def disarm(self) -> None:
        """Awake again: what was rung is heard."""

    def samples(self) -> list[int]:
        """How many nanoseconds passed from writing to taking, of the first record and one in 64 since; 64 at most."""

    def sweep(self) -> None:
        """Let go of pairs whose sender is gone and that are empty; a wait does that by itself."""

    def add_doorbell(self, fd: int, /) -> None:
        """An eventfd that senders ring; it becomes the mailbox's."""

    def remove_doorbell(self, fd: int, /) -> None:
        """Close one that nobody rings any more."""

    def wake(self) -> None:
        """Have a thread that sleeps in here look again."""

    def interrupt(self) -> None:
        """Have a thread that waits in here come back with None, if one does."""

    def makes(self, record: type[Record], /) -> None:
        """The subclass that is made from now on."""

    def fileno(self) -> int:
        """Readable when a doorbell was rung."""

    def incomings(self) -> list[Any]:
        """Every pair in it."""

    def close(self) -> None:
        """Let go of everything. A thread that waits here comes back with None, and does that on its way out: until
        `busy` is 0 no Incoming may be closed. Who comes after that gets ValueError."""

class Engine:
    """An io_uring: requests are queued, leave together by `submit`, and `reap` tells what became of each, once.

    entries: how many can be queued for one submission; twice as many may be under way. sqpoll_cpu: the core of a thread
    of the kernel that takes what is submitted, so that submitting costs no system call; None: no such thread. defer:
    the kernel finishes completions in `submit` and `reap` alone; then nobody who sleeps on `fileno()` is woken.

    Belongs to the thread that made it: RuntimeError in another, and in a child process. ValueError once it is closed.
    Making one raises OSError with a text that says why there is none: EPERM forbidden, ENOSYS or EOPNOTSUPP not in this
    kernel, ENOMEM no memory that may be locked, EINVAL no such size or core.

    Each request has a token, an int that no other ever has. OSError EAGAIN: there is no room, see `room`; EINVAL: no
    such request. Its buffer is held until its completion was told, and must not be read before; its descriptor must
    stay open until it was submitted. offset -1: at the file's own position, or it has none (pipe, eventfd).
    link: the next request queued starts when this one has succeeded in full (a short read has not), else it ends with
    -ECANCELED; both must leave in one submission. punt: by a thread of the kernel from the start, for what would hold
    the caller: more than 1 MiB, say. Never for a pipe or an eventfd.
    """

    def __new__(cls, entries: int, sqpoll_cpu: int | None = None, defer: bool = False) -> Self: ...
    restricted: bool
    """Whether the kernel refuses this ring every operation but those below."""

    def read(self, fd: int, buffer: WriteableBuffer, offset: int, link: bool = False, punt: bool = False, /) -> int:
        """Queue a read; its result is the number of bytes. Where nothing is there yet it waits, also with O_NONBLOCK
        (kernels differ)."""

    def write(self, fd: int, buffer: ReadableBuffer, offset: int, link: bool = False, punt: bool = False, /) -> int:
        """Queue a write; its result is the number of bytes."""

    def fsync(self, fd: int, data_only: bool, link: bool = False, /) -> int:
        """Queue fsync(2), or fdatasync(2)."""

    def poll(self, fd: int, events: int, link: bool = False, /) -> int:
        """Queue a wait for one of the events of poll(2); its result is those that occurred."""

    def cancel(self, token: int, /) -> int:
        """Queue the cancellation of another, which then ends with -ECANCELED (or -EINTR). Result: 0, -ENOENT it has
        ended, -EALREADY it can't be stopped any more."""

    def nop(self) -> int:
        """Queue what does nothing."""

    def doorbell(self, fd: int, /) -> None:
        """Queue the ringing of an eventfd that is EFD_NONBLOCK, as the end of a chain: when all before it succeeded.
        Must stay open until the chain has ended. No token, and no completion is told; one that failed, as after a
        broken chain, is counted. OSError EOPNOTSUPP before Linux 5.17."""

    def submit(self) -> int:
        """Hand over all that is queued, in one system call: how many left. Keeps the GIL; what need not wait is done in
        this call. OSError EAGAIN or EBUSY: the kernel takes none for now, they stay queued; reap and submit again."""

    def reap(self) -> list[tuple[int, int]]:
        """What has completed: (token, result), the result negative for an errno. Never waits."""

    def room(self) -> int:
        """How many requests can be queued now."""

    def fileno(self) -> int:
        """Readable when there is something to reap."""

    def counts(self) -> dict[str, Any]:
        """`submitted`, `completed` and `failed` (which are among the completed) by kind, where a doorbell that rang is
        not told, so that its `completed` are those that could not; `in_flight`, `queued`, and
        `enters`, how many system calls that took. `unexpected`: completions that fit no request; `lost`: those that
        the kernel had no memory for. Both are 0, always."""

    def close(self) -> list[tuple[int, int]]:
        """End every request, and tell of them as `reap`. What is under way is cancelled and waited for, with the GIL
        released, 5 s at most; a buffer that the kernel still has after that is never freed. Twice does no harm."""

class Doorbells:
    """What the channels of one sender ring through (`Channel.ring_by`): together, so that several sleeping receivers
    cost one system call, and a burst wakes each of them once.

    Outside a burst each record is published as it is written, and a receiver that sleeps is rung at once. In a burst
    records are in the ring at once, and an awake receiver may take them; who sleeps is rung by the flush: after 64
    records of all channels together, with a record 1 ms or more after the first that is not flushed, when a ring is
    full, when flush() asks for it, and at the end. A channel that closes in a burst is flushed by that.

    engine: flushes leave in one submission of it, together with what is queued there. One receiver outside a burst is
    rung by write(2), which is cheaper alone. None, an engine that is closed, without room or with an open chain: by
    write(2), each. An engine with a thread of the kernel rings without a system call while that is awake, one receiver
    too; while it sleeps fewer than sqpoll_burst doorbells are rung by write(2), since waking it costs more.

    Over an engine it belongs to the engine's thread: RuntimeError in another, and in a child process.
    """

    def __new__(cls, engine: Engine | None, sqpoll_burst: int = 8) -> Self: ...
    def begin(self) -> None:
        """A burst begins. Bursts in bursts are one."""

    def end(self) -> None:
        """A burst ends; with the outermost one all is published. ValueError where none has begun."""

    def flush(self) -> None:
        """Publish what the burst has gathered so far; it goes on. Nothing outside one."""

    def counts(self) -> dict[str, Any]:
        """Doorbells rung `by_write` and `by_engine`; `submissions` of the engine that took; `bursts`, the outermost
        ones; `flushes` that had something to publish by what brought them about: `records`, `time`, `full`, `asked`,
        `end`."""

# The journal. What lies where on disk stands in native/journal.h, what survives a crash in native/recovery.h.

@final
class Journal:
    """The records of one directory, from its one writer: appended in order, read at any place, kept through crashes.

    A position is a number of 64 bits: the segment's number << 32 | the offset in its file. Positions only grow.

    Opens the journal in `directory`, made if it is not there, with the GIL released, and recovers: what can be read
    afterwards is on disk, and a prefix of what was appended but for damage that is told. segment_bytes: of segments
    that are made from now on, a multiple of 64 KiB up to 2 GiB. start: all before it is known to be on disk, and
    segments before its own are not looked at; 0: all are. report(what, position, bytes) is told, at opening and by
    scan():

        "skipped"    damage: bytes that are no record though what is behind them was synced; left where they are
        "missing"    a segment is not there, though later ones are
        "cut"        the end, never synced and not whole: moved to broken-POSITION
        "set aside"  a file with a segment's name that is none: renamed to NUMBER.broken

    Raises OSError: BlockingIOError while another process (or this one) has it open, EILSEQ where no segment has a
    header that can be read, EPROTONOSUPPORT for one of a later version, EINVAL for no such size or start; in these
    cases nothing was touched. What `report` raises too, when recovery is done.

    Used by one thread at a time: RuntimeError while another is in it. A child process can't use it (RuntimeError) and
    writes nothing when it drops it. ValueError once it is closed. Once an error of a write or of a sync has poisoned
    it, append, flush and syncs raise OSError of that errno, "poisoned by", until it is opened anew.
    """

    def __new__(
        cls,
        directory: str,
        segment_bytes: int = 64 << 20,
        start: int = 0,
        report: Callable[[str, int, int], object] | None = None,
    ) -> Self: ...
    first: int
    """The position of the first record, if there is any."""
    tail: int
    """Where the next record goes, if it still fits into that segment."""
    room: int
    """So many bytes are left in that segment; a record takes 40 more than its body, and up to a multiple of 8."""
    synced: int
    """What lies before it is on disk."""
    sequence: int
    """How many records were ever appended."""
    segments: int
    """How many files there are."""
    segment_bytes: int
    max_body_bytes: int
    """The largest body of a record: a third of a segment, its header included."""
    poisoned: int
    """The errno of what poisoned it, or 0."""
    needs_prepare: bool
    """Whether the segment after the last is not ready. Then the append that needs it makes it, with the GIL kept: some
    50 ms for 64 MiB. See prepare_segment."""
    next_number: int
    """The number of that segment."""
    id: bytes
    """Sixteen random bytes, in each of its segments."""

    def append(self, type: int, body: ReadableBuffer, /) -> int:
        """Append a record; its position. type: 16 bits of the caller's. Without a system call, but when the segment is
        full, or while a sync is under way and 4 MiB were gathered. Acknowledge nothing before the flush.

        Nothing was appended where it raises OSError: EAGAIN sync first, the last but one segment is not synced;
        EMSGSIZE larger than max_body_bytes; ENOSPC, EDQUOT and others of the disk's, which may pass."""

    def flush(self) -> None:
        """What was appended can be read, and survives the end of this process. One write at most, of what was gathered
        beside a sync; else nothing."""

    def begin_sync(self) -> tuple[int, list[int]]:
        """Flush, and begin a sync: (position, descriptors). fdatasync them in this order, up to the first that fails;
        then end_sync(). They are the journal's, and stay open until then. With none there was nothing to do. OSError
        EALREADY while one is under way."""

    def end_sync(self, error: int = 0, /) -> None:
        """It is done, and what lies before the position is on disk; or the errno of what failed, which poisons it.
        ValueError where none was begun."""

    def read(self, position: int, /) -> tuple[int, bytes, int] | None:
        """The first record at or behind `position`: (type, body, position to read on). None at the end: what is not
        flushed is behind that. OSError: EILSEQ where there is damage, see scan(); EINVAL for no position of a record.
        Without the GIL from 256 KiB on, and where the segment must be mapped first."""

    def expect(self, positions: Sequence[int], /) -> None:
        """These are going to be read, in any order: the disk brings all of them at once, which is many times faster
        than one after the other where no cache has them. With the GIL released."""

    def scan(self, position: int, count: int, /) -> list[tuple[int, int, bytes]]:
        """At most so many records from there on: (position, type, body). Fewer only at the end. What is damaged is
        skipped and reported. Checks them with the GIL released."""

    def retire(self, position: int, keep: int = 2, /) -> int:
        """Forget the segments that lie wholly before `position`, as far as they and records behind them are synced: how
        many went. Up to `keep` files, two at most, are used again. With the GIL released."""

    def close(self) -> None:
        """Flush, without a sync, and let go of it: another can open it. Twice does no harm. OSError EALREADY while a
        sync is under way: it stays open. A poisoned one says so too, and is closed."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

def prepare_segment(directory: str, id: bytes, number: int, segment_bytes: int, /) -> None:
    """Make that segment of the journal with that id ready, which finds it when it is needed: a spare file anew, or one
    of zeros; both synced, which takes as long as the disk does. With the GIL released: for another thread than the
    journal's, and one at a time. Nothing is done where it is there, and nothing left behind by an OSError, such as
    ENOSPC."""

def check_journal(
    directory: str,
    report: Callable[[str, int, int], object] | None = None,
    record: Callable[[int, int, int, bytes], object] | None = None,
    position: int = 0,
    /,
) -> list[tuple[int, int, int, int, int, int, int, int, int]]:
    """Look at every record of every segment, or at those from `position` on, and change nothing; a daemon may have the
    journal open. `report` is told first what Journal would find and do. Then record(position, sequence, type, body) is
    called for each, until it returns what is false.

    Of each segment that there is: its number, when it was made and last written (ns since 1970), the bytes of the file;
    how many records were seen, of how many bytes, the first's sequence and the last's (0 without any), and the position
    behind the last. The GIL is released but for the calls. OSError as Journal's, and ENOENT."""
