"""agentd's C core. Sources: native/; this file is its documentation.

Unless a function says otherwise: it never blocks, keeps the GIL, may be called from any thread, and holds no
reference to its arguments after it returned. A failed system call raises OSError (or its subclass) with that errno.
"""

from _typeshed import ReadableBuffer

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

    Keeps the GIL for the whole run: about 0.13 ms a MiB with the CPU's instruction, 3 ms without, so give large data
    in pieces where other threads wait. Raises TypeError for what is no buffer (str too), BufferError for a buffer
    that is not contiguous, OverflowError for an initial outside 0..2**32-1.
    """

def io_uring_errno() -> int:
    """0 where this process may make an io_uring, else the errno of the attempt: ENOSYS where the kernel has none, EPERM
    where an administrator (kernel.io_uring_disabled) or a sandbox forbids it.

    Makes one of four entries and closes it: some 20 µs. The kernel's version would say less.
    """
