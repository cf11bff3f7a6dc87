"""Bytes to lines, for the faces that speak in lines."""

from __future__ import annotations

from agentd.wire.errors import TooLarge
from agentd.wire.frames import FRAME_SLACK_BYTES, MAX_PIECES


class Lines:
    """What has come of a line whose end has not."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_bytes = max_body_bytes + FRAME_SLACK_BYTES
        self._pieces: list[bytes] = []
        self._have = 0
        self.frames = 0  # lines completed so far

    @property
    def unfinished(self) -> bool:
        """Whether the other side owes the rest of a line."""
        return bool(self._have)

    @property
    def unfinished_bytes(self) -> int:
        """How much of it has come and is kept."""
        return self._have

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends; TooLarge for one that is too long."""
        *lines, rest = data.split(b"\n")
        if lines:
            self.frames += len(lines)
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._have = 0
        if rest:
            self._pieces.append(rest)
            self._have += len(rest)
            if len(self._pieces) > MAX_PIECES:
                self._pieces = [b"".join(self._pieces)]
        if self._have > self._max_bytes or any(len(line) > self._max_bytes for line in lines):
            raise TooLarge(
                f"A line is over the limit of {self._max_bytes} bytes", "Use the binary face for large bodies."
            )
        return lines
