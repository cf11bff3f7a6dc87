"""A command where io_uring is refused, as a container does it: `python without_io_uring.py EPERM command…`. A seccomp
filter answers its three system calls with that error, to the command and to all that it starts."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Final

#: io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every machine.
CALLS: Final = (425, 426, 427)
#: The machine as a filter sees it, and its number of seccomp(2).
_MACHINES: Final = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1

# Of classic BPF: load a word of seccomp_data, jump if equal, return.
_LOAD, _JUMP_IF, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _MACHINE = 0, 4  # where they are in seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def steps(machine: int, error: int) -> list[tuple[int, int, int, int]]:
    """Operation, how far to jump if so, if not, and its number. Another machine's calls (a 32-bit program's) pass."""
    allow = len(CALLS)  # from the first comparison of a number on
    found = [(_LOAD, 0, 0, _MACHINE), (_JUMP_IF, 0, allow + 1, machine), (_LOAD, 0, 0, _NUMBER)]
    found += [(_JUMP_IF, allow - place, 0, call) for place, call in enumerate(CALLS)]
    return [*found, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | error)]


def refuse(error: int) -> None:
    """From now on, and never again otherwise. OSError where no filter can be installed."""
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOTSUP, f"no filter was written for {platform.machine()}")
    machine, seccomp = _MACHINES[platform.machine()]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps(machine, error))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        seccomp, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
