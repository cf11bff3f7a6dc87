r"""How a body stands on one line of the text face: \\ is a backslash, \n a newline, \r a return, \xff any byte."""

from __future__ import annotations

import re
from typing import Final

from agentd.wire.errors import BadRequest

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.)|$)", re.DOTALL)
_NAMED: Final = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


class BadCommand(BadRequest):
    """A line that is no command."""


def unescaped(text: bytes) -> bytes:
    """The body that was written as `text`; BadCommand for an escape that is none."""

    def meant(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes((int(match[1], 16),))
        if match[2] not in _NAMED:
            raise BadCommand(f"{match[0].decode(errors='replace')} is no escape: write \\\\ for a backslash")
        return _NAMED[match[2]]

    return _ESCAPE.sub(meant, text) if b"\\" in text else text


def escaped(body: bytes) -> bytes:
    """A body as it is written on a line: text as it is, what could break the line or is no text escaped."""
    text = body.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    if not text.isascii():
        text = text.decode("utf-8", "backslashreplace").encode()
    return re.sub(rb"[\x00-\x08\x0b-\x1f\x7f]", lambda found: b"\\x%02x" % found[0][0], text)


def value(text: bytes) -> bytes:
    """A value that nobody takes for a refusal."""
    return b"!" + text if text.startswith(b"!") else text
