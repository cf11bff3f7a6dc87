"""A file that is being written: under its name only once it is whole."""

from __future__ import annotations

import errno
import os
import unicodedata
from contextlib import suppress
from typing import Final

#: What a name may take, and what one for the meantime takes of that.
_MAX_NAME_BYTES: Final = 255
_MEANTIME_BYTES: Final = 20
#: What a file system answers that has no files without a name.
_NO_NAMELESS: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
#: What one answers where a file can't have two names.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def safe_name(name: str) -> str:
    """One name in one directory, visible, and nothing in it that a terminal would obey or hide."""
    name = name.rpartition("/")[2]
    name = "".join("_" if unicodedata.category(letter)[0] == "C" else letter for letter in name).strip()
    if name.startswith("."):
        name = "_" + name[1:]
    return name.encode()[:_MAX_NAME_BYTES].decode("utf-8", "ignore") or "file"


class Target:
    """`open`, `place` and `close` may take as long as a disk takes; each is called once, in that order."""

    def __init__(self, path: str | bytes, name: str, replace: bool) -> None:
        self.path = os.fsdecode(path)
        self.fd = -1
        self._name = name
        self._replace = replace
        self._directory = -1
        self._meantime = ""  # the name that it has until it is whole; empty where it has none

    def open(self) -> None:
        """OSError where it can't be written there, FileExistsError where another would be lost."""
        if os.path.isdir(self.path) or self.path.endswith("/"):
            self.path = os.path.join(self.path, self._name)
        where, self._name = os.path.split(self.path)
        self._directory = os.open(where or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if os.path.isdir(self.path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.path)
        if not self._replace and os.path.lexists(self.path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
        flags = os.O_RDWR | os.O_CLOEXEC
        if os.path.exists("/proc/self/fd"):
            try:
                self.fd = os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=self._directory)
                return
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise OSError(error.errno, error.strerror, self.path) from None
        name = self._name_for_now()
        self.fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self._directory)
        self._meantime = name

    def _name_for_now(self) -> str:
        short = os.fsdecode(os.fsencode(self._name)[: _MAX_NAME_BYTES - _MEANTIME_BYTES])
        return f".{short}.{os.urandom(4).hex()}.part"

    def place(self) -> None:
        """It is whole: give it its name, at once or not at all."""
        try:
            self._place()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None

    def _place(self) -> None:
        where = self._directory
        if not self._meantime:
            name = self._name_for_now() if self._replace else self._name
            nameless = f"/proc/self/fd/{self.fd}"
            os.link(nameless, name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=True)
            if not self._replace:
                return
            self._meantime = name
        elif not self._replace:
            try:
                os.link(self._meantime, self._name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)
                return  # close() removes the other name
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.replace(self._meantime, self._name, src_dir_fd=where, dst_dir_fd=where)
        self._meantime = ""

    def close(self) -> None:
        """Nothing of it stays that has not got its name."""
        if self._meantime:
            with suppress(OSError):
                os.unlink(self._meantime, dir_fd=self._directory)
        for fd in (self.fd, self._directory):
            if fd >= 0:
                os.close(fd)
        self.fd = self._directory = -1
