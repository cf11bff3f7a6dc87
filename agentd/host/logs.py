"""Diagnostics on stderr: for journald with its priority prefix, else with a time; or in a file that is bounded. Bodies
are never logged."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentd.wire.errors import ConfigError

_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    """`<6>message`, on every line of it: journald keeps the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def under_journald(environ: Mapping[str, str], fd: int) -> bool:
    """Whether `fd` is the stream that systemd connected to its journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def start_logging(
    level: str, environ: Mapping[str, str], file: Path | None = None, max_file_bytes: int = 1 << 20
) -> None:
    """Send agentd's log records to stderr, or to `file`."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        handler = _file_handler(file, max_file_bytes)
    if file is None and under_journald(environ, sys.stderr.fileno()):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s agentd %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _file_handler(file: Path, max_bytes: int) -> logging.Handler:
    from logging.handlers import RotatingFileHandler

    try:
        return RotatingFileHandler(file, maxBytes=max_bytes, backupCount=1, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(
            f"--log-file: {file} can't be written: {error.strerror}", "Name a file in a directory of yours."
        ) from None


def finish_logging() -> None:
    """Let go of a stderr that nobody reads: what is left in its buffer would make the interpreter exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, sys.stderr.fileno())
        os.close(null)
